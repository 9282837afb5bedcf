"""The entry points `servingd COMMAND` and `tensorflow_model_server`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from servingd import __version__

_USAGE = """usage: servingd serve [flags]             serve models; --help lists the flags
       servingd predict MODEL [INPUTS]  call a model once, or show its inputs; --help for more
       servingd devices                 show devices, or those of a --server and who is where
       servingd workers [recycle]       list the workers of a server, or replace them
       servingd config-reference        print what can be configured, as Markdown
       servingd --version
"""


_INTERRUPTED = 130
"""The exit status that shells expect of a command ended by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit status."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1]
    if command == "serve":
        from servingd.cli.serve import serve

        return serve("servingd serve", rest, {"rest_api_port": 8501})
    if command == "predict":
        from servingd.cli.predict import predict

        return predict(rest)
    if command == "devices":
        from servingd.cli.devices import devices

        return devices(rest)
    if command == "workers":
        from servingd.cli.workers import workers

        return workers(rest)
    if command == "config-reference":
        from servingd.cli.config_reference import config_reference

        sys.stdout.write(config_reference())
        return 0
    if command in ("--version", "version"):
        sys.stdout.write(f"servingd {__version__}\n")
        return 0
    known = command in ("", "--help", "-h", "help")
    (sys.stdout if known else sys.stderr).write(
        _USAGE if known else f"servingd: unknown command {command!r}\n{_USAGE}"
    )
    return 0 if known else 2


def tensorflow_model_server(arguments: Sequence[str] | None = None) -> int:
    """Serve, with TensorFlow Serving's flags and defaults; return the exit status."""
    try:
        from servingd.cli.serve import serve

        given = sys.argv[1:] if arguments is None else arguments
        return serve("tensorflow_model_server", given, {}, takes_stale_flags=True)
    except KeyboardInterrupt:  # before the server handles signals itself
        return _INTERRUPTED
