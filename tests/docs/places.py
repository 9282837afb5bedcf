"""Ports and folders as a page names them, and as they are where its blocks run."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Callable
from pathlib import Path

_PORT = re.compile(r"(?<=[:=])(\s?)(85\d\d|90\d\d)\b")
FOLDERS = ("/models", "/logs", "/secrets", "/certificates")
"""Folders at the root that pages use; here they lie in the page's folder."""
_FOLDER = re.compile(rf"(?<![\w./~}}-])({'|'.join(FOLDERS)})(?![\w-])")


_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to clients, and none of those that other tests take."""


def free_port() -> int:
    """A port at which nobody listens."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError("no port is free")


class Places:
    """Translates what a page says for its blocks, and back; each page has ports of its own."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.folder = folder
        self._free_port = free_port
        self._ports: dict[str, int] = {}

    def port(self, named: int | str) -> int:
        """The port that stands for one that the page names."""
        if str(named) not in self._ports:
            self._ports[str(named)] = self._free_port()
        return self._ports[str(named)]

    def here(self, text: str) -> str:
        """What a page says, with the ports and folders that are used here."""
        text = _PORT.sub(lambda found: f"{found[1]}{self.port(found[2])}", text)
        return _FOLDER.sub(lambda found: f"{self.folder}{found[1]}", text)

    def as_on_the_page(self, text: str) -> str:
        """What a command has printed, with the page's own ports and folders."""
        for named, port in self._ports.items():
            text = re.sub(rf"\b{port}\b", named, text)
        for name in FOLDERS:
            text = text.replace(f"{self.folder}{name}", name)
        return text.replace(str(self.folder), ".")


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether output is as a page shows it: `...` stands for any text, alone for any lines."""
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(agrees(shown[1:], printed[at:]) for at in range(len(printed) + 1))
    return bool(printed) and line_agrees(shown[0], printed[0]) and agrees(shown[1:], printed[1:])


def line_agrees(shown: str, printed: str) -> bool:
    """Whether one line is as shown."""
    pattern = ".*".join(re.escape(part) for part in shown.rstrip().split("..."))
    return re.fullmatch(pattern, printed.rstrip()) is not None


def occur_in_order(shown: list[str], log: list[str]) -> bool:
    """Whether each line that is shown is in a log, one after the other, whatever is between."""
    rest = iter(log)
    return all(any(line_agrees(line, other) for other in rest) for line in shown if line.strip())
