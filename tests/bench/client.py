"""The light client: what keeping a connection saves, and what it costs over gRPC by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np

from servingd.client import Client
from servingd.client.grpc.api import PREDICT, outputs_of, predict_request
from servingd.core.types import ModelSpec
from tests.bench.measure import Row, ratio
from tests.bench.serving import serving
from tests.e2e.process import lookup_table

TIMES = 500
KEYS = {"keys": np.array([b"1"], object)}
IMPORT_S = 0.15
"""Seconds that `import servingd.client` may take, with numpy."""


def run(folder: Path) -> Iterator[Row]:
    """Seconds of a call, over those of another way to make it; and of the import."""
    lookup_table(folder / "models" / "m" / "1")
    with serving(folder / "log", f"--model_repository={folder / 'models'}") as server:
        place = f"127.0.0.1:{server.port}"
        # On one machine a connection of HTTP costs little more than a call.
        for transport, address, least in (
            ("gRPC", place, 1.5),
            ("REST", f"http://127.0.0.1:{server.http_port}", 1.1),
        ):
            with Client(address) as client:
                kept = _of_keeping(client)
            what = f"{transport}: a connection each, over one that is kept"
            yield Row(what, kept, at_least=least)
        with Client(place) as client, grpc.insecure_channel(place) as channel:
            call = channel.unary_unary(PREDICT)
            plain = ratio(lambda: client.predict("m", KEYS), lambda: _plain(call), TIMES)
        yield Row("gRPC: a call of the client, over one without it", plain, at_most=1.3)
    yield Row(f"import of the client, over {IMPORT_S} s", _import_s() / IMPORT_S, at_most=1.0)


def _of_keeping(client: Client) -> float:
    def anew() -> None:
        with Client(client.server) as other:
            other.status("m")

    return ratio(anew, lambda: client.status("m"), TIMES // 5)


def _plain(call: Callable[..., bytes]) -> None:
    """The least that any client must do for arrays in and out."""
    outputs_of(call(predict_request(ModelSpec("m"), KEYS), timeout=30))


def _import_s() -> float:
    """Seconds beyond those that Python takes by itself; the best of several."""

    def best(program: str) -> float:
        times = []
        for _ in range(10):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            times.append(time.perf_counter() - began)
        return min(times)

    return best("import servingd.client") - best("pass")
