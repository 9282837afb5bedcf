"""The messages with which a start, a load or a configuration fails, read from the code itself.

A message is a template: `...` stands for what is filled in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import ROOT

PACKAGE = ROOT / "servingd"

RAISING = (
    "config",
    "sources",
    "servables",
    "wire/config",
    "machine",
    "supervisor/ports.py",
    "supervisor/sizing.py",
    "control.py",
    "server.py",
    "worker.py",
    "frontends/tls.py",
    "frontends/admin_token.py",
    "frontends/grpc/transport.py",
    "runtime/manager",
    "runtime/warm_up/recorded.py",
    "core/resources/placement.py",
    "core/lifecycle/labels.py",
    "core/lifecycle/endings.py",
)
"""Where errors of starts, loads and configurations are raised."""

RETURNING = (
    "core/version_files.py",
    "core/readiness.py",
    "core/resources/tracker.py",
    "servables/files/whole_files.py",
    "servables/saved_model/files/completeness.py",
    "servables/tensorflow_runtime/runtime.py",
    "sources/lookalikes.py",
    "sources/model_directory.py",
)
"""Where functions return why something is not served."""

OF_CALLS = (
    "config/yaml/edits.py",  # administrators' calls, answered to whoever makes them
    "sources/config_edits.py",
    "servables/assembled/composite/call.py",
    "servables/assembled/composite/combining.py",
    "servables/assembled/sharded/call.py",
    "servables/assembled/splitting.py",
    "servables/guarding/guard.py",
    "servables/lookup_table/servable.py",
    "servables/onnx/servable.py",
    "servables/onnx/session.py",
    "servables/sklearn/methods.py",
    "servables/sklearn/servable.py",
    "servables/saved_model/servable.py",
    "servables/saved_model/session/session.py",
    "servables/saved_model/session/timed_runs.py",
    "servables/tensorflow_runtime/profiler.py",
    "servables/tflite/servable.py",
    "servables/saved_model/merging",  # why calls are not merged, which is no error
    "servables/saved_model/optimise",  # why a graph is not optimised
    "servables/saved_model/trials",
    "servables/onnx/row_wise",
    "servables/sklearn/row_wise.py",
    "servables/saved_model/files/static_tables.py",
    "servables/saved_model/files/mapped_weights.py",
    "servables/saved_model/session/c_api.py",  # carried by the errors of the load
    "servables/synthetic_inputs.py",
    "servables/tensorflow_runtime/quiet.py",  # the program's own, and told to nobody
)
"""What concerns calls, or decisions that fail nothing."""

_NOT_TOLD = frozenset(
    {"NotImplementedError", "AttributeError", "IllegalTransition", "BadIndex", "NotLocal"}
)
"""Errors that the program makes for itself, or whose text is a phrase within another's."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, and where it is made."""

    file: str
    line: int
    template: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.template}"


def messages() -> list[Message]:
    """All messages that say something of their own: others carry a message that does."""
    found = [*_raised(), *_returned()]
    return [message for message in found if says_something(message.template)]


def says_something(template: str) -> bool:
    """Whether a template has words enough of its own to be found by them."""
    words = [word for word in template.split() if re.search(r"[a-z]{2,}", word)]
    return len(words) >= 2 and own_letters(template) >= 10


def own_letters(template: str) -> int:
    """How many letters of a template are not filled in."""
    return len(re.findall(r"[A-Za-z]", template))


def _raised() -> Iterator[Message]:
    for path in _files(RAISING):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            kind = _name(node.exc.func)  # other functions make "expected PHRASE, got ..."
            if not kind[:1].isupper() or kind in _NOT_TOLD or not node.exc.args:
                continue
            for argument in node.exc.args:
                yield from _templates(path, argument, tree)


def _returned() -> Iterator[Message]:
    """All texts of some words: whatever these files say is a reason."""
    for path in _files(RETURNING):
        tree = ast.parse(path.read_text())
        others = {id(part) for node in ast.walk(tree) for part in _no_messages(node)}
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        texts = {id(text): text for function in functions for text in ast.walk(function)}
        for key, node in texts.items():
            if isinstance(node, ast.JoinedStr | ast.Constant) and key not in others:
                yield from _templates(path, node, tree)


def _no_messages(node: ast.AST) -> Iterator[ast.AST]:
    """What is no message by itself: docstrings, parts of texts, and what is only logged."""
    if isinstance(node, ast.JoinedStr):
        yield from (part for part in ast.walk(node) if part is not node)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("_log.", "BadIndex")):
        yield from ast.walk(node)


def _files(names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = PACKAGE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            relative = str(file.relative_to(PACKAGE))
            if not relative.startswith(OF_CALLS):
                yield file


def _templates(path: Path, node: ast.expr, tree: ast.Module) -> Iterator[Message]:
    for text in _texts(node, tree):
        flat = re.sub(r"(\.\.\.){2,}", "...", " ".join(text.split()))
        yield Message(str(path.relative_to(PACKAGE)), node.lineno, flat)


def _texts(node: ast.expr, tree: ast.Module) -> list[str]:
    """The templates that an expression may become; none if it says nothing by itself."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return ["".join(v.value if isinstance(v, ast.Constant) else "..." for v in values)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body, tree), *_texts(orelse, tree)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [
                a + b for a in _texts(left, tree) or ["..."] for b in _texts(right, tree) or [""]
            ]
        case ast.BinOp(left=left, op=ast.Mod()):
            return [re.sub(r"%\w", "...", text) for text in _texts(left, tree)]
        case ast.BoolOp(values=values):
            return [text for value in values for text in _texts(value, tree)]
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return [re.sub(r"\{.*?\}", "...", text) for text in _texts(value, tree)]
        case ast.Name(id=name):
            return [text for value in _values(name, tree) for text in _texts(value, tree)]
    return []


def _values(name: str, tree: ast.Module) -> Iterator[ast.expr]:
    """What is assigned to a name somewhere in the file, unless that is made of itself."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or name not in map(_name, node.targets):
            continue
        if name not in map(_name, ast.walk(node.value)):
            yield node.value


def _name(node: ast.AST) -> str:
    return getattr(node, "id", "")


if __name__ == "__main__":
    for message in messages():
        print(message)
