"""Who gets an answer in parts over REST, and what a part looks like."""

from __future__ import annotations

import json

import numpy as np
import pytest

from servingd.core.types import DataType, TensorSpec
from servingd.frontends.tfs.rest.streamed import EVENTS, LINES, wanted_frame
from servingd.wire.json.results import encode_predictions


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, None),
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("text/html,application/xhtml+xml,*/*;q=0.8", None),
        (EVENTS, EVENTS),
        (LINES, LINES),
        (" Text/Event-Stream ; charset=utf-8", EVENTS),
        (f"{LINES}, {EVENTS}", LINES),
        (f"{EVENTS}, {LINES}", EVENTS),
        (f"{EVENTS}, */*", EVENTS),
        (f"*/*, {EVENTS}", None),
        (f"application/json, {EVENTS}", None),
        (f"application/json;q=0.5, {EVENTS}", EVENTS),
        (f"application/json, {EVENTS};q=0.5", None),
        (f"{EVENTS};q=0.5, {LINES};q=0.7", LINES),
        (f"{EVENTS};q=0", None),
        (f"{EVENTS};q=much", None),
        ("text/event-streams", None),
    ],
)
def test_who_wants_parts(accept, media_type):
    frame = wanted_frame({} if accept is None else {"accept": accept})
    assert (frame.media_type if frame else None) == media_type


@pytest.mark.parametrize("columnar", [True, False])
def test_a_part_is_one_line_and_says_the_same(columnar):
    texts = np.array([b"two\n    lines", b'"\n'], object)
    specs = {
        "text": TensorSpec(DataType.STRING, (None,)),
        "n": TensorSpec(DataType.FLOAT, (None, 2)),
    }
    outputs = {"text": texts, "n": np.ones((2, 2), np.float32)}
    document = encode_predictions(outputs, specs, columnar)
    line = wanted_frame({"accept": LINES}).part(document)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == json.loads(document)
    event = wanted_frame({"accept": EVENTS}).part(document)
    assert event == b"data: " + line + b"\n"


def test_an_error_is_marked_as_one():
    assert wanted_frame({"accept": LINES}).error('a "b"\nc') == b'{"error": "a \\"b\\"\\nc"}\n'
    assert wanted_frame({"accept": EVENTS}).error("a") == (
        b'event: error\ndata: {"error": "a"}\n\n'
    )
