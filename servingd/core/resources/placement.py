"""Which devices a load gets, which replica a call gets, and when a device has failed.

A plan is made for one load at a time, around what is there: nothing that serves is ever moved for
it. `auto` means the accelerators, where there are any that are large enough, else the CPUs. Of the
devices on which a replica fits, it goes where the smallest share of memory is in use afterwards,
then where the fewest replicas are: small models spread instead of filling up one device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from servingd.core.types import Device, Resources
from servingd.errors import Code, InvalidArgument, ServingError

AUTO = "auto"
PER_DEVICE = 0
"""As a number of replicas: one on each device that may be chosen."""

TRANSITIONS = ("auto", "availability_preserving", "resource_preserving")

DEVICES_EXPECTED = "auto, CPU, GPU, or names such as GPU:1 with commas"
REPLICAS_EXPECTED = "a whole number from 1 to 256, or per_device"

_DEVICE = re.compile(r"(CPU|GPU)(:\d{1,4})?")
_REPLICAS = re.compile(r"\d{1,3}")
_MAX_REPLICAS = 256

FAILURES_IN_A_ROW = 3
"""So many failures of its device, with no success in between, and a replica is broken."""

_LOST = re.compile(
    r"device (is )?lost|cuda_error|cuda error|cudnn_status|cublas_status|gpu sync failed"
    r"|failed to (launch|enqueue|synchronize|query|sync)|illegal (memory access|address)"
    r"|fallen off the bus|stream in (a )?bad state|ecc error",
    re.IGNORECASE,
)
"""What TensorFlow and the driver say of a device that does not work any more."""

_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class LoadRules:
    """What an operator says of where a model's versions go, and how one takes another's place."""

    devices: tuple[str, ...] = ()
    """Names, or kinds that mean all of their devices; empty: `auto`."""

    replicas: int = 1
    """How many, or PER_DEVICE."""

    transition: str = ""
    """One of TRANSITIONS; empty: by the manager's own policy."""


def parse_devices(text: str) -> tuple[str, ...]:
    """`auto`, `GPU` or `CPU:0,GPU:1` as names and kinds. Raises InvalidArgument."""
    if text == AUTO:
        return ()
    names = [name.strip().upper() for name in text.split(",")]
    if not all(_DEVICE.fullmatch(name) for name in names):
        raise InvalidArgument(f"device: expected {DEVICES_EXPECTED}, got {text!r}")
    return tuple(dict.fromkeys(names))


