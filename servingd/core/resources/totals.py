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
    """The same, once everything that is leaving has gone."""
    replicas: tuple[Device, ...] = ()
    """Where its replicas are, unless it is leaving."""
    growth: Resources = NO_BYTES
    """What its growth takes besides, while it is allowed."""


_NOTHING = Share()


class Totals:
    """The sums. One owner, the resource tracker; not thread-safe."""

    def __init__(self) -> None:
        self._shares: dict[ServableId, Share] = {}
        self._now, self._later = _Sum(), _Sum()
        self._replicas: dict[Device, int] = {}
        self._growing: dict[ServableId, Resources] = {}
        self._largest: Resources | None = NO_BYTES
        """Of those that grow, part by part; None: to be found out."""

    def put(self, servable_id: ServableId, share: Share) -> None:
        """Replace what a version adds."""
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
        """Take a version out of the sums, if it is in them."""
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
        """Return what is held, except by one version."""
        return self._now.without(self._shares_of(but).now for but in _some(but))

    def later(self, but: ServableId | None = None, gone: Collection[ServableId] = ()) -> Resources:
        """Return what will be held once all that is leaving has gone, and some others with it."""
        return self._later.without(self._shares_of(i).later for i in {*_some(but), *gone})

    def replicas(
        self, but: ServableId | None = None, gone: Collection[ServableId] = ()
    ) -> Mapping[Device, int]:
        """Return how many replicas each device has, without some versions'."""
        counts = dict(self._replicas)
        for servable_id in {*_some(but), *gone}:
            for device in self._shares_of(servable_id).replicas:
                counts[device] -= 1
        return {device: count for device, count in counts.items() if count}

    def largest_growth(self, but: ServableId | None = None) -> Resources:
        """Return the most that one version takes while it grows, part by part."""
        if but in self._growing:
            return reduce(larger, (g for i, g in self._growing.items() if i != but), NO_BYTES)
        if self._largest is None:
            self._largest = reduce(larger, self._growing.values(), NO_BYTES)
        return self._largest

    def _shares_of(self, servable_id: ServableId) -> Share:
        return self._shares.get(servable_id, _NOTHING)


class _Sum:
    def __init__(self) -> None:
        self._ram = 0
        self._devices: dict[Device, int] = {}

    def add(self, amount: Resources, sign: int) -> None:
        self._ram += sign * amount.ram
        for device, size in amount.devices.items():
            self._devices[device] = self._devices.get(device, 0) + sign * size

    def without(self, amounts: Iterable[Resources]) -> Resources:
        ram, devices = self._ram, dict(self._devices)
        for amount in amounts:
            ram -= amount.ram
            for device, size in amount.devices.items():
                devices[device] -= size
        return Resources(ram, devices)


def larger(one: Resources, other: Resources) -> Resources:
    """Return the larger of each part."""
    devices = {**one.devices, **other.devices}
    return Resources(
        max(one.ram, other.ram),
        {device: max(one.on(device), other.on(device)) for device in devices},
    )


def _some(servable_id: ServableId | None) -> tuple[ServableId, ...]:
    return () if servable_id is None else (servable_id,)
