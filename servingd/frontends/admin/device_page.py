"""Describe devices as JSON: their memory, which versions hold it, and where replicas run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from servingd.core.lifecycle.harness import PlannedVersion
from servingd.core.lifecycle.states import HarnessState, PublicState
from servingd.core.resources.placement import ReplicaReport
from servingd.core.types import ServableId
from servingd.observability.placements import Placements

_STATES = {
    HarnessState.NEW: PublicState.START,
    HarnessState.LOADING: PublicState.LOADING,
    HarnessState.READY: PublicState.AVAILABLE,
    HarnessState.QUIESCING: PublicState.UNLOADING,
    HarnessState.UNLOADING: PublicState.UNLOADING,
    HarnessState.DISABLED: PublicState.END,
    HarnessState.ERROR: PublicState.END,
}
"""The state that clients see, by the manager's."""


def describe_devices(placements: Placements) -> Mapping[str, Any]:
    """Return the whole page; a budget of null means no limit."""
    plan, in_use, reports = placements.plan(), placements.in_use(), placements.all()
    held = [version.holds for version in plan.versions]
    growth = max((version.growth.ram for version in plan.versions), default=0)
    replicas = Counter(device for v in plan.versions for device in v.placement.devices)
    known = {**dict.fromkeys(plan.limits.devices, ""), **placements.known()}
    return {
        "ram": {
            "budget_bytes": plan.limits.ram or None,
            "held_bytes": sum(each.ram for each in held),
            "reserved_for_optimising_bytes": growth,
        },
        "devices": [
            {
                "name": device.name,
                "description": known[device],
                "budget_bytes": plan.limits.on(device) or None,
                "held_bytes": sum(each.on(device) for each in held),
                "in_use_bytes": in_use.get(device),
                "replicas": replicas[device],
            }
            for device in sorted(known)
        ],
        "versions": [
            {
                "model": version.id.name,
                "version": version.id.version,
                "state": _STATES[version.state].name,
                **_placement(version, reports.get(version.id, ())),
            }
            for version in plan.versions
        ],
    }


def describe_placement(placements: Placements, servable_id: ServableId) -> Mapping[str, Any]:
    """Return where a version was planned, what it holds, and where its replicas are."""
    versions = placements.plan().versions
    planned = next((version for version in versions if version.id == servable_id), None)
    return _placement(planned, placements.all().get(servable_id, ()))


def _placement(
    planned: PlannedVersion | None, reports: Sequence[ReplicaReport]
) -> Mapping[str, Any]:
    return {**(_planned(planned) if planned else {}), "replicas": [_replica(r) for r in reports]}


def _planned(version: PlannedVersion) -> Mapping[str, Any]:
    return {
        "planned": [device.name for device in version.placement.devices],
        "step": version.step.value if version.step else None,
        "holds_bytes": version.holds.ram,
        "holds_on_devices_bytes": {d.name: n for d, n in version.holds.devices.items()},
        "measured": version.measured,
        "note": version.note,
    }


def _replica(report: ReplicaReport) -> Mapping[str, Any]:
    observed = report.observed
    return {
        "device": report.device.name,
        "state": report.state,
        "graph": report.graph,
        "threads": report.threads,
        # null: there is no other device, so operations were not traced
        "operations_by_device": observed and observed.devices,
        "moved_operations": observed and observed.moved,
        "signatures_not_traced": observed and list(observed.unseen),
    }
