"""The command `inspect`: how a model is called, and what it is made of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from servingd.cli.call_examples import call_examples
from servingd.cli.options import AsJson, Server, grouped
from servingd.cli.output import print_json, print_line, print_table, size
from servingd.client.answers import Signature

_MOST_OPERATIONS = 12
_INTERNAL = "__saved_model"
"""Signatures that begin so are TensorFlow's own, and not called."""


@grouped
def inspect(
    server: Server,
    what: Annotated[
        str, typer.Argument(metavar="PATH|MODEL", help="A folder, or a model of the server.")
    ],
    tags: Annotated[str, typer.Option(help="Tags of the meta graph, with commas.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show signatures, shapes and types, size and operations, and calls to copy and paste.

    A path is looked at on disk, and nothing is loaded; any other name is a model of the server.
    """
    is_path = os.path.exists(what) or "/" in what
    found = _of_path(what, tags) if is_path else _of_server(server, what)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _of_path(path: str, tags: str) -> dict[str, Any]:
    from servingd.cli.checking.version_folder import find_version, is_text, read_version
    from servingd.config.saved_model import SavedModelOptions
    from servingd.servables.registry import Platforms
    from servingd.servables.saved_model.files.estimate import estimate

    folder = find_version(path)
    options = SavedModelOptions()
    found = dataclasses.asdict(
        version := read_version(folder, Platforms(options), tuple(tags.split(",")) if tags else ())
    )
    parent, number = os.path.split(folder)
    found["model"] = os.path.basename(parent) if number.isdigit() else number
    found["signatures"] = version.signatures
    if version.platform == "tensorflow" and not version.incomplete:
        memory = estimate(folder, options)
        found["memory_bytes"] = memory.steady.shared + memory.steady.replica
        if is_text(folder):
            found["note"] = "a SavedModel in text format: only TensorFlow can read its signatures"
    return _with_examples(found)


def _of_server(server: Server, model: str) -> dict[str, Any]:
    with server.client() as client:
        metadata = client.metadata(model)
    return _with_examples(
        {"model": model, "version": metadata.version, "signatures": metadata.signatures}
    )


def _with_examples(found: dict[str, Any]) -> dict[str, Any]:
    signatures: Mapping[str, Signature] = {
        name: each for name, each in found["signatures"].items() if not name.startswith(_INTERNAL)
    }
    examples = {
        name: call_examples(found["model"], name, signature)
        for name, signature in signatures.items()
    }
    return {
        **found,
        "signatures": {name: dataclasses.asdict(each) for name, each in signatures.items()},
        "examples": examples,
    }


def _show(found: Mapping[str, Any]) -> None:
    if "path" in found:
        _show_files(found)
    else:
        print_line(f"{found['model']}, version {found['version']}", style="bold")
    for name, signature in found["signatures"].items():
        print_line(f"\nsignature {name} ({signature['method'].rpartition('/')[2]})", style="bold")
        print_table(
            ("", "Name", "Type", "Shape"),
            [
                (way, alias, spec["dtype"], _shape(spec["shape"]))
                for way in ("inputs", "outputs")
                for alias, spec in sorted(signature[way].items())
            ],
        )
    name = "serving_default" if "serving_default" in found["examples"] else None
    for way, text in found["examples"].get(name or next(iter(found["examples"]), ""), {}).items():
        print_line(f"\n{way}:", style="bold")
        print_line(text)


def _show_files(found: Mapping[str, Any]) -> None:
    print_line(found["path"], style="bold")
    kind = found["platform"] or "no known type"
    made = f", made with TensorFlow {found['tensorflow_version']}"
    print_line(f"type: {kind}{made if found['tensorflow_version'] else ''}")
    print_line(f"files: {found['files']}, {size(found['bytes'])}")
    if found["incomplete"]:
        print_line(f"incomplete: {found['incomplete']}", style="red")
    if "memory_bytes" in found:
        print_line(f"memory: about {size(found['memory_bytes'])}, besides TensorFlow's own")
    if "note" in found:
        print_line(found["note"])
    operations = list(found["operations"].items())
    if operations:
        shown = ", ".join(f"{op} {count}" for op, count in operations[:_MOST_OPERATIONS])
        more = len(operations) - _MOST_OPERATIONS
        total = sum(found["operations"].values())
        others = f", and {more} other kinds" if more > 0 else ""
        print_line(f"operations: {total}: {shown}{others}")


def _shape(shape: Any) -> str:
    if shape is None:
        return "any"
    return f"[{', '.join('?' if each is None else str(each) for each in shape)}]"
