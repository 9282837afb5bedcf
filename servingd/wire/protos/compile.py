"""Compiles the folder `protos/` into this package: one descriptor set, and type stubs for mypy.

    python -m servingd.wire.protos.compile          write both
    python -m servingd.wire.protos.compile --check  exit 1 where they are not what `protos/` says

Needs grpcio-tools, which only those who change `protos/` have.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIRE = Path(__file__).parent
_SOURCES = _WIRE.parents[2] / "protos"
_DESCRIPTORS = "protos.pb"
_STUBS = "_pb"

# The bases of the generated classes have no type information of their own.
_STUB_HEAD = (
    "# Made from protos/ by servingd.wire.protos.compile: do not edit.\n"
    '# mypy: disable-error-code="metaclass, misc, type-arg"\n'
)
_ABSOLUTE_IMPORT = re.compile(
    r"^from (inference|tensorflow|tensorflow_serving|servingd)\b", re.MULTILINE
)


def compile_protos(sources: Path, target: Path) -> None:
    """Write `protos.pb` and `_pb/` below `target`, from all `.proto` files below `sources`.

    Raises:
        RuntimeError: protoc found a mistake; it has written what it is to stderr.
    """
    stubs = target / _STUBS
    stubs.mkdir(parents=True)
    files = sorted(path.relative_to(sources).as_posix() for path in sources.rglob("*.proto"))
    _protoc(
        f"-I{sources}",
        "--include_imports",
        f"--descriptor_set_out={target / _DESCRIPTORS}",
        f"--pyi_out={stubs}",
        *files,
    )
    for stub in stubs.rglob("*.pyi"):
        stub.write_text(_STUB_HEAD + _with_private_imports(stub.read_text()))
    for folder in (path for path in stubs.rglob("*") if path.is_dir()):
        (folder / "__init__.pyi").write_text(_STUB_HEAD)
    (stubs / "__init__.pyi").write_text(_STUB_HEAD + _exports(target / _DESCRIPTORS))


def _protoc(*arguments: str) -> None:
    # In a process of its own: its protobuf and TensorFlow's crash each other.
    result = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=False)
    if result.returncode != 0:
        raise RuntimeError("protoc could not compile protos/")


def _with_private_imports(stub: str) -> str:
    """Return `stub` with imports from this package, not from the real ones of those names."""
    return _ABSOLUTE_IMPORT.sub(rf"from servingd.wire.protos.{_STUBS}.\1", stub)


def _exports(descriptors: Path) -> str:
    """Return import lines that give every top-level message its short name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file
    return _with_private_imports(
        "".join(
            f"from {file.name.removesuffix('.proto').replace('/', '.')}_pb2"
            f" import {message.name} as {message.name}\n"
            for file in files
            for message in file.message_type
        )
    )


def _outputs(folder: Path) -> dict[Path, bytes]:
    """Return all files that the compiler owns in `folder`, by relative path."""
    paths = [folder / _DESCRIPTORS, *(folder / _STUBS).rglob("*.pyi")]
    return {path.relative_to(folder): path.read_bytes() for path in paths if path.is_file()}


def stale_outputs(fresh: Path, committed: Path) -> list[str]:
    """Return the relative paths that differ between two folders, or are in one of them only."""
    wanted, present = _outputs(fresh), _outputs(committed)
    return sorted(
        path.as_posix()
        for path in wanted.keys() | present.keys()
        if wanted.get(path) != present.get(path)
    )


def _replace_outputs(fresh: Path, committed: Path) -> None:
    wanted = _outputs(fresh)
    for path in _outputs(committed).keys() - wanted.keys():
        (committed / path).unlink()
    for path, content in wanted.items():
        (committed / path).parent.mkdir(parents=True, exist_ok=True)
        (committed / path).write_bytes(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="compile protos/ into servingd/wire/protos")
    parser.add_argument("--check", action="store_true", help="only say whether they are fresh")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        compile_protos(_SOURCES, fresh)
        stale = stale_outputs(fresh, _WIRE)
        if not options.check:
            _replace_outputs(fresh, _WIRE)
            return 0
    if stale:
        print(
            "servingd/wire/protos is not what protos/ says: "
            "run `make protos` and commit its output "
            f"({len(stale)} files differ, the first is {stale[0]}).",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
