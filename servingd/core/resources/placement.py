"""Choose the devices of a load and the replica of a call, and decide when a device has failed.

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
"""The number of replicas that means one on each device that may be chosen."""

TRANSITIONS = ("auto", "availability_preserving", "resource_preserving")

DEVICES_EXPECTED = "auto, CPU, GPU, or names such as GPU:1 with commas"
REPLICAS_EXPECTED = "a whole number from 1 to 256, or per_device"

_DEVICE = re.compile(r"(CPU|GPU)(:\d{1,4})?")
_REPLICAS = re.compile(r"\d{1,3}")
_MAX_REPLICAS = 256

FAILURES_IN_A_ROW = 3
"""The failures of its device, with no success in between, after which a replica is broken."""

_LOST = re.compile(
    r"device (is )?lost|cuda_error|cuda error|cudnn_status|cublas_status|gpu sync failed"
    r"|failed to (launch|enqueue|synchronize|query|sync)|illegal (memory access|address)"
    r"|fallen off the bus|stream in (a )?bad state|ecc error",
    re.IGNORECASE,
)
"""What TensorFlow and the driver say when a device does not work any more."""

_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class LoadRules:
    """An operator's settings for where a model is placed and how a new version replaces the old."""

    devices: tuple[str, ...] = ()
    """Names, or kinds that mean all of their devices; empty: `auto`."""

    replicas: int = 1
    """The number of replicas, or PER_DEVICE."""

    transition: str = ""
    """One of TRANSITIONS; empty: the manager's own policy."""


def parse_devices(text: str) -> tuple[str, ...]:
    """Return the names and kinds in `auto`, `GPU` or `CPU:0,GPU:1`. Raises InvalidArgument."""
    if text == AUTO:
        return ()
    names = [name.strip().upper() for name in text.split(",")]
    if not all(_DEVICE.fullmatch(name) for name in names):
        raise InvalidArgument(f"device: expected {DEVICES_EXPECTED}, got {text!r}")
    return tuple(dict.fromkeys(names))


def parse_replicas(text: str) -> int:
    """Return the number in `1`, `N` or `per_device`. Raises InvalidArgument."""
    if text == "per_device":
        return PER_DEVICE
    if not _REPLICAS.fullmatch(text) or not 1 <= int(text) <= _MAX_REPLICAS:
        raise InvalidArgument(f"replicas: expected {REPLICAS_EXPECTED}, got {text!r}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of one version: of the host's memory, once, and of each replica on its device."""

    shared: int = 0
    on_host: int = 0
    on_accelerator: int = 0

    def on(self, device: Device) -> Resources:
        """Return what one replica takes on a device."""
        if device.is_host:
            return Resources(self.on_host, {device: self.on_host})
        return Resources(0, {device: self.on_accelerator})

    def total(self, devices: Sequence[Device]) -> Resources:
        """Return what a version takes with replicas on these devices; if empty, one on the host."""
        if not devices:
            return Resources(self.shared + self.on_host)
        whole = Resources(self.shared)
        for device in devices:
            whole = whole + self.on(device)
        return whole

    def at_least(self, least: Cost) -> Cost:
        """Return the larger value of each part."""
        return Cost(
            max(self.shared, least.shared),
            max(self.on_host, least.on_host),
            max(self.on_accelerator, least.on_accelerator),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that a plan may use. A limit of 0 means no limit."""

    limits: Resources
    used: tuple[Resources, ...]
    """What is in use now, and later; a load must fit at each of these moments."""

    replicas: Mapping[Device, int]
    """The number of replicas on each device."""

    def fits(self, more: Resources) -> bool:
        """Return whether there is room for more. Only the amounts that would grow are checked."""
        return all(_fits(used, more, self.limits) for used in self.used)

    def with_more(self, more: Resources) -> Room:
        """Return the room that is left when more is in use."""
        return Room(self.limits, tuple(used + more for used in self.used), self.replicas)


def _fits(used: Resources, more: Resources, limits: Resources) -> bool:
    if more.ram and limits.ram and used.ram + more.ram > limits.ram:
        return False
    return all(
        not amount or not limits.on(device) or used.on(device) + amount <= limits.on(device)
        for device, amount in more.devices.items()
    )


def candidates(rules: LoadRules, devices: Mapping[Device, int], cost: Cost) -> tuple[Device, ...]:
    """Return the devices that a load may be put on.

    `devices` are those that exist, each with its limit in bytes.
    Raises InvalidArgument if a name or kind in the rules matches none of them.
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
    """Return a device for each replica; None if they do not all fit.

    An earlier plan (`keep`) is kept where it can be: a plan moves nothing without need. Replicas
    share a device only when each device that fits has one; with PER_DEVICE they never do.
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
    """Return a sort key; the smallest wins: fewest of these replicas, then the emptiest device."""
    limit = room.limits.on(device) or (room.limits.ram if device.is_host else 0) or _NO_LIMIT
    after = room.used[-1].on(device) + cost.on(device).on(device)
    others = room.replicas.get(device, 0)
    return chosen.count(device), after / limit, others, device


def choose_replica(outstanding: Sequence[int], turn: int) -> int:
    """Return the index of the replica with the fewest outstanding calls; equals take turns.

    `turn` is the caller's count of calls: it goes up by one each time.
    """
    count = len(outstanding)
    return min(range(count), key=lambda i: (outstanding[i], (i - turn) % count))


def blames_device(error: ServingError) -> bool:
    """Return whether a run failed because of its device: out of memory, or lost."""
    if error.code is Code.RESOURCE_EXHAUSTED:
        return True
    lost = error.code in (Code.INTERNAL, Code.UNAVAILABLE, Code.UNKNOWN)
    return lost and _LOST.search(error.message) is not None


def is_broken(failures: int) -> bool:
    """Return whether a replica has just become broken, by its failures in a row."""
    return failures == FAILURES_IN_A_ROW


@dataclass(frozen=True, slots=True)
class ObservedDevices:
    """Where the operations of a replica ran during warm-up."""

    devices: Mapping[str, int]
    """The number of operations on each device; those that only feed and fetch are left out."""

    moved: Mapping[str, Mapping[str, int]]
    """The number of operations that ran elsewhere than planned, by device and type."""

    unseen: tuple[str, ...] = ()
    """Signatures that were not traced: they keep state, or refuse synthetic inputs."""


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
    """None: it was not traced, since there is no other device, or it could not be."""
