"""How long a load stops other Python threads, by the C API and by the public loader."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.saved_model.session.python_session import PythonSession
from tests.bench.measure import Row

TAGS = ("serve",)


def run(folder: Path) -> Iterator[Row]:
    """The longest stall of another thread: C API over public loader, MobileNetV2."""
    import keras

    path = folder / "mobilenet"
    keras.applications.MobileNetV2(weights=None).export(str(path), verbose=False)
    assert c_api.is_sound()
    quick = min(
        _stall(lambda: c_api.load_saved_model(str(path), TAGS, ONE_THREAD)) for _ in range(3)
    )
    slow = min(_stall(lambda: PythonSession(str(path), TAGS, ONE_THREAD)) for _ in range(3))
    yield Row("longest stall while loading, C API over public loader", quick / slow, at_most=0.3)


def _stall(load: Callable[[], object]) -> float:
    """Seconds of the longest gap in a thread that does nothing but look at the clock."""
    over, longest = threading.Event(), [0.0]

    def watch() -> None:
        last = time.perf_counter()
        while not over.is_set():
            now = time.perf_counter()
            longest[0] = max(longest[0], now - last)
            last = now
            time.sleep(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    loaded = load()
    over.set()
    thread.join()
    loaded.close()
    return longest[0]
