"""What commands print: tables for people, JSON for programs, errors with what to do next."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 1000
"""Columns where nobody looks: a program that reads a table must find whole names."""


def console(*, stderr: bool = False) -> Console:
    """Return the console of one of the two streams; it takes what it prints letter for letter."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else _WIDE,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


def print_json(content: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table; long cells go on in the next line, and nothing is cut off."""
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    if title:
        table.title = Text(escaped(title), style="table.title")
    for column in columns:
        table.add_column(Text(escaped(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(escaped(cell)) for cell in row))
    console().print(table)


def print_line(text: str = "", style: str = "") -> None:
    """Print one line; `style` is a style of rich's."""
    console().print(Text(escaped(text), style=style), soft_wrap=True)


def print_outcome(answer: Any, text: str, as_json: bool) -> None:
    """Print what a command has done: a server's answer as JSON, or a line for people."""
    if as_json:
        print_json(answer)
    else:
        print_line(text)


def print_error(text: str, advice: str = "") -> None:
    """Print an error to stderr, and what to do next."""
    out = console(stderr=True)
    out.print(Text.assemble(("Error:", "bold red"), " ", escaped(text)), soft_wrap=True)
    if advice:
        out.print(Text(escaped(advice)), soft_wrap=True)


def size(amount: float | None) -> str:
    """Return a number of bytes for readers; empty for None."""
    if amount is None:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if abs(amount) < 1024:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} GiB"


def escaped(text: str) -> str:
    """Return a text in which a terminal finds no control characters, but for line breaks."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
