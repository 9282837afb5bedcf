"""Measure the memory that a load takes.

All versions share one process, so a load can only be measured by the growth of the process. That
means something if it was the only load meanwhile, and not the first of its type, which imports
libraries. Otherwise there is no measurement, and the estimate counts, corrected by earlier loads.
Host memory is not measured either once a version was unloaded: TensorFlow's allocator on x86 keeps
what it frees, and the next load grows the process by that much less. Calls that are served
meanwhile always blur the result: therefore estimates have a lower bound.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from servingd.core.resources.footprints import Measured
from servingd.core.types import Device, Resources
from servingd.machine.memory import status_bytes

_RESET = Path("/proc/self/clear_refs")

_log = logging.getLogger(__name__)


class MemoryMeter:
    """Measures what loads take. Thread-safe."""

    def __init__(
        self,
        devices: Callable[[], Mapping[Device, int]] = dict,
        read: Callable[[str], int] | None = None,
    ) -> None:
        """`devices` returns the bytes in use per device, `read` a value of the process's status."""
        self._devices = devices
        self._read = read or status_bytes
        self._lock = threading.Lock()
        self._running: set[_Span] = set()  # guarded by _lock
        self._seen: set[str] = set()  # guarded by _lock
        self._unloaded = False  # guarded by _lock; whether any version was ever unloaded

    def start(self, platform: str = "") -> _Span:
        """Begin to measure a load of this servable type; without a type, an unload."""
        span = _Span()
        with self._lock:
            self._unloaded = self._unloaded or not platform
            span.alone = not self._running and platform in self._seen and platform != ""
            span.grows = not self._unloaded
            for other in self._running:
                other.alone = False
            self._running.add(span)
            self._seen.add(platform)
        if span.alone:
            with contextlib.suppress(OSError):  # without it the peak is not known
                _RESET.write_text("5")
            span.before = self._now()
        return span

    def stop(self, span: _Span) -> Measured | None:
        """Return what a load took; None if that is not known."""
        with self._lock:
            self._running.discard(span)
            alone = span.alone
        if not alone or not span.before.ram:
            return None
        now = self._now()
        if not now.ram:
            return None
        steady = _growth(span.before, now)
        if not span.grows:
            devices = Resources(0, steady.devices)
            return Measured(devices, devices) if steady.devices else None
        peak = max(0, self._read("VmHWM") - span.before.ram)
        return Measured(steady, Resources(max(peak, steady.ram), steady.devices))

    def _now(self) -> Resources:
        """Return the bytes in use; 0 bytes if they cannot be read."""
        try:
            return Resources(self._read("VmRSS"), self._devices())
        except Exception:  # a load must not fail because it cannot be measured
            _log.exception("the memory of a load cannot be measured")
            return Resources()


class _Span:
    """One load or unload that is being measured."""

    def __init__(self) -> None:
        self.alone = False  # guarded by the meter's lock
        self.grows = True  # guarded by the meter's lock
        """Whether the process is expected to grow by what the load takes."""
        self.before = Resources()


def _growth(before: Resources, now: Resources) -> Resources:
    devices = {d: max(0, now.on(d) - before.on(d)) for d in now.devices}
    return Resources(max(0, now.ram - before.ram), devices)
