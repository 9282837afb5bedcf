"""Change the models of a `servingd.yaml` as text: whatever is not changed stays byte for byte.

Pure: text in, text out. A change is made where PyYAML says that a value stands, and is refused
unless the new text then means exactly what was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from servingd.config.models import ModelConfig
from servingd.config.yaml.document import MODEL_FIELDS
from servingd.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

ADD, REMOVE, SET_LABELS, REMOVE_LABEL = "add", "remove", "set labels", "remove label"

_BY_HAND = "change the file by hand, and let the server read it again"


@dataclass(frozen=True, slots=True)
class ModelEdit:
    """One change: `kind` is ADD, REMOVE, SET_LABELS or REMOVE_LABEL, `model` the model's name."""

    kind: str
    model: str
    content: Mapping[str, Any] = field(default_factory=dict)
    """ADD: the other fields of the entry. SET_LABELS: versions by label. REMOVE_LABEL: `label`."""

    def apply(self, text: str, served: Mapping[str, ModelConfig]) -> str:
        """Return the changed text of `servingd.yaml`; `served` are all models now, by name.

        Raises AlreadyExists, NotFound, InvalidArgument, or FailedPrecondition where the file
        cannot make the change.
        """
        return _KINDS[self.kind](self, _File(text), served)


def _add(edit: ModelEdit, file: _File, served: Mapping[str, ModelConfig]) -> str:
    if edit.model in served or edit.model in file.names:
        raise AlreadyExists(f"model {edit.model} is configured already")
    for name in edit.content:
        if name not in MODEL_FIELDS or name == "name":
            known = ", ".join(name for name in MODEL_FIELDS if name != "name")
            raise InvalidArgument(f"{name}: no field of a model; there are: {known}")
    return file.with_entry({"name": edit.model, **edit.content})


def _remove(edit: ModelEdit, file: _File, served: Mapping[str, ModelConfig]) -> str:
    entry = file.entries.get(edit.model)
    if entry is not None and "base_path" in entry:
        return file.without_entry(edit.model)
    if edit.model not in served:
        raise NotFound(f"no model {edit.model} is configured")
    raise FailedPrecondition(
        f"model {edit.model} does not come from servingd.yaml: remove it where it is listed"
    )


def _set_labels(edit: ModelEdit, file: _File, served: Mapping[str, ModelConfig]) -> str:
    return file.with_labels(edit.model, {**_labels(edit.model, served), **edit.content})


def _remove_label(edit: ModelEdit, file: _File, served: Mapping[str, ModelConfig]) -> str:
    labels, label = _labels(edit.model, served), edit.content["label"]
    if label not in labels:
        there = ", ".join(sorted(labels)) or "none"
        raise NotFound(f"model {edit.model} has no label {label}; there are: {there}")
    return file.with_labels(edit.model, {k: v for k, v in labels.items() if k != label})


_KINDS: Mapping[str, Callable[[ModelEdit, _File, Mapping[str, ModelConfig]], str]] = {
    ADD: _add,
    REMOVE: _remove,
    SET_LABELS: _set_labels,
    REMOVE_LABEL: _remove_label,
}


def _labels(model: str, served: Mapping[str, ModelConfig]) -> dict[str, int]:
    if model not in served:
        raise NotFound(f"no model {model} is configured")
    return dict(served[model].version_labels)


