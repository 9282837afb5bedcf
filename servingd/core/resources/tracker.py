"""Decide whether a load fits, and track the memory that each version holds.

A load is judged twice: against what is in use now, and against what will be in use when all that is
on its way out has gone. If it fits in both it starts. If it fits only in the second it waits, and
its room is promised: nothing that comes later can take it. Measurements replace estimates.
A version may grow once it serves: it is optimised, which takes much memory for a while. Versions
grow one at a time, so only the largest growth is reserved; loads come first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from servingd.core.resources.footprints import (
    NOTHING,
    NOTHING_LEARNT,
    Correction,
    Measured,
    believed,
    cost,
    learn,
)
from servingd.core.resources.placement import PER_DEVICE, Cost, LoadRules, Room, candidates, plan
from servingd.core.resources.reservations import (
    Admission,
    OptimisationReservation,
    Reservation,
    ResourceRequest,
    Verdict,
)
from servingd.core.resources.totals import Share, Totals, larger
from servingd.core.types import (
    CPU_0,
    NO_BYTES,
    Device,
    Placement,
    Resources,
    ServableId,
)
from servingd.errors import ResourceExhausted, ServingError

_SHOWN_USERS = 5


class ResourceTracker:
    """All reservations and promises. Owned by the manager's state; not thread-safe."""

    def __init__(self, ram_budget: int = 0) -> None:
        """Start with a budget of host memory in bytes; 0: none."""
        self._limits = Resources(ram_budget)
        self._reservations: dict[ServableId, Reservation] = {}
        # Derived from `_reservations`: `_changed` updates them after each change of one.
        self._totals = Totals()
        self._promised: dict[ServableId, None] = {}
        self._small: dict[ServableId, None] = {}  # versions that wait to grow
        self._corrections: dict[str, Correction] = {}
        self.more_room = False
        """Whether memory was given back, or will or can be. The reader sets it to False."""

    @property
    def limits(self) -> Resources:
        """The budgets in bytes; 0 means none."""
        return self._limits

    @property
    def reservations(self) -> Mapping[ServableId, Reservation]:
        """The reservations by version, in order of admission."""
        return self._reservations

    # Loads ----------------------------------------------------------------------------------------

    def judge(
        self,
        servable_id: ServableId,
        request: ResourceRequest,
        rules: LoadRules,
        gone: Collection[ServableId] = (),
    ) -> Admission:
        """Decide whether there is room for a load; `gone` are versions to be given up for it."""
        steady, loading = self._costs(servable_id, request)
        devices = self._devices(request)
        try:
            choice = candidates(rules, devices, loading)
        except ServingError as error:
            return Admission(Verdict.REFUSE, error=error)
        held = self._reservations.get(servable_id)
        keep = held.placement.devices if held else ()
        now, later = self._in_use(servable_id), self._totals.later(servable_id, gone)
        replicas = self._totals.replicas(servable_id, gone)
        for verdict, used in ((Verdict.START, (now, later)), (Verdict.WAIT, (later,))):
            room = Room(self._limits, used, replicas)
            chosen = plan(loading, choice, rules.replicas, room, keep)
            if chosen is not None:
                whole = loading.total(chosen)
                placement = Placement(chosen)
                if request.estimate.growth != NOTHING and (
                    verdict is Verdict.WAIT
                    or not self._may_grow(servable_id, whole, request, placement)
                ):
                    grown = cost(request.estimate.grown).total(chosen)
                    fits = larger(whole, grown) == whole
                    placement = Placement(chosen, may_grow=False, may_start_grown=fits)
                return Admission(verdict, placement, whole, steady.total(chosen))
        text = self._refusal(servable_id, loading, choice, rules)
        return Admission(Verdict.REFUSE, error=ResourceExhausted(text))

    def enter(
        self, servable_id: ServableId, request: ResourceRequest, admission: Admission
    ) -> None:
        """Reserve, or promise, what was decided. A load that waits keeps its place in the order."""
        placement = admission.placement
        growth = (
            OptimisationReservation.ALLOWED if placement.may_grow else OptimisationReservation.WAITS
        )
        self._reservations[servable_id] = Reservation(
            request,
            placement,
            admission.loading,
            admission.steady,
            OptimisationReservation.NONE if request.estimate.growth == NOTHING else growth,
            promised=admission.verdict is Verdict.WAIT,
        )
        self._changed(servable_id)

    def _changed(self, servable_id: ServableId) -> None:
        """Update the sums and the lists after a change of a reservation."""
        held = self._reservations[servable_id]
        _list(self._promised, servable_id, held.promised)
        waits = held.loaded and held.growth is OptimisationReservation.WAITS
        _list(self._small, servable_id, waits)
        self._totals.put(
            servable_id,
            Share(
                NO_BYTES if held.promised else held.later,
                NO_BYTES if held.leaving else held.later,
                () if held.leaving else held.placement.devices,
                held.extra,
            ),
        )

    @property
    def promised(self) -> list[ServableId]:
        """The loads to which room is promised, in order of admission."""
        return list(self._promised)

    def leave(self, servable_id: ServableId) -> None:
        """Mark a version as on its way out: what it holds will be given back."""
        held = self._reservations.get(servable_id)
        if held is not None and not held.leaving:
            held.leaving = self.more_room = True
            self._changed(servable_id)

    def release(self, servable_id: ServableId) -> None:
        """Give back all that a version holds or was promised."""
        if self._reservations.pop(servable_id, None) is not None:
            self._totals.drop(servable_id)
            _list(self._promised, servable_id, False)
            _list(self._small, servable_id, False)
            self.more_room = True

    def settle(self, servable_id: ServableId, measured: Measured | None) -> None:
        """Record a successful load: it now holds what was measured, else what was estimated."""
        held = self._reservations.get(servable_id)
        if held is None:
            return
        estimate, devices = held.request.estimate, held.placement.devices
        if measured is not None and estimate.measurable and not held.grown:
            steady, loading = NOTHING_LEARNT.costs(estimate)
            files = (steady.total(devices), loading.total(devices))
            self._corrections[servable_id.name] = learn(files, measured)
            held.steady = believed(
                measured.steady, held.steady, cost(estimate.least).total(devices)
            )
            held.measured = True
        held.holds, held.loaded, self.more_room = held.steady, True, True
        self._changed(servable_id)

    def forget(self, name: str) -> None:
        """Forget the corrections of a model that was removed."""
        self._corrections.pop(name, None)

    # Growth ---------------------------------------------------------------------------------------

    def waiting_to_grow(self) -> list[ServableId]:
        """Return the versions that are not optimised for lack of memory."""
        return list(self._small)

    def grow(self) -> list[ServableId]:
        """Allow growth to the waiting versions for which there is room; return these."""
        allowed = []
        for servable_id in self.waiting_to_grow():
            held = self._reservations[servable_id]
            if not held.leaving and self._may_grow(
                servable_id, held.holds, held.request, held.placement
            ):
                held.growth = OptimisationReservation.ALLOWED
                self._changed(servable_id)
                allowed.append(servable_id)
        return allowed

    def _may_grow(
        self, servable_id: ServableId, base: Resources, request: ResourceRequest, at: Placement
    ) -> bool:
        """Return whether a version that holds `base` may grow now, next to what was promised."""
        growth = cost(request.estimate.growth).total(at.devices)
        grown = larger(base, cost(request.estimate.grown).total(at.devices))
        now = Room(self._limits, (self._totals.now(servable_id),), {})
        later = Room(self._limits, (self._totals.later(servable_id),), {})
        largest = larger(self._totals.largest_growth(servable_id), growth)
        return now.fits(grown + largest) and later.fits(grown)

    def grown(self, servable_id: ServableId, grew: bool) -> None:
        """Record that a version's growth is over; `grew`: it was optimised, or has started so."""
        held = self._reservations.get(servable_id)
        if held is None or held.growth is OptimisationReservation.NONE:
            return
        started = grew and held.placement.may_start_grown
        if held.growth is OptimisationReservation.WAITS and not started:
            return  # it is still to have its turn
        held.growth, held.grown = OptimisationReservation.NONE, grew
        if grew:
            held.steady = cost(held.request.estimate.grown).total(held.placement.devices)
        if held.loaded:
            held.holds = held.steady
        self._changed(servable_id)
        self.more_room = True

    # Devices that fail ----------------------------------------------------------------------------

    def relocate(self, servable_id: ServableId, failed: Device, rules: LoadRules) -> Device | None:
        """Choose another device for a replica; None if it fits nowhere.

        Until `relocated` the replica is counted on both devices.
        """
        held = self._reservations.get(servable_id)
        if held is None or held.leaving:
            return None
        held.failed.add(failed)
        steady, loading = self._costs(servable_id, held.request)
        lies = held.placement.devices if rules.replicas == PER_DEVICE else ()
        try:
            known = candidates(rules, self._devices(held.request), loading)
        except ServingError:  # the rules name devices that no longer exist
            return None
        choice = [device for device in known if device not in {*held.failed, *lies}]
        room = Room(self._limits, (self._in_use(), self._totals.later()), self._totals.replicas())
        chosen = plan(replace(loading, shared=0), choice, 1, room) if choice else None
        if chosen is None:
            return None
        held.holds = held.holds + steady.on(chosen[0])
        self._changed(servable_id)
        return chosen[0]

    def relocated(self, servable_id: ServableId, devices: tuple[Device, ...]) -> None:
        """Record the devices of a version's replicas, and estimate again what it holds."""
        held = self._reservations.get(servable_id)
        if held is None or not devices:
            return
        held.placement = replace(held.placement, devices=devices)
        steady, _ = self._costs(servable_id, held.request)
        held.holds = held.steady = steady.total(devices)
        held.measured, self.more_room = False, True
        self._changed(servable_id)

    # Sums -----------------------------------------------------------------------------------------

    def _devices(self, request: ResourceRequest) -> Mapping[Device, int]:
        """Return the devices that a load may be put on, with their limits; remember the limits."""
        if not request.estimate.on_devices or not request.devices:
            return {CPU_0: self._limits.on(CPU_0)}
        self._limits = Resources(self._limits.ram, {**self._limits.devices, **request.devices})
        return request.devices

    def _costs(self, servable_id: ServableId, request: ResourceRequest) -> tuple[Cost, Cost]:
        """Return what a version will take once it is loaded, and while it is being loaded."""
        correction = self._corrections.get(servable_id.name, NOTHING_LEARNT)
        return correction.costs(request.estimate)

    def _in_use(self, but: ServableId | None = None) -> Resources:
        """Return what is in use; a version that may grow counts as grown."""
        return self._totals.now(but) + self._totals.largest_growth(but)

    # Texts ----------------------------------------------------------------------------------------

    def _refusal(
        self, servable_id: ServableId, loading: Cost, choice: Collection[Device], rules: LoadRules
    ) -> str:
        """Return why a load is refused: what it needs, the budget, and what is in use by whom."""
        count = rules.replicas or len(choice)
        on_hosts = all(device.is_host for device in choice)
        ram = loading.shared + (count * loading.on_host if on_hosts else 0)
        where = " or ".join(device.name for device in choice)
        parts = []
        if ram and self._limits.ram:
            state = self._state(self._limits.ram, lambda held: held.ram)
            parts.append(f"it needs {megabytes(ram)} of RAM for {_count(count)}; {state}")
        for device in choice:
            if limit := self._limits.on(device):
                state = self._state(limit, partial(Resources.on, device=device))
                needed = megabytes(loading.on(device).on(device))
                parts.append(f"each replica needs {needed} on {device}; {state}")
        why = "; ".join(parts) or f"its {_count(count)} cannot be on {where}"
        return f"Insufficient resources to load servable {servable_id}: {why}"

    def _state(self, limit: int, amount: Callable[[Resources], int]) -> str:
        """Return a limit, how much of it is in use, and by whom, as text."""
        users = sorted(
            ((amount(h.holds), i, h) for i, h in self._reservations.items() if amount(h.holds)),
            key=lambda user: (-user[0], user[1]),
        )
        growth = amount(self._totals.largest_growth())
        in_use = sum(user[0] for user in users) + growth
        text = f"of {megabytes(limit)} {megabytes(in_use)} are in use"
        shown = [
            f"{i.name}:{i.version} {megabytes(bytes_)}{_remark(held)}"
            for bytes_, i, held in users[:_SHOWN_USERS]
        ]
        if len(users) > _SHOWN_USERS:
            shown.append(f"{len(users) - _SHOWN_USERS} others")
        if growth:
            shown.append(f"optimising {megabytes(growth)}")
        return f"{text} ({', '.join(shown)})" if shown else text


def megabytes(amount: int) -> str:
    """Return bytes as operators read them; budgets are given in this unit."""
    return f"{amount / (1 << 20):.1f} MiB"


def _count(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"


def _remark(held: Reservation) -> str:
    if held.promised:
        return " promised"
    return " leaving" if held.leaving else ""


def _list(found: dict[ServableId, None], servable_id: ServableId, belongs: bool) -> None:
    """Put a version on a list or take it off; one that stays keeps its place."""
    if belongs:
        found.setdefault(servable_id)
    else:
        found.pop(servable_id, None)
