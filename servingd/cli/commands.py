"""The table of commands, with their help; what each does is in the folders here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from servingd import __version__
from servingd.cli.calling.bench import bench
from servingd.cli.calling.predict import predict
from servingd.cli.checking.doctor import doctor
from servingd.cli.checking.inspect import inspect
from servingd.cli.checking.validate import validate
from servingd.cli.checking.warmup import warmup
from servingd.cli.completion import completion
from servingd.cli.config_reference import config_reference
from servingd.cli.importing.command import importing
from servingd.cli.operating.devices import devices
from servingd.cli.operating.labels import labels
from servingd.cli.operating.models import models
from servingd.cli.operating.status import status
from servingd.cli.operating.workers import workers
from servingd.cli.serve_help import ServeCommand, serve

_SERVE, _OPERATE, _CALL, _CHECK, _MORE = (
    "Serve",
    "Operate a server",
    "Call models",
    "Check",
    "More",
)

app = typer.Typer(
    name="servingd",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit status: 0 done; 1 the answer is an error, or a check failed; 2 wrong use; 3 the "
    "server cannot be reached; 4 time is up; 130 Ctrl-C; 255 `serve` cannot start.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"servingd {__version__}\n")
        raise typer.Exit


@app.callback()
def _servingd(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Serve machine-learning models, as TensorFlow Serving does, and operate such a server.

    `servingd serve PATH` is all it takes; `servingd help COMMAND` says more about each command.
    """


app.command("serve", cls=ServeCommand, rich_help_panel=_SERVE)(serve)
app.command("status", rich_help_panel=_OPERATE)(status)
app.add_typer(models, rich_help_panel=_OPERATE)
app.add_typer(labels, rich_help_panel=_OPERATE)
app.command("devices", rich_help_panel=_OPERATE)(devices)
app.add_typer(workers, rich_help_panel=_OPERATE)
app.command("predict", rich_help_panel=_CALL)(predict)
app.command("bench", rich_help_panel=_CALL)(bench)
app.command("inspect", rich_help_panel=_CHECK)(inspect)
app.command(
    "validate",
    rich_help_panel=_CHECK,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(validate)
app.command(
    "doctor",
    rich_help_panel=_CHECK,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(doctor)
app.add_typer(warmup, rich_help_panel=_CHECK)
app.add_typer(importing, rich_help_panel=_MORE)
app.command("config-reference", rich_help_panel=_MORE)(config_reference)
app.command("completion", rich_help_panel=_MORE)(completion)


@app.command("help", rich_help_panel=_MORE)
def _help(
    command: Annotated[
        list[str] | None, typer.Argument(help="The command; none: list them all.")
    ] = None,
) -> None:
    """Show the help of a command."""
    if command and command[0] == "serve":
        from servingd.cli.serve_help import print_help

        print_help()
        return
    app(args=[*(command or ()), "--help"], prog_name="servingd")
