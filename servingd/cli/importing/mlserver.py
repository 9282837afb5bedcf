"""Models of MLServer: folders with `model-settings.json`, and perhaps a `settings.json` above."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servingd.cli.importing.imported import Imported, ImportedModel
from servingd.errors import InvalidArgument, NotFound

_MODEL, _SERVER = "model-settings.json", "settings.json"
_SKLEARN = "mlserver_sklearn.SKLearnModel"
_USUAL = ("model.joblib", "model.pickle", "model.pkl")
_PORTS = {"http_port": "rest_api_port", "grpc_port": "port"}
_KNOWN = {"name", "implementation", "parameters", "inputs", "outputs", "platform", "versions"}
_NOTES: Mapping[str, str] = {
    "max_batch_size": "calls that wait run together where that is proven right",
    "max_batch_time": "a delay for batches is latency_goal_ms",
    "parallel_workers": "processes are the server's: --workers",
    "warm_workers": "processes are the server's: --workers",
}


def read_mlserver(folder: Path) -> Imported:
    """Read a folder and those in it. Raises NotFound or InvalidArgument naming a file."""
    imported = Imported()
    files = sorted(folder.rglob(_MODEL)) if folder.is_dir() else []
    if not files:
        raise NotFound(f"{folder} has no {_MODEL}, and none is below it")
    server = folder / _SERVER
    if server.exists():
        _read_server(_object(server), imported)
    for file in files:
        _read_model(file, imported)
    return imported


def _read_server(settings: Mapping[str, Any], imported: Imported) -> None:
    for name, value in settings.items():
        if name in _PORTS:
            imported.flags[_PORTS[name]] = value
        else:
            imported.note(f"settings.json: {name}: {_NOTES.get(name, 'not taken over')}")


def _read_model(file: Path, imported: Imported) -> None:
    settings = _object(file)
    name = _text(file, settings, "name") or os.path.basename(os.path.abspath(file.parent))
    if not imported.takes(name):
        return
    implementation = _text(file, settings, "implementation")
    for key in settings:
        if key not in _KNOWN:
            imported.note(f"{name}: {key}: {_NOTES.get(key, 'has no counterpart')}")
    if implementation != _SKLEARN:
        what = implementation or "without an implementation"
        imported.note(
            f"{name} is left out: {what} is not served here; a servable in Python could be"
        )
        return
    parameters = settings.get("parameters")
    if parameters is None:  # as MLServer takes null
        parameters = {}
    if not isinstance(parameters, dict):
        raise InvalidArgument(f"{file}: parameters: expected an object, got {parameters!r}")
    artefact = _artefact(file, _text(file, parameters, "uri", "parameters."))
    version = str(parameters.get("version", "1")).removeprefix("v")
    if not version.isdigit():
        imported.note(f"{name}: version {version} is no number: it becomes version 1")
        version = "1"
    imported.note(
        f"{name} is a pickle, which runs code when it is loaded: --allow_python_models lets it"
    )
    imported.models.append(
        ImportedModel(
            name,
            {"platform": "sklearn", "platform_options": {"allow_pickle": True}},
            {f"{version}/model.joblib": artefact},
        )
    )
    imported.flags["allow_python_models"] = True


def _artefact(file: Path, uri: str) -> Path:
    """Return the estimator's file. Raises InvalidArgument where there is none."""
    place = file.parent / uri.removeprefix("file://")
    candidates = [place] if place.is_file() else [place / name for name in _USUAL]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InvalidArgument(f"{file}: parameters.uri: there is no file {uri or _USUAL[0]}")


def _text(file: Path, settings: Mapping[str, Any], field: str, within: str = "") -> str:
    """Return a field's text; empty where there is none. Raises InvalidArgument naming the field."""
    value = settings.get(field, "")
    if not isinstance(value, str):
        raise InvalidArgument(f"{file}: {within}{field}: expected a text, got {value!r}")
    return value


def _object(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InvalidArgument(f"{file}: expected JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidArgument(f"{file}: expected an object")
    return content
