"""The commands `import triton` and `import mlserver`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from servingd.cli.importing.imported import Imported
from servingd.cli.importing.mlserver import read_mlserver
from servingd.cli.importing.triton import read_triton
from servingd.cli.options import AsJson
from servingd.cli.output import print_json, print_line

importing = typer.Typer(
    name="import", no_args_is_help=True, help="Serve what was laid out for another server."
)

Folder = Annotated[Path, typer.Argument(help="The other server's folder of models.")]
To = Annotated[Path, typer.Option("--to", help="Where servingd.yaml and links are written.")]

_TO = Path("servingd-models")


@importing.command("triton")
def triton(folder: Folder, to: To = _TO, as_json: AsJson = False) -> None:
    """Write servingd.yaml for a model repository of Triton, and say what has no counterpart."""
    _write(read_triton(folder), to, as_json)


@importing.command("mlserver")
def mlserver(folder: Folder, to: To = _TO, as_json: AsJson = False) -> None:
    """Write servingd.yaml for models of MLServer, and say what has no counterpart."""
    _write(read_mlserver(folder), to, as_json)


def _write(imported: Imported, target: Path, as_json: bool) -> None:
    file = imported.write(target)
    names = [model.name for model in imported.models]
    if as_json:
        print_json({"file": str(file), "models": names, "notes": imported.notes})
        return
    for note in imported.notes:
        print_line(f"note: {note}", style="yellow")
    print_line(f"{file} has {len(names)} models: {', '.join(names) or 'none'}")
    print_line(f"to serve them: servingd serve --servingd_config_file={file}")