def parse_replicas(text: str) -> int:
    """`1`, `N` or `per_device`. Raises InvalidArgument."""
    if text == "per_device":
        return PER_DEVICE
    if not _REPLICAS.fullmatch(text) or not 1 <= int(text) <= _MAX_REPLICAS:
        raise InvalidArgument(f"replicas: expected {REPLICAS_EXPECTED}, got {text!r}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of one version: of the host's memory, once, and of each replica where it lies."""

    shared: int = 0
    on_host: int = 0
    on_accelerator: int = 0

    def on(self, device: Device) -> Resources:
        """What one replica takes there."""
        if device.is_host:
            return Resources(self.on_host, {device: self.on_host})
        return Resources(0, {device: self.on_accelerator})

    def total(self, devices: Sequence[Device]) -> Resources:
        """What it takes with its replicas on these devices; without a plan, of one on the host."""
        if not devices:
            return Resources(self.shared + self.on_host)
        whole = Resources(self.shared)
        for device in devices:
            whole = whole + self.on(device)
        return whole

    def at_least(self, least: Cost) -> Cost:
        """The larger of each part."""
        return Cost(
            max(self.shared, least.shared),
            max(self.on_host, least.on_host),
            max(self.on_accelerator, least.on_accelerator),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that a plan is made for. A limit of 0 is none."""

    limits: Resources
    used: tuple[Resources, ...]
    """What is in use at the moments that matter; a load must fit in at each of them."""

    replicas: Mapping[Device, int]
    """How many each device has."""

    def fits(self, more: Resources) -> bool:
        """Whether there is room for more. Only what would grow is looked at."""
        return all(_fits(used, more, self.limits) for used in self.used)

    def with_more(self, more: Resources) -> Room:
        """The room that is left with more in use."""
        return Room(self.limits, tuple(used + more for used in self.used), self.replicas)


def _fits(used: Resources, more: Resources, limits: Resources) -> bool:
    if more.ram and limits.ram and used.ram + more.ram > limits.ram:
        return False
    return all(
        not amount or not limits.on(device) or used.on(device) + amount <= limits.on(device)
        for device, amount in more.devices.items()
    )


def candidates(rules: LoadRules, devices: Mapping[Device, int], cost: Cost) -> tuple[Device, ...]:
    """The devices that a load may be put on, of those that there are (each with its limit).

    Raises InvalidArgument for a name, or a kind, of which there is none.
    """
    known = sorted(devices)
    if rules.devices:
        chosen = [d for name in rules.devices for d in known if name in (d.name, d.kind)]
        for name in rules.devices:
            if not any(name in (device.name, device.kind) for device in known):
                there = ", ".join(device.name for device in known) or "no device at all"
                raise InvalidArgument(
                    f"device: {name} was asked for, and there is only {there}; "
                    "`servingd devices` shows what TensorFlow sees"
                )
        return tuple(dict.fromkeys(chosen))
    large_enough = tuple(
        device
        for device in known
        if not device.is_host and (not devices[device] or cost.on_accelerator <= devices[device])
    )
    hosts = tuple(device for device in known if device.is_host)
    return large_enough or hosts or tuple(known)


def plan(
    cost: Cost,
    choice: Sequence[Device],
    replicas: int,
    room: Room,
    keep: Sequence[Device] = (),
) -> tuple[Device, ...] | None:
    """A device for each replica, or None if they do not all fit.

    What was planned before (`keep`) stays where it can: a plan moves nothing without need. Replicas
    share a device only when each that fits has one.
    """
    distinct = replicas == PER_DEVICE
    wanted = list(keep)
    if not room.fits(Resources(cost.shared)):
        return None
    room = room.with_more(Resources(cost.shared))
    chosen: list[Device] = []
    for _ in range(replicas or len(choice)):
        fits = [d for d in choice if room.fits(cost.on(d)) and not (distinct and d in chosen)]
        if not fits:
            return None
        kept = next((device for device in wanted if device in fits), None)
        if kept is not None:
            wanted.remove(kept)
        device = kept or min(fits, key=lambda d: _preference(d, chosen, room, cost))
        room = room.with_more(cost.on(device))
        chosen.append(device)
    return tuple(chosen)


def _preference(
    device: Device, chosen: Sequence[Device], room: Room, cost: Cost
) -> tuple[int, float, int, Device]:
    """The smallest is taken: the emptiest device that has the fewest of these replicas."""
    limit = room.limits.on(device) or (room.limits.ram if device.is_host else 0) or _NO_LIMIT
    after = room.used[-1].on(device) + cost.on(device).on(device)
    others = room.replicas.get(device, 0)
    return chosen.count(device), after / limit, others, device


def choose_replica(outstanding: Sequence[int], turn: int) -> int:
    """The replica with the least outstanding work; of equals each has its turn.

    `turn` is the caller's count of calls: it goes up by one each time.
    """
    count = len(outstanding)
    return min(range(count), key=lambda i: (outstanding[i], (i - turn) % count))


def blames_device(error: ServingError) -> bool:
    """Whether a run failed for its device: that is out of memory, or lost."""
    if error.code is Code.RESOURCE_EXHAUSTED:
        return True
    lost = error.code in (Code.INTERNAL, Code.UNAVAILABLE, Code.UNKNOWN)
    return lost and _LOST.search(error.message) is not None


def is_broken(failures: int) -> bool:
    """Whether a replica has just become one that does not work, by its failures in a row."""
    return failures == FAILURES_IN_A_ROW


@dataclass(frozen=True, slots=True)
class ObservedDevices:
    """Where the operations of a replica were seen to run, when it was warmed."""

    devices: Mapping[str, int]
    """How many operations by device; those alone that feed and fetch are left out."""

    moved: Mapping[str, Mapping[str, int]]
    """Of those that are not where they were planned: how many, by device and type."""

    unseen: tuple[str, ...] = ()
    """Signatures that could not be tried: they keep state, or refuse made-up inputs."""


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica, as operators see it."""

    device: Device
    state: str
    """`serving`, `failing` (the last one: it serves on) or `out` (it gets no calls)."""

    graph: str
    """`plain` or `optimised`."""

    threads: int
    observed: ObservedDevices | None = None
    """None: nobody looked, since there is no other device; or nobody could."""