class _File:
    """A parsed text, which knows where its models stand."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = text.splitlines(keepends=True)
        self._data: dict[str, Any] = yaml.safe_load(text) or {}
        self.entries: dict[str, Mapping[str, Any]] = {
            entry["name"]: entry for entry in self._data.get("models") or ()
        }
        self.names = list(self.entries)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        self._models = _value(root, "models") if isinstance(root, yaml.MappingNode) else None

    def with_entry(self, entry: Mapping[str, Any]) -> str:
        """Return the text with one more model, after the others."""
        wanted = {**self._data, "models": [*(self._data.get("models") or ()), dict(entry)]}
        if self._models is None:
            return _checked(self._ended() + _item("", {"models": [entry]}), wanted)
        items = self._items()
        if items:
            after = _last_line(items[-1])
            column = items[-1].start_mark.column - 2  # an item begins with "- "
            return _checked(self._inserted(after + 1, _item(" " * column, [entry])), wanted)
        start, end = self._models.start_mark, self._models.end_mark
        text = _item("", [entry])
        if end.index > start.index:  # "[]" or "null" stands there
            head, tail = self._text[: start.index].rstrip(" "), self._text[end.index :]
            return _checked(f"{head}\n{text}{tail.lstrip(' ').removeprefix(chr(10))}", wanted)
        return _checked(self._inserted(start.line + 1, text), wanted)

    def without_entry(self, name: str) -> str:
        """Return the text without a model; comments stay."""
        at = self.names.index(name)
        rest = [entry for entry in self._data["models"] if entry["name"] != name]
        wanted = {**self._data, "models": rest}
        item = self._items()[at]
        lines = [*self._lines]
        lines[item.start_mark.line : _last_line(item) + 1] = []
        if not rest:
            lines[self._models_line()] = "models: []\n"
        return _checked("".join(lines), wanted)

    def with_labels(self, name: str, labels: Mapping[str, int]) -> str:
        """Return the text with a model's labels; a model without an entry here gets one."""
        if name not in self.entries:
            return self.with_entry({"name": name, "version_labels": dict(labels)})
        at = self.names.index(name)
        wanted = {**self._data, "models": [dict(entry) for entry in self._data["models"]]}
        wanted["models"][at]["version_labels"] = dict(labels)
        item = self._items()[at]
        there = _value(item, "version_labels")
        if there is None:
            line = " " * item.start_mark.column + f"version_labels: {_flow(labels)}\n"
            return _checked(self._inserted(_last_line(item) + 1, line), wanted)
        if not isinstance(there, yaml.MappingNode) or there.flow_style or not labels:
            return _checked(self._replaced(there, labels), wanted)
        return _checked(self._with_block(there, labels), wanted)

    def _items(self) -> Sequence[Any]:
        """Return the nodes of the models. Raises FailedPrecondition if they stand in one line."""
        if not isinstance(self._models, yaml.SequenceNode):
            return ()
        inline = any(item.flow_style for item in self._models.value)
        if self._models.value and (self._models.flow_style or inline):
            raise FailedPrecondition(
                f"models: expected a list with a line for each field, as in the guide; {_BY_HAND}"
            )
        items: Sequence[Any] = self._models.value
        return items

    def _replaced(self, node: Any, labels: Mapping[str, int]) -> str:
        """Return the text with labels in one line, in the place of what there is."""
        text, start, end = self._text, node.start_mark.index, node.end_mark.index
        kept = text[start:end]
        end -= len(kept) - len(kept.rstrip())
        head = text[:start]
        if isinstance(node, yaml.MappingNode) and not node.flow_style:
            head = head.rstrip() + " "
        return f"{head}{_flow(labels)}{text[end:]}"

    def _with_block(self, node: Any, labels: Mapping[str, int]) -> str:
        """Return the text with labels that have a line each; other lines stay as they are."""
        lines, left = [*self._lines], dict(labels)
        last = _last_line(node)
        column = node.start_mark.column
        for key, value in reversed(node.value):
            wanted = left.pop(key.value, None)
            at, start, end = value.start_mark.line, value.start_mark.column, value.end_mark.column
            line = lines[at]
            lines[at] = "" if wanted is None else f"{line[:start]}{wanted}{line[end:]}"
        new = [f"{' ' * column}{_scalar(label)}: {left[label]}\n" for label in left]
        lines[last] = _with_newline(lines[last]) if lines[last] else ""
        lines[last + 1 : last + 1] = new
        return "".join(lines)

    def _inserted(self, line: int, text: str) -> str:
        lines = [*self._lines]
        if lines and line > 0:
            lines[line - 1] = _with_newline(lines[line - 1])
        lines.insert(line, text)
        return "".join(lines)

    def _ended(self) -> str:
        return _with_newline(self._text) if self._text else ""

    def _models_line(self) -> int:
        return next(i for i, line in enumerate(self._lines) if line.startswith("models:"))


def _value(mapping: Any, key: str) -> Any:
    """Return the node of a key's value; None if there is none."""
    return next((value for name, value in mapping.value if name.value == key), None)


def _last_line(node: Any) -> int:
    """Return the number of the last line of a node's own content, from 0: no comment after it."""
    if isinstance(node, yaml.ScalarNode) or getattr(node, "flow_style", False) or not node.value:
        end: int = node.end_mark.line
        is_block_text = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        return end - 1 if is_block_text else end
    last = node.value[-1]
    return _last_line(last[1] if isinstance(last, tuple) else last)


def _item(indent: str, data: Any) -> str:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=4096)
    return "".join(indent + line for line in text.splitlines(keepends=True))


def _flow(labels: Mapping[str, int]) -> str:
    text = yaml.safe_dump(
        dict(labels), default_flow_style=True, sort_keys=False, allow_unicode=True, width=4096
    )
    return text.strip()


def _scalar(text: str) -> str:
    """Return a key as YAML reads it back."""
    plain = text.isidentifier() and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)


def _with_newline(line: str) -> str:
    return line if line.endswith("\n") else line + "\n"


def _checked(text: str, wanted: Mapping[str, Any]) -> str:
    """Return the text. Raises FailedPrecondition if it does not say what is wanted."""
    try:
        says = yaml.safe_load(text)
    except yaml.YAMLError:
        says = None
    if says != wanted:
        raise FailedPrecondition(f"servingd.yaml is written in a way not understood; {_BY_HAND}")
    return text
