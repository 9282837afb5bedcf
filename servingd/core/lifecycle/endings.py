"""How a version stops being loaded or served: the state that follows, and the commands."""

from __future__ import annotations

from servingd.core.lifecycle.events import (
    CancelRetry,
    Command,
    Discard,
    Quiesce,
    StartUnload,
    announcement,
)
from servingd.core.lifecycle.harness import Harness, Step
from servingd.core.lifecycle.states import HarnessState, PublicState, advance
from servingd.core.resources.tracker import ResourceTracker
from servingd.errors import Cancelled, ServingError


def quiesce(harness: Harness, tracker: ResourceTracker) -> list[Command]:
    """Take a version that serves out of service, once its calls have ended."""
    harness.state = advance(harness.state, HarnessState.QUIESCING)
    tracker.leave(harness.id)
    # Announced before lookups start to fail: TensorFlow Serving's order.
    return [announcement(harness.id, PublicState.UNLOADING), Quiesce(harness.id)]


def unload(harness: Harness) -> list[Command]:
    """Unload a servable that no call uses."""
    harness.state = advance(harness.state, HarnessState.UNLOADING)
    return [StartUnload(harness.id)]


def unloaded(harness: Harness, tracker: ResourceTracker) -> list[Command]:
    """End an unloaded version; one that never served ends with its error."""
    tracker.release(harness.id)
    failed = harness.error is not None
    target = HarnessState.ERROR if failed else HarnessState.DISABLED
    harness.state = advance(harness.state, target)
    error = harness.error or (_cancelled() if harness.cancelled else None)
    return [announcement(harness.id, PublicState.END, error)]


def withdraw(harness: Harness, tracker: ResourceTracker) -> list[Command]:
    """End a harness without a job: not started, waiting for memory, or between two attempts."""
    commands: list[Command] = []
    if harness.step is Step.PAUSED:
        commands.append(CancelRetry(harness.id))
    tracker.release(harness.id)
    harness.step = None
    harness.state = advance(harness.state, HarnessState.DISABLED)
    commands += [
        Discard(harness.id),
        announcement(harness.id, PublicState.END, _cancelled()),
    ]
    return commands


def fail(harness: Harness, tracker: ResourceTracker, error: ServingError) -> list[Command]:
    """End a version that could not be loaded."""
    tracker.release(harness.id)
    harness.step = None
    harness.state = advance(harness.state, HarnessState.ERROR)
    return [Discard(harness.id), announcement(harness.id, PublicState.END, error)]


def _cancelled() -> Cancelled:
    return Cancelled("Loading of servable cancelled")
