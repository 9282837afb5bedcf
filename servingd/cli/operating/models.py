"""The commands `models ...`: list, show, await, add and remove the models of a server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from servingd.cli.exit_status import FAILED, LATE
from servingd.cli.options import AsJson, Name, Server, grouped
from servingd.cli.output import (
    print_error,
    print_json,
    print_line,
    print_outcome,
    print_table,
    size,
)
from servingd.errors import DeadlineExceeded, NotFound, Unavailable

models = typer.Typer(name="models", no_args_is_help=True, help="List and change the models.")

_PAGES = "/servingd/v1/models"
_POLL_S = 0.2
_STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")


@models.command("ls")
@grouped
def ls(server: Server, as_json: AsJson = False) -> None:
    """List all models with their versions, states and labels."""
    page = server.page(_PAGES)
    if as_json:
        print_json(page["models"])
    else:
        print_table(("Model", "Version", "State", "Labels", "Problem"), model_rows(page["models"]))


def model_rows(found: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    """Yield a row for each version: model, version, state, labels, what is wrong with it."""
    for model in found:
        if not model["versions"]:
            yield model["name"], "", "", "", model["error"] or "no version was found yet"
        for version in model["versions"]:
            number = version["version"]
            names = sorted(name for name, v in model["labels"].items() if v == number)
            yield model["name"], str(number), version["state"], ", ".join(names), _problem(version)


def _problem(version: Mapping[str, Any]) -> str:
    error = version["error"]
    return f"{error['code']}: {error['message']}" if error else version["incomplete"] or ""


@models.command("show")
@grouped
def show(server: Server, model: Name, as_json: AsJson = False) -> None:
    """Show one model: its versions, where they run, what they hold, and its queues."""
    page = server.page(f"{_PAGES}/{quote(model, safe='')}")
    if as_json:
        print_json(page)
        return
    labels = ", ".join(f"{label} -> {version}" for label, version in page["labels"].items())
    print_line(f"{page['name']} in {page['base_path']}", style="bold")
    print_line(f"labels: {labels or 'none'}")
    if page["error"]:
        print_line(page["error"], style="red")
    for version in page["versions"]:
        print_line()
        _show_version(version)


def _show_version(version: Mapping[str, Any]) -> None:
    state = version["state"]
    print_line(
        f"version {version['version']}: {state}", style="green" if state == "AVAILABLE" else ""
    )
    if problem := _problem(version):
        print_line(problem, style="red")
    placement = version["placement"]
    if placement.get("planned"):
        how = "measured" if placement["measured"] else "estimated"
        devices = ", ".join(placement["planned"])
        print_line(f"on {devices}, holding {size(placement['holds_bytes'])} of RAM ({how})")
    if placement["replicas"]:
        print_table(
            ("Device", "State", "Graph", "Threads"),
            [
                (each["device"], each["state"], each["graph"], str(each["threads"]))
                for each in placement["replicas"]
            ],
        )
    if version["queues"]:
        columns = list(version["queues"][0])
        print_table(
            [column.replace("_", " ") for column in columns],
            [[_cell(queue.get(column)) for column in columns] for queue in version["queues"]],
        )


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(part)}" for name, part in value.items() if part)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


@models.command("wait")
@grouped
def wait(
    server: Server,
    model: Name,
    version: Annotated[int | None, typer.Option(help="The version; none: any.")] = None,
    state: Annotated[str, typer.Option(help="The state to wait for.")] = "AVAILABLE",
    as_json: AsJson = False,
) -> None:
    """Wait until a version is in a state: exit status 0. It failed to load: 1. Time is up: 4."""
    if state not in _STATES:
        raise typer.BadParameter(f"expected one of {', '.join(_STATES)}, got {state}")
    deadline = time.monotonic() + server.timeout_s
    while True:
        states, failed = _states(server, model, version)
        if state in states.values():
            if as_json:
                print_json(states)
            return
        if failed and state == "AVAILABLE":
            print_error(failed, f"Details: servingd models show {model}")
            raise typer.Exit(FAILED)
        if time.monotonic() >= deadline:
            now = ", ".join(f"{v} is {s}" for v, s in sorted(states.items())) or "nothing"
            print_error(f"not {state} within {server.timeout_s:g} s: {now}")
            raise typer.Exit(LATE)
        time.sleep(_POLL_S)


def _states(server: Server, model: str, version: int | None) -> tuple[dict[int, str], str]:
    """Return the states of the versions that are waited for, and why they failed, if all did."""
    try:
        with server.client() as client:
            found = client.versions(model)
    except (NotFound, Unavailable, DeadlineExceeded):  # not configured, or no server there, yet
        return {}, ""
    wanted = [each for each in found if version in (None, each.version)]
    failed = [each.error_message for each in wanted if each.state == "END" and each.error_message]
    states = {each.version: each.state for each in wanted}
    return states, failed[0] if failed and len(failed) == len(wanted) else ""


@models.command("reload")
@grouped
def reload(server: Server, as_json: AsJson = False) -> None:
    """Let the server read its configuration files again, as SIGHUP does."""
    answer = server.act(f"{_PAGES}:reload", {})
    text = "the server is reading its configuration files; its log says what came of it"
    print_outcome(answer, text, as_json)


@models.command("add")
@grouped
def add(
    server: Server,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new model's name.")],
    path: Annotated[str, typer.Argument(help="The folder of its versions, on the server.")],
    version_policy: Annotated[
        str, typer.Option(help="latest:N, all, or specific:N,N: which versions are loaded.")
    ] = "",
    platform: Annotated[str, typer.Option(help="Its servable type; none: told by files.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add a model to servingd.yaml, and serve it from now on."""
    content: dict[str, Any] = {"name": name, "base_path": path}
    if version_policy:
        content["version_policy"] = _policy(version_policy)
    if platform:
        content["platform"] = platform
    answer = server.act(f"{_PAGES}:add", content)
    text = f"{name} was added; to wait for it: servingd models wait {name}"
    print_outcome(answer, text, as_json)


def _policy(text: str) -> Any:
    kind, _, numbers = text.partition(":")
    try:
        match kind:
            case "all":
                return "all"
            case "latest":
                return {"latest": int(numbers or "1")}
            case "specific":
                return {"specific": [int(number) for number in numbers.split(",")]}
    except ValueError:
        pass
    raise typer.BadParameter(f"expected latest:N, all or specific:N,N; got {text}")


@models.command("rm")
@grouped
def rm(server: Server, model: Name, as_json: AsJson = False) -> None:
    """Remove a model from servingd.yaml, and serve it no more."""
    answer = server.act(f"{_PAGES}/{quote(model, safe='')}:remove", {})
    print_outcome(answer, f"{model} was removed", as_json)
