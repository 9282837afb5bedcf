"""The command `validate`: would this server start, and what would it load?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import typer

from servingd.cli.exit_status import FAILED
from servingd.cli.needs import check_needs
from servingd.cli.options import AsJson
from servingd.cli.output import print_json, print_line, print_table, size
from servingd.errors import ServingError

if TYPE_CHECKING:
    from servingd.config.models import ModelConfig
    from servingd.config.server import ServerConfig
    from servingd.servables.registry import Platforms


def validate(context: typer.Context, as_json: AsJson = False) -> None:
    """Check a configuration, given as to `serve`: a path, and flags. Nothing is loaded.

    Reads every file that the server would read, and looks at each version: is it complete, what
    will it take in memory, is there such a device. The exit status is 1 if anything is wrong.
    """
    check_needs()
    problems: list[str] = []
    rows: list[Mapping[str, Any]] = []
    limit = 0
    try:
        with _config(context.args) as config:
            rows, limit = _look(config, problems)
    except ServingError as error:
        problems.append(error.message)
    except OSError as error:
        problems.append(str(error))
    if as_json:
        print_json({"problems": problems, "versions": rows, "memory_limit_bytes": limit})
    else:
        _show(rows, limit, problems)
    if problems:
        raise typer.Exit(FAILED)


def _config(arguments: Sequence[str]) -> AbstractContextManager[ServerConfig]:
    """Hold the configuration of a command line of `serve`. Raises ServingError."""
    from servingd.cli.configuration import configuration_of

    return configuration_of("servingd validate", arguments)


def _look(config: ServerConfig, problems: list[str]) -> tuple[list[Mapping[str, Any]], int]:
    """Return what would be loaded, and the limit of memory; add what is wrong to `problems`."""
    from servingd.machine.memory import ram_budget
    from servingd.server import Server
    from servingd.sources.catalogs import make_catalog

    server = Server(dataclasses.replace(config, workers="1"))  # reads every file
    server.control.check()
    platforms = server.worker.platforms
    models = make_catalog(config).models()
    if not models:
        problems.append("there is no model")
    rows = [row for model in models for row in _versions(model, platforms, problems)]
    _check_devices(config, models, platforms, problems)
    limit = config.ram_budget_mb << 20 or ram_budget()
    total = sum(row["memory_bytes"] or 0 for row in rows)
    if limit and total > limit:
        problems.append(f"all versions together may take {size(total)}, and there is {size(limit)}")
    return rows, limit


def _versions(
    model: ModelConfig, platforms: Platforms, problems: list[str]
) -> list[Mapping[str, Any]]:
    """Return the versions of a model that would be loaded, and those that are incomplete."""
    from servingd.core.types import ServableId
    from servingd.sources.model_directory import ModelDirectory

    directory = ModelDirectory(model, platforms)
    aspired = directory.scan()
    if aspired is None or not aspired.versions:
        problems.append(f"{model.name}: {directory.no_version}")
    if aspired is None:
        return []
    rows: list[Mapping[str, Any]] = []
    for each in aspired.versions:
        assert each.data is not None  # a scan's versions have files
        loader = platforms.loader(ServableId(model.name, each.version), each.data)
        steady = loader.estimate().steady
        memory = steady.shared + steady.replica
        rows.append(_row(model, each.version, each.data.platform, "", memory))
    for version, reason in aspired.incomplete.items():
        rows.append(_row(model, version, "", reason, None))
        if aspired.versions:
            problems.append(f"{model.name}: version {version} is incomplete: {reason}")
    known = {each.version for each in aspired.versions}
    for label, version in model.version_labels.items():
        if version not in known:
            problems.append(
                f"{model.name}: the label {label} names version {version}, which is not loaded"
            )
    return rows


def _row(
    model: ModelConfig, version: int, platform: str, incomplete: str, memory: int | None
) -> Mapping[str, Any]:
    return {
        "model": model.name,
        "version": version,
        "type": platform,
        "incomplete": incomplete or None,
        "memory_bytes": memory,
    }


def _check_devices(
    config: ServerConfig,
    models: Sequence[ModelConfig],
    platforms: Platforms,
    problems: list[str],
) -> None:
    """Check that named devices exist; only where a model names one: TensorFlow is asked."""
    wanted = {model.name: model.device or config.device for model in models}
    if all(device in ("", "auto", "CPU") for device in wanted.values()):
        return
    there = {device.name for device in platforms.devices.usable()}
    kinds = {name.partition(":")[0] for name in there}
    for model, devices in wanted.items():
        for device in devices.split(","):
            if device not in ("", "auto") and device not in there | kinds:
                problems.append(
                    f"{model}: there is no device {device}; there are {', '.join(sorted(there))}"
                )


def _show(rows: Sequence[Mapping[str, Any]], limit: int, problems: Sequence[str]) -> None:
    if rows:
        print_table(
            ("Model", "Version", "Type", "Memory", "Complete"),
            [
                (
                    row["model"],
                    str(row["version"]),
                    row["type"],
                    size(row["memory_bytes"]),
                    row["incomplete"] or "yes",
                )
                for row in rows
            ],
        )
        total = sum(row["memory_bytes"] or 0 for row in rows)
        print_line(f"together about {size(total)} of {size(limit)}, besides TensorFlow's own")
    for problem in problems:
        print_line(f"wrong: {problem}", style="red")
    if not problems:
        print_line("the configuration is valid", style="green")
