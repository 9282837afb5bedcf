"""Sums over all reservations, kept up to date one reservation at a time.

With a thousand models, each event would otherwise cost a walk over all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from typing import NamedTuple

from servingd.core.types import NO_BYTES, Device, Resources, ServableId


class Share(NamedTuple):
    """What one reservation adds to the sums."""

    now: Resources = NO_BYTES
    """What it holds, or will hold when its growth is over; nothing while it is only promised."""
    later: Resources = NO_BYTES
    """What it will hold once everything on its way out has gone."""
    replicas: tuple[Device, ...] = ()
    """The devices of its replicas; empty if it is on its way out."""
    growth: Resources = NO_BYTES
    """What its growth takes in addition, while it is allowed."""


_NOTHING = Share()


class Totals:
    """The sums over all reservations. Owned by the resource tracker; not thread-safe."""

    def __init__(self) -> None:
        self._shares: dict[ServableId, Share] = {}
        self._now, self._later = _Sum(), _Sum()
        self._replicas: dict[Device, int] = {}
        self._growing: dict[ServableId, Resources] = {}
        self._largest: Resources | None = NO_BYTES
        """The largest growth, part by part; None: to be computed."""

    def put(self, servable_id: ServableId, share: Share) -> None:
        """Set what a version adds to the sums."""
        self.drop(servable_id)
        self._shares[servable_id] = share
        self._now.add(share.now, 1)
        self._later.add(share.later, 1)
        for device in share.replicas:
            self._replicas[device] = self._replicas.get(device, 0) + 1
        if share.growth != NO_BYTES:
            self._growing[servable_id] = share.growth
            if self._largest is not None:
                self._largest = larger(self._largest, share.growth)

    def drop(self, servable_id: ServableId) -> None:
        """Remove a version from the sums, if it is in them."""
        share = self._shares.pop(servable_id, None)
        if share is None:
            return
        self._now.add(share.now, -1)
        self._later.add(share.later, -1)
        for device in share.replicas:
            self._replicas[device] -= 1
        if self._growing.pop(servable_id, None) is not None:
            self._largest = None

    def now(self, but: ServableId | None = None) -> Resources:
        """Return what is held now, without version `but`."""
        return self._now.without(self._shares_of(but).now for but in _some(but))

    def later(self, but: ServableId | None = None, gone: Collection[ServableId] = ()) -> Resources:
        """Return what will be held once all versions on their way out, and `gone`, have gone."""
        return self._later.without(self._shares_of(i).later for i in {*_some(but), *gone})

    def replicas(
        self, but: ServableId | None = None, gone: Collection[ServableId] = ()
    ) -> Mapping[Device, int]:
        """Return the number of replicas on each device, without `but` and `gone`."""
        counts = dict(self._replicas)
        for servable_id in {*_some(but), *gone}:
            for device in self._shares_of(servable_id).replicas:
                counts[device] -= 1
        return {device: count for device, count in counts.items() if count}

    def largest_growth(self, but: ServableId | None = None) -> Resources:
        """Return the most that any version takes while it grows, part by part."""
        if but in self._growing:
            return reduce(larger, (g for i, g in self._growing.items() if i != but), NO_BYTES)
        if self._largest is None:
            self._largest = reduce(larger, self._growing.values(), NO_BYTES)
        return self._largest

    def _shares_of(self, servable_id: ServableId) -> Share:
        return self._shares.get(servable_id, _NOTHING)


class _Sum:
    """A sum of resources that can be added to and subtracted from."""

    def __init__(self) -> None:
        self._ram = 0
        self._devices: dict[Device, int] = {}

    def add(self, amount: Resources, sign: int) -> None:
        self._ram += sign * amount.ram
        for device, size in amount.devices.items():
            self._devices[device] = self._devices.get(device, 0) + sign * size

    def without(self, amounts: Iterable[Resources]) -> Resources:
        """Return the sum less some amounts."""
        ram, devices = self._ram, dict(self._devices)
        for amount in amounts:
            ram -= amount.ram
            for device, size in amount.devices.items():
                devices[device] -= size
        return Resources(ram, devices)


def larger(one: Resources, other: Resources) -> Resources:
    """Return the larger value of each part."""
    devices = {**one.devices, **other.devices}
    return Resources(
        max(one.ram, other.ram),
        {device: max(one.on(device), other.on(device)) for device in devices},
    )


def _some(servable_id: ServableId | None) -> tuple[ServableId, ...]:
    return () if servable_id is None else (servable_id,)
