"""The file of a sharded servable, `shards.yaml`: which input splits rows, and who has which shard.

    key: keys
    by: hash                       # or `range: [100, 200]`, one bound fewer than shards
    on_failure: fail               # or `defaults`: zeros or empty texts, and false in `answered`
    shards:
    - [{model: embeddings_0}, {model: embeddings_0, server: "other:8500"}]
    - [{model: embeddings_1}]
    ...

Each shard is a list of replicas: models of this server, or of another one that speaks TensorFlow
Serving's API. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from servingd.config.yaml.values import Value, parse_yaml
from servingd.core.types import ModelSpec
from servingd.errors import InvalidConfig
from servingd.servables.assembled.splitting import Bounds

FILE = "shards.yaml"
_ON_FAILURE = ("fail", "defaults")
_MAX_SHARDS = 1024


@dataclass(frozen=True, slots=True)
class Replica:
    """One model that has a shard."""

    spec: ModelSpec
    server: str = ""
    """HOST:PORT of another server; empty: this one."""

    def __str__(self) -> str:
        return f"model {self.spec.name}" + (f" at {self.server}" if self.server else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A whole file."""

    key: str
    """The input by whose values rows are split."""
    shards: tuple[tuple[Replica, ...], ...]
    bounds: Bounds | None = None
    """The bounds of the ranges; None: keys are split by hash."""
    fails: bool = True
    """Whether a call fails with its first shard; else the rows get defaults and are marked."""


def parse(content: bytes) -> Layout:
    """Return the layout in a file. Raises InvalidConfig naming the line and the field."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{FILE} is not UTF-8: {error}") from error
    if not text.endswith("\n...\n"):
        raise InvalidConfig(f"{FILE} does not end with a line of three dots")
    document = parse_yaml(text, FILE)
    if document is None:
        raise InvalidConfig(f"{FILE}: expected a key and shards, got nothing")
    entries = document.entries(("key", "by", "range", "on_failure", "shards"))
    for name in ("key", "shards"):
        if name not in entries:
            raise document.error(f"an entry `{name}`")
    shards = tuple(_shard(item) for item in entries["shards"].items())
    if not 1 <= len(shards) <= _MAX_SHARDS:
        raise entries["shards"].error(f"1 to {_MAX_SHARDS} shards")
    return Layout(
        key=entries["key"].scalar(str),
        shards=shards,
        bounds=_bounds(document, entries, len(shards)),
        fails=_one_of(entries.get("on_failure"), _ON_FAILURE) == "fail",
    )


def _one_of(value: Value | None, choices: tuple[str, ...]) -> str:
    if value is None:
        return choices[0]
    text: str = value.scalar(str)
    if text not in choices:
        raise value.error(f"one of {', '.join(choices)}")
    return text


def _bounds(document: Value, entries: dict[str, Value], count: int) -> Bounds | None:
    if ("by" in entries) == ("range" in entries):
        raise document.error("`by: hash` or `range: [...]`")
    if "by" in entries:
        _one_of(entries["by"], ("hash",))
        return None
    value = entries["range"]
    given = [item.plain() for item in value.items()]
    bounds = [each.encode() if isinstance(each, str) else each for each in given]
    same = len({type(each) for each in bounds}) <= 1
    if not same or not all(isinstance(each, (int, bytes)) for each in bounds):
        raise value.error("whole numbers, or texts")
    if bounds != sorted(set(bounds)) or len(bounds) != count - 1:
        raise value.error(f"{count - 1} bounds that ascend, one fewer than shards")
    return bounds


def _shard(value: Value) -> tuple[Replica, ...]:
    replicas = tuple(_replica(item) for item in value.items())
    if not replicas:
        raise value.error("at least one replica")
    return replicas


def _replica(value: Value) -> Replica:
    entries = value.entries(("model", "version", "label", "signature", "server"))
    if "model" not in entries:
        raise value.error("a model")
    if "version" in entries and "label" in entries:
        raise value.error("a version or a label, not both")
    server = entries["server"].scalar(str) if "server" in entries else ""
    if server and not server.rpartition(":")[2].isdigit():
        raise entries["server"].error("HOST:PORT")
    return Replica(
        ModelSpec(
            entries["model"].scalar(str),
            entries["version"].scalar(int) if "version" in entries else None,
            entries["label"].scalar(str) if "label" in entries else None,
            entries["signature"].scalar(str) if "signature" in entries else "serving_default",
        ),
        server,
    )
