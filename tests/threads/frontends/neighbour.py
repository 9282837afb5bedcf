"""A process that shares a port with others: `-m tests.threads.frontends.neighbour KIND PORT`.

It answers each call with its number and what was asked. It says `open PORT` when it is open; upon a
line it leaves, says `left CONNECTIONS` and goes on until its input ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

LEAVE_S = 8.0
LARGE = 4 << 20
TOP = Path(__file__).resolve().parents[3]


class Neighbour:
    """Such a process, from outside."""

    def __init__(self, kind: str, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, kind, str(port)],
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = str(self._process.pid)
        self.port = int(self._said("open"))

    def begin_to_leave(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("leave\n")
        self._process.stdin.flush()

    def left(self) -> int:
        """Wait until it has left; return the connections that it still has."""
        return int(self._said("left"))

    def end(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        assert self._process.wait(20) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _said(self, word: str) -> str:
        assert self._process.stdout is not None
        first, _, value = self._process.stdout.readline().partition(" ")
        assert first == word, first
        return value


def answer_to(payload: bytes) -> bytes:
    """Who answers, and what was asked: `large` many times."""
    body = bytes(payload)
    if body.startswith(b"large"):
        body = (body * (LARGE // len(body) + 1))[:LARGE]
    return str(os.getpid()).encode() + b" " + body


def later(seconds, call):
    threading.Timer(seconds, call).start()


def grpc_transport(port: int):
    from servingd.frontends.grpc.native import NativeTransport

    def on_call(payload, reply):
        body = answer_to(payload)
        if bytes(payload).startswith(b"slow"):
            later(0.3, lambda: reply.send(body))
        else:
            reply.send(body)

    transport = NativeTransport(f"127.0.0.1:{port}", {"/s/call": on_call}, "", shares_port=True)
    return transport, transport.bind()


def main(kind: str, port: str) -> None:
    assert kind == "grpc"
    transport, bound = grpc_transport(int(port))
    transport.start()
    print("open", bound, flush=True)
    if sys.stdin.readline():
        deadline = time.monotonic() + LEAVE_S
        transport.leave(deadline)
        while transport.connections() and time.monotonic() < deadline:
            time.sleep(0.02)
        transport.wait_idle(deadline)
        print("left", transport.connections(), flush=True)
        sys.stdin.readline()
    transport.stop()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
