"""Write the pages of `guides/reference/`, from the program itself.

    python docs/generate.py [--check]

Flags and files come from the tables of the code, metrics from a server that is started for it, and
routes from the protocols and actions that the server knows; what those do is said here.
`--check` changes nothing, and fails if a page is not fresh.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command

from servingd.cli.commands import app
from servingd.cli.config_reference import reference
from servingd.wire import protos

HERE = Path(__file__).parent
ROOT = HERE.parent
REFERENCE = HERE / "guides" / "reference"
MADE = "<!-- Made by docs/generate.py: do not edit. -->\n"
START_S = 60.0

HTTP_ROUTES = (
    ("POST", "/v1/models/NAME:predict", "Predict: `instances` (rows) or `inputs` (columns)"),
    ("POST", "/v1/models/NAME:classify", "Classify: `examples` and `context`"),
    ("POST", "/v1/models/NAME:regress", "Regress: `examples` and `context`"),
    ("POST", "/v1/models/NAME/versions/N:predict", "the same of one version"),
    ("POST", "/v1/models/NAME/labels/LABEL:predict", "the same of the version with a label"),
    ("POST", "/v1/models/NAME:predict?async=true", "begin a job: 202 and an id"),
    ("GET", "/v1/models", "the models, with their versions"),
    ("GET", "/v1/models/NAME", "states of its versions; of one: `/versions/N`, `/labels/LABEL`"),
    ("GET", "/v1/models/NAME/metadata", "its signatures"),
    ("GET", "/servingd/v1/jobs/ID?wait_s=30", "the answer of a job, or 202"),
    ("DELETE", "/servingd/v1/jobs/ID", "cancel a job"),
    ("POST", "/v2/models/NAME/infer", "the Open Inference Protocol: run a model"),
    ("GET", "/v2/models/NAME", "its inputs and outputs; of one version: `/versions/N`"),
    ("GET", "/v2/models/NAME/ready", "200 if it is available"),
    ("GET", "/v2", "the server's name and version"),
    ("GET", "/v2/health/live", "200 while the process answers"),
    ("GET", "/v2/health/ready", "200 when the server is ready"),
    ("POST", "/v2/repository/index", "the models and their states"),
    ("GET", "/livez", "200 while the process answers; `/healthz` is the same"),
    ("GET", "/startupz", "200 when the first models have loaded, or have failed"),
    ("GET", "/readyz", "200 when the server is ready, else 503 with the reason"),
    ("GET", "/metrics", "metrics; also at `/monitoring/prometheus/metrics`"),
    ("GET", "/servingd/v1/models", "models, versions, errors"),
    ("GET", "/servingd/v1/models/NAME", "all about one: queues, batches, graph, placement"),
    ("GET", "/servingd/v1/devices", "memory, devices, who holds them"),
    ("GET", "/servingd/v1/workers", "the workers and their memory"),
)
ACTIONS = {
    "workers:recycle": "replace the workers, one after the other",
    "models:add": "add a model; `servingd.yaml` is rewritten",
    "models:reload": "have the configuration files read again",
    "models/NAME:remove": "remove a model from `servingd.yaml`",
    "models/NAME/labels:set": "set a label, in `servingd.yaml`",
    "models/NAME/labels:remove": "remove a label, in `servingd.yaml`",
}
RPCS = {
    "tensorflow.serving.PredictionService.Predict": "run a signature on tensors",
    "tensorflow.serving.PredictionService.Classify": "labels and scores of `tf.Example`s",
    "tensorflow.serving.PredictionService.Regress": "a number for each `tf.Example`",
    "tensorflow.serving.PredictionService.MultiInference": "several of these on the same examples",
    "tensorflow.serving.PredictionService.GetModelMetadata": "the signatures of a model",
    "tensorflow.serving.ModelService.GetModelStatus": "the states of its versions",
    "tensorflow.serving.ModelService.HandleReloadConfigRequest": "replace the models (admins)",
    "tensorflow.serving.SessionService.SessionRun": "UNIMPLEMENTED, as in TensorFlow Serving",
    "tensorflow.ProfilerService.Profile": "take a profile (admins)",
    "tensorflow.ProfilerService.Terminate": "end a profile early (admins)",
    "inference.GRPCInferenceService.ServerLive": "the Open Inference Protocol: does it answer",
    "inference.GRPCInferenceService.ServerReady": "is it ready",
    "inference.GRPCInferenceService.ModelReady": "is a model available",
    "inference.GRPCInferenceService.ServerMetadata": "name and version of the server",
    "inference.GRPCInferenceService.ModelMetadata": "inputs and outputs of a model",
    "inference.GRPCInferenceService.ModelInfer": "run a model",
    "inference.GRPCInferenceService.RepositoryIndex": "the models and their states",
    "servingd.PredictionStream.PredictStreamed": "Predict, answered in parts",
    "servingd.JobService.Submit": "begin a job, with Predict's request",
    "servingd.JobService.Get": "the answer of a job; waits for it, if you like",
    "servingd.JobService.Cancel": "cancel a job",
}


def main() -> int:
    """Write the pages, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the pages of the reference.")
    parser.add_argument("--check", action="store_true", help="fail if a page is not fresh")
    options = parser.parse_args()
    stale = [name for name, text in pages().items() if _put(name, text, write=not options.check)]
    if options.check and stale:
        sys.stderr.write(f"not fresh: {', '.join(stale)}; run python docs/generate.py\n")
        return 1
    return 0


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    return {
        "commands.md": MADE + commands(),
        "configuration.md": MADE + reference(),
        "routes.md": MADE + routes(),
        "metrics.md": MADE + metrics(),
    }


