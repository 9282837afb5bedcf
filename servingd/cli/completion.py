"""The command `completion`: print the script that lets a shell complete commands."""

from __future__ import annotations

import enum
import sys
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]


class Shell(enum.StrEnum):
    """A shell that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell.")]) -> None:
    """Print the script that lets a shell complete commands, flags and files.

    For bash: `source <(servingd completion bash)` in ~/.bashrc. For zsh: the same in ~/.zshrc. For
    fish: `servingd completion fish > ~/.config/fish/completions/servingd.fish`.
    """
    sys.stdout.write(
        get_completion_script(
            prog_name="servingd", complete_var="_SERVINGD_COMPLETE", shell=shell.value
        )
        + "\n"
    )
