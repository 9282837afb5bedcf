"""Read `servingd.yaml`: flags and models in one file; errors name the exact place.

Top-level keys are the flags, without their dashes, and `models`. The keys of a model are one table,
MODEL_FIELDS; the reader, its errors and the reference page are made from it. A new key is a field
of ModelConfig and one row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from servingd.config.flags.parser import FLAGS, TYPES
from servingd.config.models import LOAD_CHECKS, MERGING, ModelConfig, check_unique, is_model_name
from servingd.config.paths import NotLocal, local_path
from servingd.config.request_log import LoggingConfig
from servingd.config.yaml.values import Value, read_yaml
from servingd.core.lifecycle.versions import MAX_VERSION, All, Latest, Specific, VersionPolicy
from servingd.errors import InvalidConfig

NOT_IN_FILE = ("servingd_config_file", "version")
"""Flags that make no sense in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One of `models`: the fields of a ModelConfig that the file sets, by name."""

    name: str
    fields: Mapping[str, Any]
    where: str
    """File, line and field, for errors that are found later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingdYaml:
    """The contents of a file, each value of its flag's type; the flags have been checked."""

    flags: Mapping[str, Any]
    models: tuple[ModelEntry, ...]
    lists_models: bool = False
    """Whether there is a list of models, be it empty: then models may be added while it is used."""


@dataclass(frozen=True, slots=True)
class ModelField:
    """One key of a model: its type, its help, and how it is read."""

    kind: str
    help: str
    read: Callable[[Value], Any]


def read_servingd_yaml(path: str) -> ServingdYaml:
    """Read a file. Raises NotFound, or InvalidConfig naming file, line and field."""
    document = read_yaml(path)
    if document is None or document.is_null():
        return ServingdYaml(flags=MappingProxyType({}), models=())
    known = [*(name for name in FLAGS if name not in NOT_IN_FILE), "models"]
    entries = document.entries(known)
    models = entries.pop("models", None)
    return ServingdYaml(
        flags=MappingProxyType({name: _flag(name, value) for name, value in entries.items()}),
        models=_models(models) if models is not None and not models.is_null() else (),
        lists_models=models is not None,
    )


def merge_models(
    listed: tuple[ModelConfig, ...],
    entries: Iterable[ModelEntry],
    *,
    others_may_come: bool = False,
) -> tuple[ModelConfig, ...]:
    """Return the models of other sources, merged with those of the file.

    An entry without a base_path adds its fields to the listed model of its name, and overrides that
    model's own; with `others_may_come` (a watched repository) the model need not exist yet.
    An entry with a base_path is a model of its own. Raises InvalidConfig.
    """
    models = {model.name: model for model in listed}
    check_unique(listed)
    for entry in entries:
        model = models.get(entry.name)
        if "base_path" in entry.fields:
            if model is not None:
                raise InvalidConfig(
                    f"{entry.where}: base_path: model {entry.name!r} has one already, "
                    f"{model.base_path!r}; leave it out here or there"
                )
            models[entry.name] = _made(entry, lambda **f: ModelConfig(**{"platform": ""} | f))
        elif model is not None:
            models[entry.name] = _made(entry, _replacer(model))
        elif not others_may_come:
            raise InvalidConfig(
                f"{entry.where}: base_path: model {entry.name!r} is in no other source, so it "
                "needs one"
            )
    return tuple(models.values())


def _replacer(model: ModelConfig) -> Callable[..., ModelConfig]:
    return lambda **fields: dataclasses.replace(model, **fields)


def _made(entry: ModelEntry, make: Callable[..., ModelConfig]) -> ModelConfig:
    try:
        return make(**({"name": entry.name} | dict(entry.fields)))
    except InvalidConfig as error:
        raise InvalidConfig(f"{entry.where}: {error.message}") from error


def _flag(name: str, value: Value) -> Any:
    read = value.scalar(TYPES[name])
    check = FLAGS[name].metadata["check"]
    expected = check(read) if check else None
    if expected is not None:
        raise value.error(expected)
    return read


def _models(value: Value) -> tuple[ModelEntry, ...]:
    models: dict[str, ModelEntry] = {}
    for item in value.items():
        entry = _model(item)
        if entry.name in models:
            raise InvalidConfig(
                f"{item.where}.name: {entry.name!r} stands twice; first at "
                f"{models[entry.name].where}"
            )
        models[entry.name] = entry
    return tuple(models.values())


def _model(item: Value) -> ModelEntry:
    entries = item.entries(MODEL_FIELDS)
    fields = {name: MODEL_FIELDS[name].read(value) for name, value in entries.items()}
    if "name" not in fields:
        raise item.error("a name")
    if (expected := is_model_name(fields["name"])) is not None:
        raise entries["name"].error(expected)
    return ModelEntry(name=fields.pop("name"), fields=MappingProxyType(fields), where=item.where)


def _text(value: Value) -> str:
    text: str = value.scalar(str)
    if not text:
        raise value.error("a text that is not empty")
    return text