def _put(name: str, text: str, *, write: bool) -> bool:
    """Return whether the page has another text; write it if that is wanted."""
    path = REFERENCE / name
    same = path.exists() and path.read_text() == text
    if write and not same:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return not same


def commands() -> str:
    """Return the page of all commands with their options, as their help has them."""
    parts = [
        "# Commands",
        "`servingd help COMMAND` says the same. Commands exit with 0 when it is done, 1 when the "
        "answer is an error or a check failed, 2 for wrong use, 3 when the server cannot be "
        "reached, 4 when time is up. `serve` that cannot start exits with 255.",
    ]
    for name, command in leaves("servingd", get_command(app)):
        parts += [f"## {name}", f"`{usage(name, command)}`", " ".join((command.help or "").split())]
        if rows := [option_row(each) for each in command.params if each.opts[0].startswith("-")]:
            parts.append(table(("Option", "Meaning"), rows))
        if name == "servingd serve":
            parts.append("Its flags are in [Flags and files](configuration.md).")
    return "\n\n".join((*parts, ""))


def leaves(name: str, command: Any) -> Iterable[tuple[str, Any]]:
    """Yield each command that can be run, with all words of its name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, each in below.items():
        yield from leaves(f"{name} {word}", each)


def usage(name: str, command: Any) -> str:
    """Return how a command is typed."""
    words = [name]
    for each in command.params:
        if not each.opts[0].startswith("-"):
            word = (each.metavar or each.name).strip("{}[]").upper()
            words.append(word if each.required else f"[{word}]")
    return " ".join(words)


def option_row(option: Any) -> tuple[str, str]:
    """Return an option as a row of a table."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names, " ".join((option.help or "").replace("|", "\\|").split())


def routes() -> str:
    """Return the page of all paths and methods. Raises KeyError if one is not described here."""
    return "\n\n".join(
        (
            "# Routes",
            "## HTTP",
            table(
                ("", "Path", "Answer"), ((m, f"`{path}`", text) for m, path, text in HTTP_ROUTES)
            ),
            "## HTTP, for administrators",
            "`POST /servingd/v1/...`, at `--admin_rest_port` if there is one, with the token of "
            "`--admin_token_file` if there is one.",
            table(("Path", "What it does"), ((f"`{name}`", ACTIONS[name]) for name in actions())),
            "## gRPC",
            "Besides these there are `grpc.health.v1.Health` and reflection.",
            table(("Method", "What it does"), ((f"`{name}`", RPCS[name]) for name in rpcs())),
            "",
        )
    )


def rpcs() -> list[str]:
    """Return the full name of each gRPC method that there is."""
    return [
        method.full_name
        for name, file in protos.FILES.items()
        for service in [file.services_by_name.get(name.rpartition(".")[2])]
        if service is not None
        for method in service.methods
    ]


def actions() -> list[str]:
    """Return the path of each action of administrators, as the code has it."""
    found = []
    for path in sorted((ROOT / "servingd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Action":
                found.append(_pattern(node.args[0]))
    return sorted(found)


def _pattern(node: ast.expr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(p.value if isinstance(p, ast.Constant) else "models/NAME" for p in parts)


def metrics() -> str:
    """Return the page of all metrics, as a server with two workers has them."""
    page = page_of_a_server()
    families = sorted(re.findall(r"^# TYPE (\S+) (\w+)$", page, re.M))
    said = dict(re.findall(r"^# HELP (\S+) (.*)$", page, re.M))
    rows = [(f"`{name}`", kind, said.get(name, "").replace("|", "\\|")) for name, kind in families]
    ours = [row for row in rows if "tensorflow" not in row[0]]
    theirs = [row[:2] for row in rows if "tensorflow" in row[0]]
    return "\n\n".join(
        (
            "# Metrics",
            "At `/metrics` and `/monitoring/prometheus/metrics`. `servingd_worker...` are there "
            "with several workers.",
            "## servingd's",
            table(("Name", "Kind", "Meaning"), ours),
            "## TensorFlow Serving's",
            "Under their names and with their buckets.",
            table(("Name", "Kind"), theirs),
            "",
        )
    )


def page_of_a_server() -> str:
    """Return the metrics of a server of two workers that has answered a call."""
    with tempfile.TemporaryDirectory() as folder:
        version = Path(folder, "models", "colours", "1")
        version.mkdir(parents=True)
        (version / "table.csv").write_text("red,one\n")
        port, http_port = free_ports()
        command = [sys.executable, "-m", "servingd", "serve", "--workers=2", f"--port={port}"]
        command += [f"--model_repository={folder}/models", f"--rest_api_port={http_port}"]
        with Path(folder, "log").open("wb") as log:
            path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
            environment = {**os.environ, "PYTHONPATH": path}
            server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_until_ready(http_port)
            ask(http_port, "POST", "/v1/models/colours:predict", '{"instances": ["red"]}')
            return ask(http_port, "GET", "/metrics")[1]
        finally:
            server.terminate()
            server.wait(30)


def free_ports() -> tuple[int, int]:
    """Return two ports that nobody uses now."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("", 0))
        other.bind(("", 0))
        return one.getsockname()[1], other.getsockname()[1]


def ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Return status and text of an answer. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def wait_until_ready(port: int) -> None:
    """Ask until the server is ready. Raises TimeoutError."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ask(port, "GET", "/readyz")[0] == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the server is not ready after {START_S:.0f} s")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
