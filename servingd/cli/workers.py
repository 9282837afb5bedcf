"""The command `workers`: list a server's worker processes, or replace them one after the other."""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_LIST, _RECYCLE = "/servingd/v1/workers", "/servingd/v1/workers:recycle"
_POLL_S = 0.5
_MIB = 1 << 20


def workers(arguments: Sequence[str]) -> int:
    """List or recycle the workers of a server; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.action == "recycle":
            return _recycle(options)
        page = _ask(options, _LIST, None)
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"servingd workers: {error.code}: {error.read().decode().strip()}\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"servingd workers: {error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(page, indent=2) + "\n")
    else:
        _show(page)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="servingd workers", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("list", "recycle"), default="list")
    parser.add_argument(
        "--server", metavar="URL", default="http://localhost:8501", help="the server's HTTP port"
    )
    parser.add_argument("--one", action="store_true", help="replace the oldest worker only")
    parser.add_argument("--token_file", help="file with the administrators' token")
    parser.add_argument("--timeout_s", type=float, default=600.0, help="how long to wait")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _recycle(options: argparse.Namespace) -> int:
    """Replace workers, and wait until the old ones are gone."""
    content = json.dumps({"one": options.one}).encode()
    old = set(_ask(options, _RECYCLE, content)["replacing"])
    sys.stdout.write(f"{len(old)} workers are being replaced\n")
    deadline = time.monotonic() + options.timeout_s
    while old & {worker["process"] for worker in _ask(options, _LIST, None)["workers"]}:
        if time.monotonic() >= deadline:
            sys.stderr.write(f"servingd workers: not done within {options.timeout_s:g} s\n")
            return 1
        time.sleep(_POLL_S)
    sys.stdout.write("done\n")
    return 0


def _ask(options: argparse.Namespace, path: str, body: bytes | None) -> Mapping[str, Any]:
    """Return a server's answer. Raises OSError, HTTPError or ValueError."""
    url = options.server if "://" in options.server else f"http://{options.server}"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--server: expected a URL with http or https, got {url}")
    request = urllib.request.Request(url.rstrip("/") + path, data=body)
    if options.token_file:
        token = Path(options.token_file).read_text().strip()
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=options.timeout_s) as answer:
        page: Mapping[str, Any] = json.load(answer)
        return page


def _show(page: Mapping[str, Any]) -> None:
    if not page.get("workers"):
        sys.stdout.write("the server has no worker processes: it runs with --workers=1\n")
        return
    table = Table("worker", "process", "state", "for", "resident memory")
    for worker in page["workers"]:
        table.add_row(
            str(worker["worker"]),
            str(worker["process"]),
            worker["state"],
            f"{worker['seconds']:.0f} s",
            f"{worker['resident_bytes'] / _MIB:.0f} MiB",
        )
    Console().print(table)
