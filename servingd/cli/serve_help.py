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
        if not incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        item = type(super().shell_complete(ctx, "--help")[0])
        return [
            item(f"--{name}", help=flag.metadata["help"])
            for name, flag in FLAGS.items()
            if f"--{name}".startswith(incomplete)
        ]


def serve(
    path: Annotated[
        str,
        typer.Argument(
            help="A SavedModel, a folder of versions, or a folder of models: told by looking."
        ),
    ] = "",
) -> None:
    """Serve models until SIGTERM or Ctrl-C. `servingd serve --help` lists all flags."""
    print_help()  # `main` runs `serve` before this table is read: here it is for help alone


def print_help() -> None:
    """Print the flags."""
    sys.stdout.write(usage("servingd serve [PATH]", DEFAULTS))
