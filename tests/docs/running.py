"""Runs the blocks of a page in order, in one folder, as a reader would with a few terminals."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests import absent
from tests.docs.blocks import ROOT, Block, Command, blocks_of, commands_of
from tests.docs.places import Places, agrees, free_port, occur_in_order

COMMAND_S = 100
READY_S = 90
_MARK = "@@ the next command @@"
_STATUS = "@@ ended with @@"


class NotAsShown(AssertionError):
    """A block did something else than its page says."""


class Server:
    """A server that a page starts, from its command to its end."""

    def __init__(
        self, command: str, places: Places, log: Path, environment: dict[str, str]
    ) -> None:
        self.command, self.log = command, log
        self.port = _flag(command, "port") or places.port(8500)
        default = 0 if command.startswith("tensorflow_model_server") else places.port(8501)
        self.http_port = _flag(command, "rest_api_port") or _in_yaml(command, places) or default
        if not _flag(command, "port"):
            command += f" --port={self.port}"
        if self.http_port and "rest_api_port" not in command and not _in_yaml(command, places):
            command += f" --rest_api_port={self.http_port}"
        if "optimize_models" not in command:
            command += " --optimize_models=off"  # a page has ended before it would be done
        self._out = log.open("wb")
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=places.folder,
            env=environment,
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self, place: str) -> None:
        """Wait for /readyz; raise NotAsShown if the server ends, or takes too long."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NotAsShown(f"{place}: the server has ended:\n{self.log.read_text()[-3000:]}")
            if self._is_ready():
                return
            time.sleep(0.05)  # the process under test tells nobody when it is there
        raise NotAsShown(f"{place}: the server is not ready:\n{self.log.read_text()[-3000:]}")

    def _is_ready(self) -> bool:
        if not self.http_port:
            return "Running gRPC ModelServer" in self.log.read_text()
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=5)
        if "rest_ssl_config_file" in self.command:
            unverified = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.http_port, timeout=5, context=unverified
            )
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def close(self) -> None:
        """End the server, by its handle."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self._out.close()


def _flag(command: str, name: str) -> int:
    found = re.search(rf"--{name}[= ](\d+)", command)
    return int(found[1]) if found else 0


def _in_yaml(command: str, places: Places) -> int:
    """The HTTP port that a servingd.yaml names, which the command names."""
    found = re.search(r"--servingd_config_file[= ](\S+)", command)
    if not found:
        return 0
    named = re.search(r"^rest_api_port: *(\d+)", (places.folder / found[1]).read_text(), re.M)
    return int(named[1]) if named else 0


class Python:
    """The Python that a page's blocks share."""

    def __init__(self, places: Places, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("session.py"))],
            cwd=places.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, code: str, place: str) -> str:
        """Run a block; return what it printed. Raises NotAsShown with its traceback."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(code) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise NotAsShown(f"{place}: Python has ended")
        printed, failed = json.loads(answer)
        if failed:
            raise NotAsShown(f"{place}: {failed}")
        return printed

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Page:
    """One run of one page."""

    def __init__(self, page: Path, folder: Path, cache: Path, before: Path | None = None) -> None:
        folder.mkdir(parents=True)
        if before is not None:
            shutil.copytree(before, folder, dirs_exist_ok=True)
        self.page, self.folder = page, folder
        self.places = Places(folder, free_port)
        (folder / ".curlrc").write_text("silent\nshow-error\n")
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "PATH": binaries,
            "PYTHONPATH": self._python_path(),
            "SERVINGD_CACHE_DIR": str(cache),
            "SERVINGD_SERVER": f"localhost:{self.places.port(8501)}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "COLUMNS": "100",
        }
        self._servers: list[Server] = []
        self._python: Python | None = None
        self.lasted_s = 0.0

    def _python_path(self) -> str:
        """Where Python looks; TensorFlow imports faster without what the page does not use."""
        run = (block for block in blocks_of(self.page) if not block.reason_not_to_run)
        needs_all = any("import" in block.text and "sklearn" in block.text for block in run)
        return str(ROOT) if needs_all else f"{ROOT}{os.pathsep}{absent.HIDDEN}"

    def run(self) -> Path:
        """Run all blocks; return the folder. Raises NotAsShown."""
        began = time.monotonic()
        blocks = blocks_of(self.page)
        with ExitStack() as stack:
            stack.callback(self._close)
            for at, block in enumerate(blocks):
                after = blocks[at + 1] if at + 1 < len(blocks) else None
                self._run(block, _shown_after(block, after))
        self.lasted_s = time.monotonic() - began
        return self.folder

    def _close(self) -> None:
        for server in self._servers:
            server.close()
        if self._python is not None:
            self._python.close()

    def _run(self, block: Block, shown: list[str] | None) -> None:
        if block.reason_not_to_run:
            return
        if block.title:
            path = self.folder / self.places.here(block.title).lstrip("/")
            if block.title.startswith("/"):
                path = Path(self.places.here(block.title))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.places.here(block.text))
        elif block.language == "python":
            if self._python is None:
                self._python = Python(self.places, self._environment)
            printed = self._python.run(self.places.here(block.text), block.place)
            self._compare(block.place, shown, printed)
        elif block.is_commands:
            self._run_commands(block, shown)

    def _run_commands(self, block: Block, shown: list[str] | None) -> None:
        commands = commands_of(block)
        if commands[-1].shown is None:
            commands[-1].shown = shown
        serves = commands[-1].is_server and not block.exit_status
        others = [c for c in commands[: len(commands) - serves] if not c.installs]
        if others:
            self._shell(block, others)
        if serves:
            self._serve(block, commands[-1])

    def _serve(self, block: Block, command: Command) -> None:
        text = self.places.here(command.text)
        log = self.folder / f"server-{len(self._servers)}.log"
        wanted = _flag(text, "port") or self.places.port(8500)
        for server in self._servers:  # one presses Ctrl-C before the next
            if server.port == wanted:
                server.close()
        server = Server(text, self.places, log, self._environment)
        self._servers.append(server)
        server.wait_until_ready(block.place)
        lines = self.places.as_on_the_page(log.read_text()).splitlines()
        if command.shown and not occur_in_order(command.shown, lines):
            raise NotAsShown(_difference(block.place, command.shown, lines))

    def _shell(self, block: Block, commands: list[Command]) -> None:
        script = ["exec 3>>errors.log", f"trap 'echo {_STATUS}$?' EXIT"]
        for command in commands:
            stderr = "2>&3" if command.text.startswith("python") else "2>&1"
            text = self.places.here(command.text)
            script += [f"echo '{_MARK}'", f"{{ {text}\n}} {stderr} || exit $?"]
        try:
            result = subprocess.run(
                ["bash", "-c", "\n".join(script)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotAsShown(
                f"{block.place}: no end within {COMMAND_S} s: {error.output}"
            ) from error
        output, _, status = result.stdout.rpartition(_STATUS)
        if not status.strip() or int(status) != block.exit_status:
            errors = (self.folder / "errors.log").read_text()[-2000:]
            raise NotAsShown(f"{block.place}: status {status.strip()}:\n{output}\n{errors}")
        for command, printed in zip(commands, output.split(f"{_MARK}\n")[1:], strict=False):
            self._compare(f"{block.place}: {command.text}", command.shown, printed)

    def _compare(self, place: str, shown: list[str] | None, printed: str) -> None:
        if shown is None:
            return
        lines = self.places.as_on_the_page(printed).rstrip().splitlines()
        while shown and not shown[-1].strip():
            shown = shown[:-1]
        if not agrees(shown, lines):
            raise NotAsShown(_difference(place, shown, lines))


def _shown_after(block: Block, after: Block | None) -> list[str] | None:
    """The lines of the text block that follows, which is what a block prints."""
    if after is None or after.title or after.language not in ("text", "json"):
        return None
    if after.reason_not_to_run:
        return None
    return after.text.splitlines()


def _difference(place: str, shown: list[str], printed: list[str]) -> str:
    return "\n".join([f"{place}: shown:", *shown, "printed:", *printed])