def _absolute(value: Value) -> str:
    try:
        path = local_path(_text(value))
    except NotLocal as error:
        raise value.error(str(error)) from None
    if not path.startswith("/"):
        raise value.error("an absolute path")
    return path


def _version(value: Value) -> int:
    version: int = value.scalar(int)
    if not 0 <= version <= MAX_VERSION:
        raise value.error(f"a version between 0 and {MAX_VERSION}")
    return version


def _version_policy(value: Value) -> VersionPolicy:
    expected = "`all`, `latest: N` or `specific: [N, ...]`"
    if value.node.value == "all":
        return All()
    if isinstance(value.node.value, str):
        raise value.error(expected)
    entries = value.entries(("latest", "specific"))
    if len(entries) != 1:
        raise value.error(f"one of {expected}")
    if "specific" in entries:
        return Specific(tuple(_version(item) for item in entries["specific"].items()))
    latest = entries["latest"]
    number: int = latest.scalar(int)
    if not 1 <= number < 2**32:
        raise latest.error("a number of versions, at least 1")
    return Latest(number)


def _version_labels(value: Value) -> Mapping[str, int]:
    return {label: _version(version) for label, version in value.entries().items()}


def _logging(value: Value) -> LoggingConfig:
    readers: Mapping[str, Callable[[Value], Any]] = {
        "type": _text,
        "filename_prefix": _text,
        "sampling_rate": _rate,
    }
    entries = value.entries(readers)
    fields = {name: readers[name](part) for name, part in entries.items()}
    try:
        return LoggingConfig(**fields)
    except InvalidConfig as error:
        raise InvalidConfig(f"{value.where}: {error.message}") from error


def _mapping(value: Value) -> Mapping[str, Any]:
    value.entries()
    options: Mapping[str, Any] = value.plain()
    return options


def _at_least_zero(value: Value) -> float:
    number: float = value.scalar(float)
    if number < 0:
        raise value.error("a number of at least 0")
    return number


def _merging(value: Value) -> str:
    text = _text(value)
    if text not in MERGING:
        raise value.error(f"one of {', '.join(MERGING)}")
    return text


def _load_field(name: str) -> Callable[[Value], str]:
    """Return a reader of one of LOAD_CHECKS; a whole number is read as text."""

    def read(value: Value) -> str:
        is_number = value.node.tag == "tag:yaml.org,2002:int"
        text = str(value.scalar(int)) if is_number else _text(value)
        expected = LOAD_CHECKS[name](text)
        if expected is not None:
            raise value.error(expected)
        return text

    return read


def _rate(value: Value) -> float:
    rate: float = value.scalar(float)
    if not 0 <= rate <= 1:
        raise value.error("a number from 0 to 1")
    return rate


MODEL_FIELDS: Mapping[str, ModelField] = MappingProxyType(
    {
        "name": ModelField("text", "what callers ask for; unique", _text),
        "base_path": ModelField(
            "absolute path",
            "the folder whose numeric children are the versions; left out, the entry adds to the "
            "model of this name in another source",
            _absolute,
        ),
        "platform": ModelField(
            "text", "the servable type; left out: told by the contents of the versions", _text
        ),
        "platform_options": ModelField(
            "mapping", "what the servable type lets each model choose", _mapping
        ),
        "version_policy": ModelField(
            "`all`, `latest: N` or `specific: [N, ...]`",
            "which versions are loaded; left out: `latest: 1`",
            _version_policy,
        ),
        "version_labels": ModelField(
            "mapping of text to version", "names for versions", _version_labels
        ),
        "logging": ModelField(
            "mapping with `type`, `filename_prefix`, `sampling_rate`",
            "which requests are logged (`sampling_rate`: from 0, none, to 1, all), and where to",
            _logging,
        ),
        "latency_goal_ms": ModelField(
            "number",
            "what its calls ought to take at most: batches are made, and held, accordingly",
            _at_least_zero,
        ),
        "merging": ModelField(
            "`auto`, `always` or `never`",
            "whether calls that wait together run together: where it is proven to be right, "
            "because you know that it is, or not at all",
            _merging,
        ),
        "device": ModelField(
            "`auto`, `CPU`, `GPU`, or names such as `GPU:1` with commas",
            "where it is loaded; `auto`: on an accelerator that is large enough, else on a CPU, "
            "and there on the one that is emptiest",
            _load_field("device"),
        ),
        "replicas": ModelField(
            "number or `per_device`",
            "how many copies of a version answer calls; `per_device`: one on each device that "
            "`device` allows",
            _load_field("replicas"),
        ),
        "transition": ModelField(
            "`auto`, `availability_preserving` or `resource_preserving`",
            "whether a new version is loaded beside the old one or after it has gone; `auto`: "
            "beside it, unless they do not both fit into memory",
            _load_field("transition"),
        ),
    }
)
"""The keys of a model; each but `name` is a field of ModelConfig."""
