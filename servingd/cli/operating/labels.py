"""The commands `labels ...`: the names of versions that callers use."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from servingd.cli.options import AsJson, Name, Server, grouped
from servingd.cli.output import print_json, print_outcome, print_table

labels = typer.Typer(name="labels", no_args_is_help=True, help="Name versions: stable, canary.")

_PAGES = "/servingd/v1/models"

Label = Annotated[str, typer.Argument(metavar="LABEL", help="The label, such as stable.")]


@labels.command("ls")
@grouped
def ls(
    server: Server,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="The model; none: all models.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the labels of one model, or of all."""
    if model:
        found = [server.page(f"{_PAGES}/{quote(model, safe='')}")]
    else:
        found = server.page(_PAGES)["models"]
    if as_json:
        print_json({each["name"]: each["labels"] for each in found})
        return
    print_table(
        ("Model", "Label", "Version"),
        [
            (each["name"], label, str(version))
            for each in found
            for label, version in sorted(each["labels"].items())
        ],
    )


@labels.command("set")
@grouped
def set_label(
    server: Server,
    model: Name,
    label: Label,
    version: Annotated[int, typer.Argument(help="The version that it names; it must serve.")],
    as_json: AsJson = False,
) -> None:
    """Let a label name a version, in servingd.yaml, from now on."""
    answer = server.act(f"{_PAGES}/{quote(model, safe='')}/labels:set", {label: version})
    print_outcome(answer, f"{label} of {model} is version {version}", as_json)


@labels.command("rm")
@grouped
def rm(server: Server, model: Name, label: Label, as_json: AsJson = False) -> None:
    """Remove a label, in servingd.yaml."""
    answer = server.act(f"{_PAGES}/{quote(model, safe='')}/labels:remove", {"label": label})
    print_outcome(answer, f"{model} has no label {label} any more", as_json)
