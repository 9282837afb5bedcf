"""Which threads run a call inline, and whether one of them is stuck in it.

A model that has turned slow blocks one thread of a transport. Whoever stands in for that thread
must not get stuck as well, so while an inline run takes long all other calls are queued.
"""

from __future__ import annotations

import time

_STUCK_S = 20e-3
"""Seconds of an inline run after which other calls are queued until it ends."""


class InlineRuns(dict[int, float]):
    """When the inline runs of all signatures began (`time.perf_counter`), by thread.

    Each thread changes its own entry only. A plain dict, because it is on the path of every call.
    """

    def one_is_stuck(self) -> bool:
        """Return whether a run has taken long."""
        begun = tuple(self.values())
        return bool(begun) and time.perf_counter() - min(begun) > _STUCK_S
