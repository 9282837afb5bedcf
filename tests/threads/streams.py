"""A servable that streams, served by the parts of a server that know of streams."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from servingd.core.types import ServableId
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.batching.options import DispatchOptions
from servingd.runtime.streaming.streams import OpenStreams
from servingd.runtime.versions.serving_map import ServingMap
from tests.threads.fakes import TIMEOUT, FakeServable, opened

M1 = ServableId("m", 1)


class Generator(FakeServable):
    """Streams x, x + 1 and so on; `body` may do something before each part."""

    def __init__(self, body=lambda number: None, end=None):
        super().__init__("serving_default", "whole")
        self.body, self.end_at = body, end
        self.steps, self.closed_streams = 0, 0
        self.may_step = opened()
        self.stepping = threading.Event()

    def streams(self, signature):
        return signature != "whole"

    def stream(self, signature, inputs):
        number = 0
        try:
            while number != self.end_at:
                self.stepping.set()
                assert self.may_step.wait(TIMEOUT)
                self.body(number)
                self.steps += 1
                yield {"y": inputs["x"] + number}
                number += 1
        finally:
            self.closed_streams += 1


class Serving:
    """Versions of models in a serving map."""

    def __init__(self, most=256, stall_s=3600.0, **options):
        self.dispatcher = Dispatcher(DispatchOptions(**options))
        self.open = OpenStreams(most, stall_s)
        states = SimpleNamespace(configured=frozenset, of_model=lambda name: ())
        self.map = ServingMap(states, self.dispatcher, self.open)
        self.drained = threading.Event()

    def publish(self, servable, servable_id=M1):
        self.map.publish(servable_id, servable, lambda drained_id: self.drained.set())
        return servable
