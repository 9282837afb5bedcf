"""The log's lines: for people, and for programs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from servingd.core.types import ServableId
from servingd.observability.logs import configure_logging


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """Return what was written."""
    root, ours = logging.getLogger(), logging.getLogger("servingd")
    handlers, levels = root.handlers[:], (root.level, ours.level)

    def written() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield written
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


LOG = logging.getLogger("servingd.x")
Lines = Callable[[], list[str]]


def test_a_line_for_people_has_the_time_with_its_zone(lines: Lines) -> None:
    configure_logging(worker=3)
    LOG.info("two of %s", "them")
    LOG.debug("not this")
    zone = r"[+-]\d\d:\d\d"
    form = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}}{zone} I worker-3/MainThread servingd\.x\] "
    (line,) = lines()
    assert re.fullmatch(f"{form}two of them", line)


def test_a_line_for_programs_is_one_object(lines: Lines) -> None:
    configure_logging("json", "debug", 2)
    LOG.debug("loaded %s\nin two lines", ServableId("m", 7))
    LOG.info("failed", extra={"model": "m", "request_id": "abc", "code": "NOT_FOUND"})
    try:
        raise ValueError("why")
    except ValueError:
        LOG.exception("broken")
    first, second, third = map(json.loads, lines())
    assert first["message"] == "loaded {name: m version: 7}\nin two lines"
    assert (first["model"], first["version"], first["worker"]) == ("m", 7, 2)
    assert (first["level"], first["logger"], first["thread"]) == (
        "debug",
        "servingd.x",
        "MainThread",
    )
    assert (second["model"], second["request_id"], second["code"]) == ("m", "abc", "NOT_FOUND")
    assert "ValueError: why" in third["exception"]


def test_anything_can_be_logged(lines: Lines) -> None:
    configure_logging("json")
    LOG.warning("a lone \udcff surrogate, and %s", {"k": {1, 2}})
    assert json.loads(lines()[0])["level"] == "warning"
