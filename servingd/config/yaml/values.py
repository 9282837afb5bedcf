"""YAML values with their positions, so that an error can name file, line and field.

Only plain data is read: mappings, lists, and scalars of YAML's own types.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from servingd.config.flags.parser import EXPECTED, nearest
from servingd.errors import InvalidConfig, NotFound

_TAG = "tag:yaml.org,2002:"
_KINDS: Mapping[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
_SHOWN = 60
"""The characters of a wrong value that an error shows."""


@dataclass(frozen=True, slots=True)
class Value:
    """One node of a file, and its position."""

    node: yaml.Node
    path: str
    field: str

    @property
    def where(self) -> str:
        """`FILE:LINE: FIELD`, the beginning of an error."""
        place = f"{self.path}:{self.node.start_mark.line + 1}"
        return f"{place}: {self.field}" if self.field else place

    def error(self, expected: str) -> InvalidConfig:
        """Return the error that something else was expected here."""
        return InvalidConfig(f"{self.where}: expected {expected}, got {self._shown()}")

    def scalar(self, kind: type) -> Any:
        """Return a bool, int, float or str; a float may be written as a whole number.

        Raises InvalidConfig if the value is of another kind.
        """
        value = self._construct()
        if kind is float and type(value) is int and abs(value) < 2**1000:
            value = float(value)
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            hint = "; a text that looks like something else needs quotes" if kind is str else ""
            raise InvalidConfig(f"{self.error(EXPECTED[kind]).message}{hint}")
        return value

    def items(self) -> list[Value]:
        """Return the items of a list. Raises InvalidConfig if this is no list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("a list")
        return [
            Value(node, self.path, f"{self.field}[{index}]")
            for index, node in enumerate(self.node.value)
        ]

    def entries(self, known: Collection[str] | None = None) -> dict[str, Value]:
        """Return the entries of a mapping by key; each key once, a text, and one of `known`.

        Raises InvalidConfig for any other value.
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("a mapping")
        entries: dict[str, Value] = {}
        for key_node, node in self.node.value:
            key = Value(key_node, self.path, self.field)
            name: str = key.scalar(str)
            here = Value(key_node, self.path, f"{self.field}.{name}" if self.field else name)
            if name in entries:
                first = entries[name].node.start_mark.line + 1
                raise InvalidConfig(f"{here.where}: stands twice; first in line {first}")
            if known is not None and name not in known:
                hint = nearest(name, known) or f"; known: {', '.join(sorted(known))}"
                raise InvalidConfig(f"{here.where}: unknown key{hint}")
            entries[name] = Value(node, self.path, here.field)
        return entries

    def plain(self) -> Any:
        """Return the value as dicts, lists and scalars. Raises InvalidConfig for other YAML."""
        if isinstance(self.node, yaml.MappingNode):
            return {name: value.plain() for name, value in self.entries().items()}
        if isinstance(self.node, yaml.SequenceNode):
            return [item.plain() for item in self.items()]
        if self.is_null():
            return None
        value = self._construct()
        if value is None:
            raise self.error("a text, a number, true, false, a list or a mapping")
        return value

    def is_null(self) -> bool:
        """Return whether the value is empty."""
        return self.node.tag == f"{_TAG}null"

    def _construct(self) -> Any:
        """Return the scalar; None for anything else."""
        if not isinstance(self.node, yaml.ScalarNode):
            return None
        if self.node.tag.removeprefix(_TAG) not in _KINDS:
            return None
        try:
            return yaml.constructor.SafeConstructor().construct_object(self.node)
        except (ValueError, LookupError, OverflowError, yaml.YAMLError):
            return None

    def _shown(self) -> str:
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if self.is_null():
            return "nothing"
        text = self.node.value
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def read_yaml(path: str) -> Value | None:
    """Return the one document of a file; None if it is empty.

    Raises:
        NotFound: there is no such file.
        InvalidConfig: it cannot be read, or is not YAML; the text names the file and the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path}; No such file or directory") from None
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: str) -> Value | None:
    """Return the one document of a text; None if it is empty. `path` stands in errors.

    Raises InvalidConfig: it is not YAML; the error names the line.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError:
        raise InvalidConfig(f"{path}: nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{path}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InvalidConfig(f"{path}: {' '.join(str(error).split())}") from error
    return None if node is None else Value(node, path, "")
