"""The commands `warmup ...`: make and check the requests that warm a version up."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from servingd.cli.exit_status import FAILED
from servingd.cli.needs import check_needs
from servingd.cli.options import AsJson
from servingd.cli.output import print_error, print_json, print_line, print_outcome

warmup = typer.Typer(
    name="warmup", no_args_is_help=True, help="Make and check requests that warm a version up."
)

_MOST = 1000
"""Records that TensorFlow Serving takes, at most."""

VersionPath = Annotated[Path, typer.Argument(help="The version's folder, or the model's.")]


@warmup.command("make")
def make(
    version: VersionPath,
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            help="JSON lines, each the inputs of a call as for predict; or a TFRecord file with "
            "recorded calls, as request logs are.",
        ),
    ],
    model: Annotated[str, typer.Option(help="The model's name; none: its folder's.")] = "",
    signature: Annotated[str, typer.Option(help="The signature of JSON lines.")] = (
        "serving_default"
    ),
    count: Annotated[
        int, typer.Option(min=1, max=_MOST, help="Requests at most, taken evenly.")
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """Write assets.extra/tf_serving_warmup_requests of a SavedModel, before it is deployed.

    A server that serves the version already loads it anew: its files have changed.
    """
    check_needs()
    from servingd.cli.checking.warmup_file import WarmUpFile

    file = WarmUpFile.of(str(version), model)
    if source.suffix in (".jsonl", ".ndjson", ".json"):
        lines = [line for line in source.read_text().splitlines() if line.strip()]
        records = file.from_lines([json.loads(line) for line in lines], signature, int(time.time()))
    else:
        records = file.from_log(str(source))
    chosen = records[:: -(-len(records) // count) or 1]
    path = file.write(chosen)
    found = {"path": path, "requests": len(chosen), "of": len(records)}
    print_outcome(found, f"{len(chosen)} of {len(records)} requests are in {path}", as_json)


@warmup.command("check")
def check(version: VersionPath, as_json: AsJson = False) -> None:
    """Check that a version's warm-up requests can be read, and fit its signatures."""
    check_needs()
    from servingd.cli.checking.warmup_file import WarmUpFile

    file = WarmUpFile.of(str(version), "")
    kinds: Counter[str] = Counter()
    problems: list[str] = []
    for number, (kind, problem) in enumerate(file.judged(), 1):
        kinds[kind] += 1
        if problem:
            problems.append(f"request {number}: {problem}")
    total = sum(kinds.values())
    if total > _MOST:
        problems.append(f"{total} requests, and at most {_MOST} are taken")
    if as_json:
        print_json({"path": file.path, "requests": dict(kinds), "problems": problems})
    else:
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        print_line(f"{file.path}: {shown or 'no requests'}")
        for problem in problems:
            print_error(problem)
    if problems:
        raise typer.Exit(FAILED)
