"""The command `bench`: measure a model, at one server or at two side by side."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from servingd import __version__
from servingd.cli.calling.bench.figures import Figures, figures
from servingd.cli.calling.bench.load import Load
from servingd.cli.calling.bench.show import plot, show
from servingd.cli.calling.predict import ModelCall, read_inputs, signature_of
from servingd.cli.exit_status import FAILED
from servingd.cli.options import AsJson, Server, grouped
from servingd.cli.output import console, print_json
from servingd.client import Client, Retry
from servingd.client.address import find_address
from servingd.client.answers import Signature
from servingd.core.types import DataType, Tensors, TensorSpec
from servingd.core.types import Signature as CoreSignature
from servingd.errors import InvalidArgument
from servingd.servables.synthetic_inputs import synthetic_inputs

_CONNECTIONS = 4
_OPEN_CALLERS = 64
"""Calls under way, at most, in an open loop."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How much load is made."""

    rows: Annotated[
        int, typer.Option(min=1, help="Rows of inputs that are made from the signature.")
    ] = 1
    concurrency: Annotated[
        str, typer.Option(help="Callers at once, with commas: a run for each.")
    ] = "1,4,16"
    rate: Annotated[
        float, typer.Option(min=0.0, help="Calls a second, whatever the answers; 0: closed loop.")
    ] = 0.0
    duration_s: Annotated[
        float, typer.Option("--duration_s", min=0.1, help="Seconds of each run.")
    ] = 5.0
    warm_s: Annotated[float, typer.Option("--warm_s", min=0.0, help="Seconds before each run.")] = (
        1.0
    )

    def callers(self) -> list[int]:
        """Return the numbers of callers. Raises BadParameter."""
        try:
            found = [int(each) for each in self.concurrency.split(",")]
        except ValueError:
            found = []
        if not found or min(found) < 1:
            raise typer.BadParameter(
                f"--concurrency: expected numbers with commas, got {self.concurrency}"
            )
        return found

    def describe(self, callers: int) -> str:
        """Return the load of a run, for readers."""
        return f"{self.rate:g} calls/s" if self.rate else f"{callers} callers"

    def measure(self, call: Callable[[], object], tick: Callable[[], None], count: int) -> Figures:
        """Make the load, and return what came of it."""
        load = Load(call, tick)
        if self.warm_s:
            load.closed(count, self.warm_s)
        began, cpu = time.perf_counter(), time.process_time()
        if self.rate:
            calls = load.open(self.rate, self.duration_s, max(count, _OPEN_CALLERS))
        else:
            calls = load.closed(count, self.duration_s)
        took = time.perf_counter() - began
        share = (time.process_time() - cpu) / took
        return figures(self.describe(count), calls, took, self.rows, share)


@dataclass(frozen=True, slots=True)
class Output:
    """What is compared, and where the figures go."""

    compare: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Measure this server as well, side by side.")
    ] = ""
    compare_version: Annotated[
        int | None,
        typer.Option("--compare_version", help="Measure this version as well, side by side."),
    ] = None
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a plot: FILE.png or FILE.svg.")
    ] = None
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None
    as_json: AsJson = False


@grouped
def bench(server: Server, call: ModelCall, load: LoadOptions, output: Output) -> None:
    """Measure a model: calls a second and latencies, for more and more callers.

    Inputs are made from the signature, or given as for predict. Works with any server that speaks
    TensorFlow Serving's API. The exit status is 1 if a call failed.
    """
    counts = load.callers()
    targets = {server.server: (server.server, call)}
    if output.compare:
        targets[output.compare] = (output.compare, call)
    if output.compare_version is not None:
        other = replace(call, version=output.compare_version, label="")
        targets[f"version {output.compare_version}"] = (server.server, other)
    runs: dict[str, list[Figures]] = {name: [] for name in targets}
    with ExitStack() as stack, _progress(len(targets) * len(counts)) as (begin, tick):
        callers = {
            name: stack.enter_context(_caller(server, address, called, load.rows))
            for name, (address, called) in targets.items()
        }
        for count in counts:
            for name, one in callers.items():  # one after the other: each has the machine
                begin(f"{name}: {load.describe(count)}")
                runs[name].append(load.measure(one, tick, count))
    _report(runs, call.model, output)
    if any(each.errors for found in runs.values() for each in found):
        raise typer.Exit(FAILED)


def _report(runs: Mapping[str, list[Figures]], model: str, output: Output) -> None:
    content = {
        "model": model,
        "when": datetime.now().astimezone().isoformat("T", "seconds"),
        "client": f"servingd {__version__}, Python {platform.python_version()}",
        "runs": {name: [each.as_json() for each in found] for name, found in runs.items()},
    }
    if output.as_json:
        print_json(content)
    else:
        show(runs)
    if output.report is not None:
        output.report.write_text(json.dumps(content, indent=2) + "\n")
    if output.plot is not None:
        plot(runs, output.plot)


@contextmanager
def _caller(
    server: Server, address: str, call: ModelCall, rows: int
) -> Iterator[Callable[[], object]]:
    """Yield what calls the model once; it is not tried again, so that failures are seen."""
    with Client(
        find_address(address),
        **server.settings(),
        retry=Retry(attempts=1),
        connections=_CONNECTIONS,
    ) as client:
        if call.given:
            inputs = read_inputs(client, call)
        else:
            inputs = made_inputs(signature_of(client, call)[1], rows)
        yield lambda: call.predict(client, inputs)


def made_inputs(signature: Signature, rows: int) -> Tensors:
    """Return inputs of a signature: `rows` where the first dimension is open, else 1.

    Raises InvalidArgument where they would be too large.
    """
    specs = {
        alias: TensorSpec(DataType[spec.dtype], spec.shape)
        for alias, spec in signature.inputs.items()
    }
    made = synthetic_inputs(CoreSignature("", specs, {}), rows)
    if made is None:
        raise InvalidArgument("inputs of this signature are too large to be made: give some")
    return made


@contextmanager
def _progress(runs: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Show how far the measurement is, on stderr; yield how to begin a run and to tell of calls."""
    name, calls = (
        TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[calls]}")
    )
    columns = (name, BarColumn(), calls, TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task("connecting", total=runs, calls="")
        state = {"begun": 0, "calls": 0}

        def begin(name: str) -> None:
            bar.update(task, description=name, completed=state["begun"])
            state["begun"] += 1

        def tick() -> None:
            state["calls"] += 1
            if state["calls"] % 64 == 0:
                bar.update(task, calls=f"{state['calls']} calls")

        yield begin, tick
        bar.update(task, completed=runs)
