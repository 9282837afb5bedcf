"""Decide whether a load starts, waits for memory, replaces old versions, or is refused.

The texts that operators read are here as well; `room.py` carries the decisions out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from servingd.core.lifecycle.events import Command, Explain
from servingd.core.lifecycle.harness import Harness, LoadPlan, PlannedVersion, Stream, Streams
from servingd.core.resources.placement import LoadRules
from servingd.core.resources.reservations import Admission, Reservation, ResourceRequest, Verdict
from servingd.core.resources.tracker import ResourceTracker, megabytes
from servingd.core.types import ANYWHERE, NO_BYTES, ServableId


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a load, and what to say about it."""

    admission: Admission
    give_up: tuple[Harness, ...] = ()
    """Versions that serve, and must be unloaded first."""
    note: str = ""


def decide(
    harness: Harness,
    request: ResourceRequest,
    stream: Stream,
    tracker: ResourceTracker,
    rules: LoadRules,
) -> Decision:
    """Decide about a load. With `auto` the old version serves on unless both do not fit."""
    servable_id = harness.id
    admission = tracker.judge(servable_id, request, rules)
    match admission.verdict:
        case Verdict.START:
            return Decision(admission, note=_reserved(servable_id, admission))
        case Verdict.WAIT:
            return Decision(admission, note=f"{servable_id} waits for memory that others give back")
    stale = tuple(stream.stale()) if rules.transition == "auto" else ()
    if not stale:
        return Decision(admission)
    after = tracker.judge(servable_id, request, rules, gone=[old.id for old in stale])
    if after.verdict is Verdict.REFUSE:
        return Decision(admission)
    old = ", ".join(str(old.id.version) for old in stale)
    note = (
        f"{servable_id} and version {old} do not fit beside each other: version {old} is unloaded "
        f"first, and the model is unavailable until version {servable_id.version} is loaded"
    )
    return Decision(after, stale, note)


def waiting(streams: Streams, tracker: ResourceTracker) -> list[Harness]:
    """Return the loads to which room is promised, in order of arrival."""
    return [streams.harness(servable_id) for servable_id in tracker.promised]


def explain(harness: Harness, note: str) -> list[Command]:
    """Return the command that explains a decision; none if it was explained before."""
    if harness.note == note:
        return []
    harness.note = note
    return [Explain(harness.id, note)]


def plan_of(
    harnesses: Iterable[Harness], tracker: ResourceTracker, rules: Mapping[str, LoadRules]
) -> LoadPlan:
    """Return what each version holds, and where, for those who show it."""
    return LoadPlan(
        tracker.limits, rules, tuple(_planned(h, tracker.reservations.get(h.id)) for h in harnesses)
    )


def _planned(harness: Harness, held: Reservation | None) -> PlannedVersion:
    return PlannedVersion(
        harness.id,
        harness.state,
        harness.step,
        held.placement if held else ANYWHERE,
        held.holds if held and not held.promised else NO_BYTES,
        held.extra if held else NO_BYTES,
        held is not None and held.measured,
        harness.note,
    )


def _reserved(servable_id: ServableId, admission: Admission) -> str:
    placement, ram = admission.placement, megabytes(admission.loading.ram)
    return (
        f"Successfully reserved resources to load servable {servable_id} on {placement}: {ram} RAM"
    )
