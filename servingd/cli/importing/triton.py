"""A model repository of Triton: `MODEL/config.pbtxt` and `MODEL/VERSION/model.savedmodel`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from servingd.cli.importing.imported import Imported, ImportedModel, versions_below
from servingd.errors import InvalidArgument, NotFound
from servingd.wire import protos

if TYPE_CHECKING:
    from servingd.wire.protos import TritonModel

_CONFIG = "config.pbtxt"
_KINDS = {
    "tensorflow_savedmodel": ("tensorflow", "model.savedmodel"),
    "onnxruntime_onnx": ("onnx", "model.onnx"),
}
"""By platform: the servable type, and what each version holds."""
_BACKENDS = {"tensorflow": "tensorflow_savedmodel", "onnxruntime": "onnxruntime_onnx"}

_QUOTED_OR_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*')

_NOTES: Mapping[str, str] = {
    "dynamic_batching": "calls that wait run together where that is proven right; a delay is "
    "latency_goal_ms",
    "sequence_batching": "sequences with state are not served",
    "ensemble_scheduling": "wire models by platform: composite",
    "model_warmup": "write requests by `servingd warmup make`",
    "optimization": "graphs are optimised by themselves; --optimize_models=off",
    "response_cache": "there is no cache of answers",
    "rate_limiter": "queues are limited by --max_queue_mb and deadlines",
    "parameters": "parameters of backends have no meaning here",
    "model_transaction_policy": "streams are told by the model's signatures",
    "model_operations": "libraries of operations are named by --op_libraries",
}
_KNOWN = {
    *("name", "platform", "backend", "max_batch_size", "version_policy", "instance_group"),
    *("input", "output", "default_model_filename"),
}


def read_triton(folder: Path) -> Imported:
    """Read a repository. Raises NotFound where there is none, InvalidArgument naming a file."""
    imported = Imported()
    found = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    models = [each for each in found if (each / _CONFIG).exists() or versions_below(each)]
    if not models:
        raise NotFound(f"{folder} has no folder with {_CONFIG}, nor with versions")
    for each in models:
        _read_model(each, imported)
    return imported


def _read_model(folder: Path, imported: Imported) -> None:
    file = folder / _CONFIG
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{file}: expected a text in UTF-8: {error}") from None
    config: TritonModel = protos.TritonModel()
    fields = _fields(text)
    read = "".join(part for name, part in fields if name in config.DESCRIPTOR.fields_by_name)
    try:
        text_format.Parse(read, config, allow_unknown_field=True, descriptor_pool=protos.POOL)
    except text_format.ParseError as error:
        raise InvalidArgument(f"{file}: {error}") from None
    name = config.name or folder.name
    if not imported.takes(name):
        return
    versions = versions_below(folder)
    platform = _platform(config, versions)
    for field in dict.fromkeys(name for name, _ in fields):
        if field not in _KNOWN:
            note = _NOTES.get(field, "has no counterpart")
            imported.note(f"{name}: {field}: {note}")
    if platform not in _KINDS:
        what = platform or config.backend or "its type is not told"
        imported.note(f"{name} is left out: {what} is not served here")
        return
    kind, content = _KINDS[platform]
    links = {}
    for version in versions:
        if (version / content).is_dir():
            links[version.name] = version / content
        elif (version / content).exists():
            links[f"{version.name}/{content}"] = version / content
        else:
            imported.note(f"{name}: version {version.name} has no {content}")
    imported.models.append(ImportedModel(name, _settings(config, kind), links))


def _platform(config: TritonModel, versions: Any) -> str:
    """Return the platform: as configured, or told by the files, as Triton tells it."""
    if config.platform or config.backend:
        return config.platform or _BACKENDS.get(config.backend, config.backend)
    for platform, (_, content) in _KINDS.items():
        if any((version / content).exists() for version in versions):
            return platform
    return ""


def _settings(config: TritonModel, kind: str) -> Mapping[str, Any]:
    settings: dict[str, Any] = {"platform": kind}
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            settings["version_policy"] = "all"
        case "latest":
            settings["version_policy"] = {"latest": policy.latest.num_versions or 1}
        case "specific":
            settings["version_policy"] = {"specific": list(policy.specific.versions)}
    if kind == "tensorflow":  # other types run on the host
        settings.update(_placement(config))
    return settings


def _placement(config: TritonModel) -> Mapping[str, Any]:
    """Return device and replicas: those of all instance groups together."""
    groups = list(config.instance_group)
    if not groups:
        return {}
    kinds = protos.TritonInstanceGroup
    devices = [
        name
        for group in groups
        for name in (
            [f"GPU:{gpu}" for gpu in group.gpus]
            or (["GPU"] if group.kind == kinds.KIND_GPU else [])
            or (["CPU"] if group.kind == kinds.KIND_CPU else [])
        )
    ]
    count = sum((group.count or 1) * max(1, len(group.gpus)) for group in groups)
    placed: dict[str, Any] = {"replicas": count} if count > 1 else {}
    return {**({"device": ",".join(dict.fromkeys(devices))} if devices else {}), **placed}


def _fields(text: str) -> list[tuple[str, str]]:
    """Return the outermost fields of a message in text format: names, and their whole text."""
    blank = _QUOTED_OR_COMMENT.sub(lambda found: " " * len(found.group()), text)
    starts, depth = [], 0
    for token in re.finditer(r"[A-Za-z_]\w*(?=\s*[:{\[])|[{}\[\]]", blank):
        word = token.group()
        if word in "{[":
            depth += 1
        elif word in "}]":
            depth -= 1
        elif depth == 0:
            starts.append((word, token.start()))
    ends = [start for _, start in starts[1:]] + [len(text)] * bool(starts)
    return [(name, text[at:end]) for (name, at), end in zip(starts, ends, strict=True)]
