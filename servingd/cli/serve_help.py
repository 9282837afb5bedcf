"""`serve` as the table of commands shows it: its flags are ServerConfig's, not typer's."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from servingd.config.flags.parser import FLAGS, usage

DEFAULTS = {"rest_api_port": 8501}
"""What `servingd serve` has other than TensorFlow Serving."""


class ServeCommand(TyperCommand):
    """Completes the flags of the server."""

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return the flags that begin so, or files."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            kind = type(found[0]) if found else _completion_item()
            known = (f"--{name}" for name in FLAGS)
            return [
                kind(flag, help=FLAGS[flag[2:]].metadata["help"])
                for flag in known
                if flag.startswith(incomplete)
            ]
        return found


def _completion_item() -> Any:
    from typer._click.shell_completion import CompletionItem

    return CompletionItem


def serve(
    path: Annotated[
        str,
        typer.Argument(
            help="A SavedModel, a folder of versions, or a folder of models: told by looking."
        ),
    ] = "",
) -> None:
    """Serve models until SIGTERM or Ctrl-C. `servingd serve --help` lists all flags."""
    print_help()  # `main` runs the command itself: this is reached by `servingd -x serve` only


def print_help() -> None:
    """Print the flags."""
    sys.stdout.write(usage("servingd serve [PATH]", DEFAULTS))
