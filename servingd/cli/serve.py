"""The command `serve`: read the flags, and run a server until a signal arrives."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any, Protocol

from servingd import __version__
from servingd.cli.banner import banner
from servingd.cli.configuration import begins_with_path
from servingd.cli.exit_status import CANNOT_START
from servingd.cli.serve_path import NOTHING, look_at
from servingd.config.effective import configure
from servingd.config.flags.parser import given_flags
from servingd.config.server import ServerConfig
from servingd.core.callbacks import nothing
from servingd.errors import Code, ServingError
from servingd.observability.logs import configure_logging

_SWITCH_INTERVAL_S = 500e-6
"""Seconds after which a thread that loads must yield the GIL to one that serves; default 5 ms."""

_SHARED_MEMORY = "/dev/shm"

_STOPPING = (signal.SIGTERM, signal.SIGINT)

_SAME_SIGNAL_S = 1.0
"""Seconds within which several signals count as one: terminal and parent process may each send one.
"""

_log = logging.getLogger(__name__)


def serve(
    program: str,
    arguments: Sequence[str],
    defaults: Mapping[str, Any],
    *,
    takes_stale_flags: bool = False,
    takes_path: bool = False,
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status. A second signal exits at once.

    SIGHUP rereads the configuration files. `takes_path`: the first argument may be a folder.
    """
    configure_logging()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    _find_temporary_folder()
    stop = _StopSignal()
    with ExitStack() as held:  # ends before os._exit, which would skip it
        try:
            passed_over: list[str] = []
            has_path = takes_path and begins_with_path(arguments)
            path, *rest = arguments if has_path else ("", *arguments)
            given = given_flags(program, rest, defaults, passed_over if takes_stale_flags else None)
            for line in passed_over:
                _log.warning("%s", line)
            if given.get("version"):
                sys.stdout.write(
                    f"TensorFlow ModelServer: servingd {__version__}\n{_tensorflow()}\n"
                )
                return 0
            served = held.enter_context(closing(look_at(path) if path else NOTHING))
            stop.before_exit = served.close
            config = configure({**served.flags, **given}, defaults)
            configure_logging(config.log_format, config.log_level)
            _log.info("%s", banner(config))
            server = make_server(config, stop.give_up)
            server.start()
            stop.on_hang_up = server.reread
        except ServingError as error:
            return _failed(error.code, error.message)
        except OSError as error:
            return _failed(Code.UNAVAILABLE, str(error))
        stop.wait()
        server.stop()
        if stop.failed:
            return _failed(Code.UNAVAILABLE, "no worker could be started; the log says why")
    logging.shutdown()
    # TensorFlow's threads, and any others that have not ended, need not be waited for.
    os._exit(0)


def _find_temporary_folder() -> None:
    """Use shared memory for temporary files if no folder is writable.

    A container whose root file system is read-only still has shared memory.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if not os.access(_SHARED_MEMORY, os.W_OK):
            _log.warning("no folder for temporary files is writable: set TMPDIR")
            return
        os.environ["TMPDIR"] = tempfile.tempdir = _SHARED_MEMORY


class AnyServer(Protocol):
    """A server of one process, or of several."""

    def start(self) -> None:
        """Begin to serve."""
        ...

    def reread(self) -> None:
        """Read the configuration files again."""
        ...

    def stop(self) -> None:
        """End."""
        ...


def make_server(config: ServerConfig, hopeless: Callable[[], None]) -> AnyServer:
    """Return the server that a configuration asks for; each kind imports what it needs.

    `hopeless` is called if no worker can start. Raises ServingError.
    """
    if config.workers == "1":
        from servingd.server import Server

        return Server(config)
    from servingd.supervisor.sizing import workers_of
    from servingd.supervisor.supervisor import Supervisor

    workers = workers_of(config)
    if workers == 1 and config.workers == "auto":
        return make_server(dataclasses.replace(config, workers="1"), hopeless)
    return Supervisor(config, workers, hopeless)


class _StopSignal:
    """The first SIGTERM or SIGINT ends `wait`; the second ends the process. SIGHUP rereads.

    The interpreter runs handlers in the main thread only, and misses a signal that arrives while
    that thread begins to wait for a lock. So signals go through a pipe to a thread named `signals`.
    """

    def __init__(self) -> None:
        self._received = threading.Event()
        self.failed = False
        self.on_hang_up: Callable[[], None] = nothing
        self.before_exit: Callable[[], None] = nothing
        """Called before a second signal ends the process; must be quick."""
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (*_STOPPING, signal.SIGHUP):
            signal.signal(number, _nothing)  # without a handler nothing is written to the pipe
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def give_up(self) -> None:
        """End `wait`: the server cannot serve."""
        self.failed = True
        self._received.set()

    def wait(self) -> None:
        """Wait until a signal has arrived."""
        self._received.wait()

    def _watch(self) -> None:
        first = 0.0
        while byte := os.read(self._read, 1):
            number = byte[0]
            if number == signal.SIGHUP:
                self.on_hang_up()
            elif number not in _STOPPING:
                continue
            elif not self._received.is_set():
                first = time.monotonic()
                os.write(2, f"stopping: {signal.Signals(number).name}\n".encode())
                self._received.set()
            elif time.monotonic() - first > _SAME_SIGNAL_S:
                self.before_exit()
                os._exit(128 + number)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Do nothing: the thread `signals` handles the signal."""


def _failed(code: Code, message: str) -> int:
    sys.stderr.write(f"Failed to start server. Error: {code.name}: {message}\n")
    sys.stderr.flush()
    return CANNOT_START


def _tensorflow() -> str:
    for package in ("tensorflow", "tensorflow-cpu"):
        try:
            return f"TensorFlow Library: {version(package)}"
        except PackageNotFoundError:
            continue
    return "TensorFlow Library: not installed"
