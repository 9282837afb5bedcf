"""The status of models and devices as JSON: the pages under `/servingd/v1/`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote

import orjson

from servingd import __version__
from servingd.config.models import ModelConfig
from servingd.core.call_protocols import States
from servingd.core.types import ServableId
from servingd.errors import Code, NotFound, ServingError
from servingd.frontends.admin.device_page import describe_devices, describe_placement
from servingd.frontends.status_codes import HTTP
from servingd.inference.status import versions_of
from servingd.observability.placements import Placements

_JSON = "application/json"

Answer: TypeAlias = tuple[int, bytes, str]
"""Status, body, content type."""


class ModelsToDescribe(Protocol):
    """The models of a server; see `servingd.control.Control`."""

    @property
    def states(self) -> States:
        """The public states of all versions."""
        ...

    @property
    def models(self) -> Mapping[str, ModelConfig]:
        """The models that ought to be served, by name."""
        ...


class StatusPages:
    """Describes what there is. From any thread; a page of many models takes a while."""

    def __init__(
        self,
        control: ModelsToDescribe,
        describe: Callable[[], Mapping[str, Any]],
        explain: Callable[[str], Mapping[int, Sequence[Mapping[str, Any]]]],
        placements: Placements,
    ) -> None:
        """`describe` returns what each page begins with: the server and its processes.

        `explain` returns the figures of a model's queues, by version.
        """
        self._states = control.states
        self._control = control
        self._describe = describe
        self._explain = explain
        self._placements = placements
        self._routes: Sequence[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (re.compile(pattern), answer)
            for pattern, answer in (
                ("/servingd/v1/devices", self._devices),
                ("/servingd/v1/models", self._models),
                ("/servingd/v1/models/(?P<name>[^/]+)", self._model),
                ("/servingd/v1/workers", lambda: _json(self._describe())),
            )
        ]

    def page(self, path: str) -> Answer | None:
        """Return the page at a path; None if there is none."""
        for pattern, answer in self._routes:
            match = pattern.fullmatch(path)
            if match:
                try:
                    return answer(**{k: unquote(v) for k, v in match.groupdict().items()})
                except ServingError as error:
                    return error_page(HTTP[error.code], error.message)
        return None

    def _devices(self) -> Answer:
        return _json({**self._describe(), **describe_devices(self._placements)})

    def _models(self) -> Answer:
        return _json(
            {**self._describe(), "models": [self._describe_model(n) for n in self._states.names()]}
        )

    def _model(self, name: str) -> Answer:
        """Describe one model with its queues and placements. Raises NotFound."""
        if name not in self._states.names():
            raise NotFound(f"Could not find any versions of model {name}")
        queues = self._explain(name)
        model = self._describe_model(name)
        for version in model["versions"]:
            version["queues"] = queues.get(version["version"], [])
            servable = ServableId(name, version["version"])
            version["placement"] = describe_placement(self._placements, servable)
        return _json({**self._describe(), **model})

    def _describe_model(self, name: str) -> Mapping[str, Any]:
        incomplete = self._states.incomplete(name)
        model = self._control.models.get(name)
        return {
            "name": name,
            "base_path": model and model.base_path,
            "labels": dict(model.version_labels) if model else {},
            "error": self._states.absent(name) or None,
            "versions": [
                {
                    "version": status.version,
                    "state": status.state.name,
                    "incomplete": incomplete.get(status.version),
                    "error": None
                    if status.code is Code.OK
                    else {"code": status.code.name, "message": status.message},
                }
                for status in versions_of(self._states, name)
            ],
        }


def describe_server(process: int) -> Mapping[str, Any]:
    """Return the server's name and version, and the process that answers."""
    return {"server": f"servingd {__version__}", "process": process}


def _json(content: Any) -> Answer:
    return (
        200,
        orjson.dumps(
            content,
            option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS,
        ),
        _JSON,
    )


def error_page(status: int, message: str) -> Answer:
    """Return an error as a JSON document."""
    return status, orjson.dumps({"error": message}), _JSON
