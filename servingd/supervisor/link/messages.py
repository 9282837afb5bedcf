"""What supervisor and workers tell each other: plain data in msgpack, each message by its name.

The first message of either side has the version of this wire. Never pickle: a worker runs models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import msgspec

from servingd.config.models import ModelConfig
from servingd.config.request_log import LoggingConfig
from servingd.config.server import ServerConfig
from servingd.core.lifecycle import events
from servingd.core.lifecycle.states import ServableState
from servingd.core.lifecycle.versions import All, Latest, Specific, VersionPolicy
from servingd.core.resources.placement import ReplicaReport
from servingd.core.types import Device, ServableId
from servingd.errors import Code, ServingError, error_from_code

WIRE_VERSION = 1
"""To be raised with every change of a message: workers may come from newer code."""

# From the supervisor ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configuration:
    """The first message to a worker."""

    wire: int
    config: ServerConfig
    number: int
    workers: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of all models that ought to be served; see `pack_models`."""

    models: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class LabelsAre:
    """The version of each label, by model."""

    labels: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Expect:
    """Which models there are, for calls that are held for the first ones."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Calls that are held for a model go on."""

    name: str


@dataclass(frozen=True, slots=True)
class Announced:
    """A version's public state."""

    state: ServableState


@dataclass(frozen=True, slots=True)
class IncompleteAre:
    """A model's incomplete versions, each with the reason."""

    name: str
    incomplete: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class AbsentBecause:
    """Why a model has no version that can be loaded; empty: it may have one."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConfiguredAre:
    """The models that should be served."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What readiness depends on besides the states."""

    models_known: bool
    listed: tuple[str, ...]
    started: bool
    stopping: bool


@dataclass(frozen=True, slots=True)
class Preload:
    """There are SavedModels: import TensorFlow, before the first load asks for it."""


@dataclass(frozen=True, slots=True)
class OpenPorts:
    """The worker serves what is published: it opens its ports."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Take no new connections, send clients elsewhere, answer what is in flight, and end."""

    within_s: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Refuse new calls and answer those in flight; answered by `Idle`."""

    within_s: float


@dataclass(frozen=True, slots=True)
class EndRuns:
    """End the optimiser and every run of a model."""


@dataclass(frozen=True, slots=True)
class Exit:
    """Close the ports and end."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A heartbeat; answered by `Pong`."""


# From a worker ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a worker: it can be commanded."""

    wire: int


@dataclass(frozen=True, slots=True)
class Published:
    """A version can be called in this worker."""

    id: ServableId


@dataclass(frozen=True, slots=True)
class PortsOpen:
    """The worker takes connections."""


@dataclass(frozen=True, slots=True)
class Idle:
    """No call is in flight any more, or the time for it is over."""


@dataclass(frozen=True, slots=True)
class LastMetrics:
    """The metrics of a worker that ends."""

    snapshot: bytes


@dataclass(frozen=True, slots=True)
class PlacementsAre:
    """The answer to `placements`: where a worker's replicas lie, and what devices there are."""

    replicas: tuple[tuple[ServableId, tuple[ReplicaReport, ...]], ...]
    known: Mapping[Device, str]
    in_use: Mapping[Device, int]


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a heartbeat."""

    resident: int
    """Bytes of memory that are the process's own or shared."""


# From either --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """A question; answered by an `Answer` with the same number."""

    number: int
    what: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question, or the error."""

    number: int
    body: bytes = b""
    error: ServingError | None = None


_COMMANDS = (
    events.StartEstimate,
    events.StartLoad,
    events.CancelLoad,
    events.LetGrow,
    events.Relocate,
    events.Publish,
    events.Quiesce,
    events.StartUnload,
    events.Discard,
)
_EVENTS = (
    events.Estimated,
    events.LoadSucceeded,
    events.LoadFailed,
    events.LoadOverdue,
    events.PublishFailed,
    events.Drained,
    events.Unloaded,
    events.Grown,
    events.ReplicaFailed,
    events.Relocated,
)
_OWN = (
    Configuration, Settings, LabelsAre, Expect, Settle, Announced, IncompleteAre, AbsentBecause,
    ConfiguredAre, Facts, Preload, OpenPorts, Leave, Drain, EndRuns, Exit, Ping, Hello, Published,
    PortsOpen, Idle, LastMetrics, PlacementsAre, Pong, Ask, Answer,
)  # fmt: skip

COMMANDS = frozenset(_COMMANDS)
EVENTS = frozenset(_EVENTS)
_TYPES: Mapping[str, type] = {kind.__name__: kind for kind in (*_COMMANDS, *_EVENTS, *_OWN)}


def encode(message: object) -> bytes:
    """Return a message as bytes."""
    named = [type(message).__name__, message]
    try:
        return msgspec.msgpack.encode(named, enc_hook=_plain)
    except UnicodeEncodeError:  # a file's name, in an error: it must not stop the others
        plain = msgspec.to_builtins(named, enc_hook=_plain, str_keys=False, builtin_types=(bytes,))
        return msgspec.msgpack.encode(_readable(plain))


def _readable(value: Any) -> Any:
    """Return plain data with escapes in the place of what is not Unicode."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_readable(key): _readable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(each) for each in value]
    return value


def decode(data: bytes) -> Any:
    """Return the message. Raises ValueError for bytes that are none."""
    name, body = msgspec.msgpack.decode(data, type=tuple[str, msgspec.Raw])
    if name not in _TYPES:
        raise ValueError(f"expected a message of supervisor or worker, got {name!r}")
    return msgspec.msgpack.decode(body, type=_TYPES[name], dec_hook=_custom)


def pack(content: Any) -> bytes:
    """Return plain data as the body of a question or an answer."""
    return msgspec.msgpack.encode(content, enc_hook=_plain)


def unpack(body: bytes) -> Any:
    """Return the plain data of a body."""
    return msgspec.msgpack.decode(body)


def pack_models(models: tuple[ModelConfig, ...]) -> tuple[dict[str, Any], ...]:
    """Return the settings of models as plain data."""
    return tuple(_pack_model(model) for model in models)


def unpack_models(models: Any) -> tuple[ModelConfig, ...]:
    """Return the settings of models."""
    return tuple(_unpack_model(model) for model in models)


def _pack_model(model: ModelConfig) -> dict[str, Any]:
    packed = {field.name: getattr(model, field.name) for field in fields(model)}
    packed["version_policy"] = [type(model.version_policy).__name__, _of(model.version_policy)]
    return packed


def _of(policy: VersionPolicy) -> Any:
    match policy:
        case Latest(number):
            return number
        case Specific(versions):
            return versions
    return None


def _unpack_model(packed: Mapping[str, Any]) -> ModelConfig:
    kind, of = packed["version_policy"]
    policy: VersionPolicy = All()
    if kind == Latest.__name__:
        policy = Latest(of)
    elif kind == Specific.__name__:
        policy = Specific(tuple(of))
    logging = packed["logging"]
    return ModelConfig(
        **{
            **packed,
            "version_policy": policy,
            "logging": logging and msgspec.convert(logging, LoggingConfig),
        }
    )


def _plain(value: Any) -> Any:
    """Return what msgspec does not know as something that it knows."""
    if isinstance(value, ServingError):
        return [int(value.code), value.message]
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _custom(kind: type, value: Any) -> Any:
    if issubclass(kind, ServingError):
        code, message = value
        return error_from_code(Code(code), message)
    raise TypeError(f"a {kind.__name__} cannot be received")
