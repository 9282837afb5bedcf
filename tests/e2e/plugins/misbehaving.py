"""A servable type that misbehaves as its versions say: each has a file with a word in it."""

import asyncio
import os
import sys
import time
from pathlib import Path

import numpy as np

from servingd.servables.plugin import Platform, Servable, signature

SIGNATURES = {
    "serving_default": signature(inputs={"x": ("FLOAT", [None])}, outputs={"y": ("FLOAT", [None])})
}
HANG_S = 600
KEPT = []


class Bad(Servable):
    signatures = SIGNATURES
    concurrency = 2

    def __init__(self, how: str) -> None:
        self.how = how

    def predict(self, signature, inputs):
        x = inputs["x"]
        match self.how:
            case "raises in a call":
                raise RuntimeError("broken")
            case "exits in a call":
                sys.exit(3)
            case "hangs in a call":
                time.sleep(HANG_S)
            case "answers of another type":
                return {"y": x.astype(np.float64)}
            case "answers of another shape":
                return {"y": x.reshape(-1, 1)}
            case "answers of other names":
                return {"z": x}
            case "answers nothing":
                return None
            case "writes to its inputs":
                x += 1
            case "dies in a call":
                os._exit(3)
        return {"y": x}

    def close(self) -> None:
        if self.how == "hangs at its end":
            time.sleep(HANG_S)
        if self.how == "raises at its end":
            raise RuntimeError("broken")


class Own(Bad):
    """Completes calls itself."""

    def run(self, signature, inputs, done):
        match self.how:
            case "completes twice":
                done.succeed({"y": inputs["x"]})
                done.succeed({"y": inputs["x"] + 1})
            case "never completes":
                pass
            case "keeps the call and never completes":
                KEPT.append(done)


class Blocking(Bad):
    """Blocks the event loop that it is given."""

    async def predict(self, signature, inputs):
        time.sleep(HANG_S)


class Slow(Bad):
    """A coroutine that takes its time, as it should."""

    concurrency = 8

    async def predict(self, signature, inputs):
        await asyncio.sleep(0.2)
        return {"y": inputs["x"]}


class Limited(Bad):
    """Hangs, with a time limit."""

    time_limit_s = 0.3

    def predict(self, signature, inputs):
        time.sleep(1.5)
        return {"y": inputs["x"]}


KINDS = {
    "completes twice": Own,
    "never completes": Own,
    "keeps the call and never completes": Own,
    "blocks its event loop": Blocking,
    "is slow but asynchronous": Slow,
    "hangs with a time limit": Limited,
}


class BadPlatform(Platform):
    name = "bad"
    files = ("how.txt",)

    def missing(self, listing):
        how = listing.read("how.txt").decode()
        if how == "raises when it is checked":
            raise RuntimeError("broken")
        if how == "exits when it is checked":
            sys.exit(3)
        if how == "hangs when it is checked":
            time.sleep(HANG_S)

    @classmethod
    def load(cls, version):
        how = Path(version.path, "how.txt").read_text()
        match how:
            case "raises in a load":
                raise RuntimeError("broken")
            case "exits in a load":
                sys.exit(3)
            case "hangs in a load":
                time.sleep(HANG_S)
            case "dies in a load":
                os._exit(3)
            case "has no signatures":
                made = Bad(how)
                made.signatures = ["serving_default"]
                return made
            case "is no servable":
                return object()
        return KINDS.get(how, Bad)(how)
