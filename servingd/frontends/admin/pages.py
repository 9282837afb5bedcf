"""servingd's own pages: probes, metrics, and the status of models and devices as JSON."""

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
from servingd.frontends.admin.actions import Actions
from servingd.frontends.admin.device_page import describe_devices, describe_placement
from servingd.frontends.http.messages import HttpReply, HttpRequest
from servingd.frontends.http.shared_page import SharedPage
from servingd.frontends.status_codes import HTTP
from servingd.inference.status import versions_of
from servingd.observability.metrics import CONTENT_TYPE
from servingd.observability.placements import Placements

_JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

Answer = tuple[int, bytes, str]
"""Status, body, content type."""

_METRICS = None
"""In place of an answer: the metrics page, which a worker makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContents:
    """What the pages show."""

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


class AdminPages:
    """Probes, metrics, status and actions under `/servingd/v1/`. Runs on the loops' threads."""

    def __init__(
        self, states: States, contents: PageContents, actions: Actions | None = None
    ) -> None:
        self._actions = actions or Actions()
        self._states = states
        self._metrics_page = contents.metrics
        self._describe = contents.describe
        self._explain = contents.explain
        self._placements = contents.placements
        ready, started = contents.ready, contents.started
        self._routes: Sequence[tuple[re.Pattern[str], Callable[..., Answer | None]]] = [
            (re.compile(pattern), answer)
            for pattern, answer in (
                ("/livez", lambda: (200, b"ok\n", TEXT)),
                ("/healthz", lambda: (200, b"ok\n", TEXT)),
                ("/readyz", lambda: _probe(ready)),
                ("/startupz", lambda: _probe(started)),
                ("/metrics", lambda: _METRICS),
                ("/servingd/v1/devices", self._devices),
                ("/servingd/v1/models", self._models),
                ("/servingd/v1/models/(?P<name>[^/]+)", self._model),
            )
        ]

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request for one of the pages, or for an action; 404 for any other path."""
        if not self._actions.take(request, reply):
            self._send(self._answer(request), reply)

    def send_metrics(self, reply: HttpReply) -> None:
        """Send the metrics page, once a worker has made it."""
        self._send(_METRICS, reply)

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

    def _answer(self, request: HttpRequest) -> Answer | None:
        """Return the page at a path."""
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
        if self._actions.has(request.path):
            return _error(405, f"{request.method} is not supported here; POST is")
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
    return (200, b"ok\n", TEXT) if reason is None else (503, f"{reason}\n".encode(), TEXT)


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
