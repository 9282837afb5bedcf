"""The command `status`: a server on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from servingd.cli.exit_status import FAILED
from servingd.cli.operating.models import model_rows
from servingd.cli.options import AsJson, Server, grouped
from servingd.cli.output import print_json, print_line, print_table, size
from servingd.client import Client
from servingd.errors import ServingError


@grouped
def status(server: Server, as_json: AsJson = False) -> None:
    """Show a server on one screen: is it ready, its models, its devices and workers.

    The exit status is 0 if the server is ready, else 1.
    """
    with server.client() as client:
        found = _found(client)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not found["ready"]:
        raise typer.Exit(FAILED)


def _found(client: Client) -> Mapping[str, Any]:
    why = _why_not_ready(client)
    models, devices = client.page("/servingd/v1/models"), client.page("/servingd/v1/devices")
    return {
        "server": models["server"],
        "address": client.server,
        "ready": why is None,
        "why_not_ready": why,
        "models": models["models"],
        "ram": devices["ram"],
        "devices": devices["devices"],
        "workers": models.get("workers", []),
    }


def _why_not_ready(client: Client) -> str | None:
    """Return why the server is not ready; None if it is."""
    try:
        if client.health() == "SERVING":
            return None
    except ServingError as error:
        return error.message.strip()
    return "the server says that it is not ready"


def _show(found: Mapping[str, Any]) -> None:
    print_line(f"{found['server']} at {found['address']}", style="bold")
    if found["ready"]:
        print_line("ready", style="green")
    else:
        print_line(f"not ready: {found['why_not_ready']}", style="red")
    print_table(("Model", "Version", "State", "Labels", "Problem"), model_rows(found["models"]))
    ram = found["ram"]
    print_table(
        ("Memory", "Held by models", "Limit"),
        [
            ("RAM", size(ram["held_bytes"]), size(ram["budget_bytes"])),
            *(
                (device["name"], size(device["held_bytes"]), size(device["budget_bytes"]))
                for device in found["devices"]
            ),
        ],
    )
    workers = found["workers"]
    if workers:
        serving = sum(worker["state"] == "serving" for worker in workers)
        resident = size(sum(worker["resident_bytes"] for worker in workers))
        print_line(f"{serving} of {len(workers)} workers serve, in {resident}")
