"""Show figures: a table and bars in the terminal, and a plot in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from servingd.cli.calling.bench.figures import Figures
from servingd.cli.output import print_line, print_table
from servingd.errors import FailedPrecondition, InvalidArgument

_BAR = 40
_LIMIT = 0.9
"""The share of a core from which on the client is likely to be the limit."""

Runs = Mapping[str, Sequence[Figures]]
"""The runs of each target, by what it is called."""


def show(runs: Runs) -> None:
    """Print a table for each target, bars, and how they compare."""
    for target, found in runs.items():
        print_table(
            ("Load", "Calls/s", "Rows/s", "p50 ms", "p90 ms", "p99 ms", "Max ms", "Errors"),
            [_row(each) for each in found],
            title=target,
        )
        _bars(found)
    if len(runs) > 1:
        _compare(runs)
    busiest = max(each.client_cpu for found in runs.values() for each in found)
    if busiest > _LIMIT:
        print_line(
            f"The client took {busiest:.0%} of a core: the server may be faster than shown.",
            style="yellow",
        )


def _row(found: Figures) -> Sequence[str]:
    errors = ", ".join(f"{count} {code}" for code, count in found.errors.items())
    return (
        found.load,
        f"{found.calls_per_s:,.1f}",
        f"{found.rows_per_s:,.1f}",
        f"{found.p50_ms:.2f}",
        f"{found.p90_ms:.2f}",
        f"{found.p99_ms:.2f}",
        f"{found.max_ms:.2f}",
        errors or "none",
    )


def _bars(found: Sequence[Figures]) -> None:
    """Print calls a second as bars, with the 99th percentile beside them."""
    most = max((each.calls_per_s for each in found), default=0.0)
    wide = max((len(each.load) for each in found), default=0)
    for each in found:
        bar = "█" * round(_BAR * each.calls_per_s / most) if most else ""
        print_line(
            f"{each.load:>{wide}} {bar:<{_BAR}} {each.calls_per_s:,.0f}/s, p99 {each.p99_ms:.1f} ms"
        )


def _compare(runs: Runs) -> None:
    first, *others = runs
    print_table(
        ("Load", "Compared", "Calls/s", "p50", "p99"),
        [
            (
                mine.load,
                f"{first} : {other}",
                _ratio(mine.calls_per_s, theirs.calls_per_s),
                _ratio(mine.p50_ms, theirs.p50_ms),
                _ratio(mine.p99_ms, theirs.p99_ms),
            )
            for other in others
            for mine, theirs in zip(runs[first], runs[other], strict=True)
        ],
        title="Ratios",
    )


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else ""


def plot(runs: Runs, path: Path) -> None:
    """Write a plot as PNG or SVG: calls a second, and the 99th percentile. Raises ServingError."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise InvalidArgument(f"--plot: expected a file .png or .svg, got {path}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise FailedPrecondition('--plot needs matplotlib: pip install "servingd[plot]"') from None
    drawing = Figure(figsize=(9, 4), layout="constrained")
    rates, latencies = drawing.subplots(1, 2)
    for target, found in runs.items():
        loads = [each.load for each in found]
        rates.plot(loads, [each.calls_per_s for each in found], marker="o", label=target)
        latencies.plot(loads, [each.p99_ms for each in found], marker="o", label=target)
    for axes, title in ((rates, "calls a second"), (latencies, "99th percentile, ms")):
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.tick_params(axis="x", rotation=20)
    rates.legend()
    drawing.savefig(path)
