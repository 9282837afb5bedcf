"""Draw `guides/assets/terminal.svg`, the picture of the terminal in README, from a real run.

    python docs/picture.py FOLDER_OF_MODELS

Starts a server over the folder, runs the commands of SHOWN as a reader would, and draws what they
print. The picture asks the network for no font.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).parent / "guides" / "assets" / "terminal.svg"
WIDTH = 92
START_S = 60.0
SERVE = "servingd serve models"
SHOWN = (
    "servingd status",
    "servingd predict circle '[[0.1, 0.2], [0.9, 0.9]]'",
    "curl localhost:8501/v1/models/circle:predict -d '{\"instances\": [[0.1, 0.2]]}'",
)
LOG = ("Exporting HTTP", "Running gRPC", "Successfully loaded")
"""Lines of the server's log that are shown."""


def main() -> None:
    """Run, and draw."""
    models = Path(sys.argv[1]).resolve()
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        Path(folder, "models").symlink_to(models)
        with log.open("wb") as out:
            server = subprocess.Popen(shlex.split(SERVE), stdout=out, stderr=out, cwd=folder)
        try:
            wait_until_ready()
            prompt(console, SERVE)
            for line in log.read_text().splitlines():
                if any(words in line for words in LOG):
                    console.print(
                        Text(shortened(line), style="dim"), no_wrap=True, overflow="ellipsis"
                    )
            for command in SHOWN:
                prompt(console, command)
                console.print(Text.from_ansi(output(command, folder).rstrip()))
        finally:
            server.terminate()
            server.wait(30)
    PICTURE.parent.mkdir(exist_ok=True)
    svg = console.export_svg(title="servingd", theme=MONOKAI, unique_id="servingd")
    PICTURE.write_text(without_fonts(svg))


def prompt(console: Console, command: str) -> None:
    """Show what is typed."""
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=True)


def output(command: str, folder: str) -> str:
    """What a command prints on a terminal."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    result = subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout


def shortened(line: str) -> str:
    """A line of the log without its date and its module."""
    return re.sub(r"^\S+ (\S+?)\.\S+ (\w) \S+ [\w.]+\]", r"\1 \2", line)


def without_fonts(svg: str) -> str:
    """The picture with fonts of the reader's own, instead of one from the network."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    return svg.replace("font-family: Fira Code, monospace", "font-family: monospace")


def wait_until_ready() -> None:
    """Ask until the server is ready. Raises TimeoutError."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("localhost", 8501, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError("the server is not ready")


if __name__ == "__main__":
    main()
