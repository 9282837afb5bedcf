"""The command `devices`: show this machine's devices, or a server's with its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from servingd.cli.options import AsJson, Server, grouped
from servingd.cli.output import print_json, print_table, size

_PATH = "/servingd/v1/devices"


@grouped
def devices(
    server: Server,
    here: Annotated[
        bool, typer.Option("--here", help="Show the devices of this machine, without a server.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a server's devices: their memory, who holds it, and where models really run."""
    found = _of_machine() if here else server.page(_PATH)
    if as_json:
        print_json(found)
    else:
        show(found)


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


def show(page: Mapping[str, Any]) -> None:
    """Print the page of a server, or what was found on this machine."""
    if "versions" not in page:
        print_table(
            ("Device", "Memory", "What"),
            [(d["name"], size(d["budget_bytes"]), d["description"]) for d in page["devices"]],
        )
        return
    ram = page["ram"]
    print_table(
        ("Device", "Memory", "Held", "In use", "Replicas", "What"),
        [
            ("RAM", size(ram["budget_bytes"]), size(ram["held_bytes"]), "", "", ""),
            *(
                (
                    device["name"],
                    size(device["budget_bytes"]),
                    size(device["held_bytes"]),
                    size(device["in_use_bytes"]),
                    str(device["replicas"]),
                    device["description"],
                )
                for device in page["devices"]
            ),
        ],
    )
    _show_versions(page["versions"])


def _show_versions(versions: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        ("Model", "Version", "State", "Planned", "Replicas", "Holds", "Elsewhere"),
        [
            (
                version["model"],
                str(version["version"]),
                version["state"],
                ", ".join(version.get("planned", ())),
                ", ".join(map(_replica, version["replicas"])),
                size(version.get("holds_bytes")),
                ", ".join(
                    sorted({_elsewhere(r["moved_operations"]) for r in version["replicas"]} - {""})
                ),
            )
            for version in versions
        ],
    )


def _replica(replica: Mapping[str, Any]) -> str:
    state = "" if replica["state"] == "serving" else f" ({replica['state']})"
    return f"{replica['device']} {replica['graph']}{state}"


def _elsewhere(moved: Mapping[str, Mapping[str, int]] | None) -> str:
    """Return how many operations run elsewhere than planned, by device, as text."""
    return ", ".join(f"{name}: {sum(kinds.values())}" for name, kinds in (moved or {}).items())
