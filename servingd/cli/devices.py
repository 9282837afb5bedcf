"""The command `devices`: show this machine's devices, or a server's with its models."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from servingd.errors import ServingError

_PATH = "/servingd/v1/devices"
_TIMEOUT_S = 10


def devices(arguments: Sequence[str]) -> int:
    """Print this machine's devices, or those of a server and its models; return the exit status."""
    parser = argparse.ArgumentParser(prog="servingd devices", description=__doc__)
    parser.add_argument("--server", metavar="URL", help="ask a running one: http://host:8501")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    try:
        found = _of_server(options.server) if options.server else _of_machine()
    except (OSError, ValueError, ServingError) as error:
        sys.stderr.write(f"servingd devices: {error}\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _show(found)
    return 0


def _of_server(url: str) -> Mapping[str, Any]:
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--server: expected a URL with http or https, got {url}")
    with urllib.request.urlopen(url.rstrip("/") + _PATH, timeout=_TIMEOUT_S) as answer:
        page: Mapping[str, Any] = json.load(answer)
        return page


def _of_machine() -> Mapping[str, Any]:
    from servingd.servables.saved_model.session.devices import LocalDevices

    return {
        "devices": [
            {
                "name": each.device.name,
                "description": each.description,
                "budget_bytes": each.usable_bytes or None,
            }
            for each in LocalDevices().discover()
        ]
    }


def _show(page: Mapping[str, Any]) -> None:
    console = Console()
    served = "versions" in page
    table = Table("device", "memory", *(("held", "in use", "replicas") if served else ()), "what")
    if served:
        ram = page["ram"]
        table.add_row("RAM", _size(ram["budget_bytes"]), _size(ram["held_bytes"]), "", "", "")
    for device in page["devices"]:
        row = [device["name"], _size(device["budget_bytes"])]
        if served:
            row += [_size(device["held_bytes"]), _size(device["in_use_bytes"])]
            row.append(str(device["replicas"]))
        table.add_row(*row, device["description"])
    console.print(table)
    if served:
        console.print(_versions(page["versions"]))


def _versions(versions: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("model", "version", "state", "planned", "replicas", "holds", "elsewhere")
    for version in versions:
        replicas = version["replicas"]
        table.add_row(
            version["model"],
            str(version["version"]),
            version["state"],
            ", ".join(version.get("planned", ())),
            ", ".join(map(_replica, replicas)),
            _size(version.get("holds_bytes")),
            ", ".join(sorted({_elsewhere(r["moved_operations"]) for r in replicas} - {""})),
        )
    return table


def _replica(replica: Mapping[str, Any]) -> str:
    state = "" if replica["state"] == "serving" else f" ({replica['state']})"
    return f"{replica['device']} {replica['graph']}{state}"


def _elsewhere(moved: Mapping[str, Mapping[str, int]] | None) -> str:
    """Return how many operations run elsewhere than planned, by device, as text."""
    return ", ".join(f"{name}: {sum(kinds.values())}" for name, kinds in (moved or {}).items())


def _size(amount: int | None) -> str:
    return "" if amount is None else f"{amount / (1 << 20):,.1f} MiB"
