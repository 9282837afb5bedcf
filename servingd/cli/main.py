"""The entry points `servingd COMMAND` and `tensorflow_model_server`, and their exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from servingd.cli.exit_status import CANNOT_START, FAILED, INTERRUPTED, LATE, UNREACHABLE
from servingd.errors import Code, ServingError

_STATUS: Mapping[Code, int] = {
    Code.UNAVAILABLE: UNREACHABLE,
    Code.DEADLINE_EXCEEDED: LATE,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["serve"]:
            defaults = {"rest_api_port": 8501}
            return _serve("servingd serve", given[1:], defaults, takes_path=True)
        return _run(given)
    except KeyboardInterrupt:
        return INTERRUPTED


def tensorflow_model_server(arguments: Sequence[str] | None = None) -> int:
    """Serve, with TensorFlow Serving's flags and defaults; return the exit status."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        return _serve("tensorflow_model_server", given, {}, takes_stale_flags=True)
    except KeyboardInterrupt:  # before the server handles signals itself
        return INTERRUPTED


def _serve(program: str, given: Sequence[str], defaults: Mapping[str, Any], **options: bool) -> int:
    """Serve; if the server is not installed, say how to install it."""
    from servingd.cli.needs import check_needs

    try:
        check_needs()
    except ServingError as error:
        sys.stderr.write(f"Failed to start server. Error: {error.code.name}: {error.message}\n")
        return CANNOT_START
    from servingd.cli.serve import serve

    return serve(program, given, defaults, **options)


def _run(given: Sequence[str]) -> int:
    """Run a command other than `serve`."""
    from servingd.cli.commands import app
    from servingd.cli.output import print_error

    try:
        app(args=list(given), prog_name="servingd")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except BrokenPipeError:  # nobody reads on, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ServingError as error:
        print_error(f"{error.code.name}: {error.message}", _advice(error))
        return _STATUS.get(error.code, FAILED)
    except OSError as error:
        print_error(str(error))
        return FAILED
    except ModuleNotFoundError as error:
        print_error(f"there is no module {error.name}", 'pip install "servingd[server]"')
        return FAILED
    return 0


def _advice(error: ServingError) -> str:
    """Return what to do about an error; empty where its text says so, or nothing helps."""
    if error.retry_after_s is not None:
        return f"Try again in {error.retry_after_s:.1f} s."
    if error.code is Code.UNAUTHENTICATED:
        return "Give the administrators' token by --token_file."
    if error.code is Code.DEADLINE_EXCEEDED:
        return "Wait longer by --timeout_s, or see `servingd status`."
    return ""
