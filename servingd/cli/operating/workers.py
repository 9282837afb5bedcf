"""The commands `workers ...`: list a server's processes, or replace them one after the other."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from servingd.cli.exit_status import LATE
from servingd.cli.options import AsJson, Server, grouped
from servingd.cli.output import (
    print_error,
    print_json,
    print_line,
    print_outcome,
    print_table,
    size,
)

workers = typer.Typer(name="workers", no_args_is_help=True, help="List and replace the workers.")

_LIST, _RECYCLE = "/servingd/v1/workers", "/servingd/v1/workers:recycle"
_POLL_S = 0.5


@workers.command("ls")
@grouped
def ls(server: Server, as_json: AsJson = False) -> None:
    """List the worker processes of a server."""
    page = server.page(_LIST)
    if as_json:
        print_json(page)
    elif not page.get("workers"):
        print_line("the server has no worker processes: it runs with --workers=1")
    else:
        print_table(
            ("Worker", "Process", "State", "For", "Resident memory"),
            [
                (
                    str(worker["worker"]),
                    str(worker["process"]),
                    worker["state"],
                    f"{worker['seconds']:.0f} s",
                    size(worker["resident_bytes"]),
                )
                for worker in page["workers"]
            ],
        )


@workers.command("recycle")
@grouped
def recycle(
    server: Server,
    one: Annotated[bool, typer.Option("--one", help="Replace the oldest worker only.")] = False,
    wait_s: Annotated[float, typer.Option("--wait_s", help="Seconds for all of them.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Replace the workers one after the other, without a failed call; wait until it is done."""
    deadline = time.monotonic() + wait_s
    with server.client() as client:
        old = set(client.page(_RECYCLE, {"one": one})["replacing"])
        if not as_json:
            print_line(f"{len(old)} workers are being replaced")
        while old & {worker["process"] for worker in client.page(_LIST)["workers"]}:
            if time.monotonic() >= deadline:
                print_error(f"not done within {wait_s:g} s", "See `servingd workers ls`.")
                raise typer.Exit(LATE)
            time.sleep(_POLL_S)
    print_outcome({"replaced": sorted(old)}, "done", as_json)
