"""The one table of HTTP routes: servingd's here, TensorFlow Serving's in `tfs/rest/api.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

from servingd import __version__
from servingd.core.call_protocols import States
from servingd.core.types import ServableId
from servingd.errors import Code, NotFound, ServingError
from servingd.frontends.admin.device_page import describe_devices, describe_placement
from servingd.frontends.http.messages import HttpHandler, HttpReply, HttpRequest
from servingd.frontends.http.shared_page import SharedPage
from servingd.frontends.status_codes import HTTP
from servingd.inference.status import versions_of
from servingd.observability.metrics import CONTENT_TYPE
from servingd.observability.placements import Placements

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"

Answer = tuple[int, bytes, str]
"""Status, body, content type."""

_METRICS = None
"""In place of an answer: the metrics page, which a worker makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The contents of servingd's own routes."""

    metrics: SharedPage
    ready: Callable[[], str | None]
    """Returns why `/readyz` fails; None if it succeeds."""
    started: Callable[[], str | None]
    """Returns why `/startupz` fails; None if it succeeds."""
    describe: Callable[[], Mapping[str, Any]]
    """Returns the server's name and its process."""
    explain: Callable[[str], Mapping[int, Sequence[Mapping[str, Any]]]]
    """Returns the figures of a model's queues, by version."""
    placements: Placements = field(default_factory=Placements)
    """The replicas of all versions, and their devices."""
    monitoring_path: str = ""
    """TensorFlow Serving's path of the metrics; empty: none."""


class HttpRoutes:
    """Probes, metrics, status under `/servingd/v1/`, and TensorFlow Serving's API under `/v1/`."""

    def __init__(self, api: HttpHandler, states: States, pages: Pages) -> None:
        self._api = api
        self._states = states
        self._metrics_page = pages.metrics
        self._describe = pages.describe
        self._explain = pages.explain
        self._placements = pages.placements
        self._monitoring_path = pages.monitoring_path
        self._api_first = pages.monitoring_path[:4] != "/v1/"
        ready, started = pages.ready, pages.started
        self._routes: Sequence[tuple[re.Pattern[str], Callable[..., Answer | None]]] = [
            (re.compile(pattern), answer)
            for pattern, answer in (
                ("/livez", lambda: (200, b"ok\n", _TEXT)),
                ("/healthz", lambda: (200, b"ok\n", _TEXT)),
                ("/readyz", lambda: _probe(ready)),
                ("/startupz", lambda: _probe(started)),
                ("/metrics", lambda: _METRICS),
                ("/servingd/v1/devices", self._devices),
                ("/servingd/v1/models", self._models),
                ("/servingd/v1/models/(?P<name>[^/]+)", self._model),
            )
        ]

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request; runs on the loop's thread."""
        target = request.target
        if target[:4] == "/v1/" and self._api_first:
            self._api(request, reply)
        elif self._monitoring_path and request.path == self._monitoring_path:
            self._send(self._monitoring(target), reply)
        elif target[:4].lower() == "/v1/":
            self._api(request, reply)
        else:
            self._send(self._answer(request), reply)

    def _send(self, answer: Answer | None, reply: HttpReply) -> None:
        """Send an answer; for None, send the metrics page once a worker has made it."""
        if answer is not None:
            reply.send(*answer)
            return

        def take(page: bytes | None) -> None:
            if page is None:
                reply.send(*_error(500, "the metrics could not be collected"))
            else:
                reply.send(200, page, CONTENT_TYPE)

        self._metrics_page.ask(take)

    def _monitoring(self, target: str) -> Answer | None:
        """Return the page at TensorFlow Serving's path, by its rules: any method, but no query."""
        if target != self._monitoring_path:
            text = f"Unexpected path: {target}. Should be {self._monitoring_path}"
            return 400, text.encode(), _TEXT
        return _METRICS

    def _answer(self, request: HttpRequest) -> Answer | None:
        """Answer one of servingd's own routes."""
        for pattern, answer in self._routes:
            match = pattern.fullmatch(request.path)
            if match:
                if request.method not in ("GET", "HEAD"):
                    return _error(405, f"{request.method} is not supported here; GET is")
                try:
                    names = {k: unquote(v) for k, v in match.groupdict().items()}
                    return answer(**names)
                except ServingError as error:
                    return _error(HTTP[error.code], error.message)
        return _error(404, f"there is nothing at {request.path}")

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
        return {
            "name": name,
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


def _probe(check: Callable[[], str | None]) -> Answer:
    reason = check()
    return (200, b"ok\n", _TEXT) if reason is None else (503, f"{reason}\n".encode(), _TEXT)


def _json(content: Any) -> Answer:
    return (
        200,
        orjson.dumps(
            content,
            option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS,
        ),
        _JSON,
    )


def _error(status: int, message: str) -> Answer:
    return status, orjson.dumps({"error": message}), _JSON
