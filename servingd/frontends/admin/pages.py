"""servingd's own pages: probes, metrics, and the status of models and devices as JSON."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from servingd.errors import ServingError
from servingd.frontends.admin.actions import PREFIX, Actions
from servingd.frontends.admin.status_pages import Answer, error_page
from servingd.frontends.http.content_coding import accepts_gzip, deflated
from servingd.frontends.http.messages import Headers, HttpReply, HttpRequest
from servingd.frontends.http.shared_page import SharedPage
from servingd.frontends.status_codes import HTTP
from servingd.frontends.workers import Workers
from servingd.observability.metrics import CONTENT_TYPE

TEXT = "text/plain; charset=utf-8"
_STATUS = re.compile("/servingd/v1/(devices|workers|models(/[^/]+)?)")

_PACKED: Headers = (("content-encoding", "gzip"), ("vary", "accept-encoding"))

_log = logging.getLogger(__name__)


class StatusSource(Protocol):
    """Who describes models and devices: this process, or the supervisor of several."""

    def __call__(self, path: str, /) -> Answer | None:
        """Return the page at a path; None if there is none. May wait."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContents:
    """What the pages show."""

    metrics: SharedPage
    ready: Callable[[], str | None]
    """Returns why `/readyz` fails; None if it succeeds."""
    started: Callable[[], str | None]
    """Returns why `/startupz` fails; None if it succeeds."""
    status: StatusSource
    """Returns the pages under `/servingd/v1/`."""
    workers: Workers
    """Make those pages: a loop must not wait for them."""


class AdminPages:
    """Probes, metrics, status and actions under `/servingd/v1/`. Runs on the loops' threads."""

    def __init__(self, contents: PageContents, actions: Actions | None = None) -> None:
        self._actions = actions or Actions()
        self._contents = contents
        self._probes: Mapping[str, Callable[[], Answer]] = {
            "/livez": lambda: (200, b"ok\n", TEXT),
            "/healthz": lambda: (200, b"ok\n", TEXT),
            "/readyz": lambda: _probe(contents.ready),
            "/startupz": lambda: _probe(contents.started),
        }

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request for one of the pages, or for an action; 404 for any other path."""
        if self._actions.take(request, reply):
            return
        path = request.path
        if request.method not in ("GET", "HEAD"):
            reply.send(*self._not_a_page(request))
        elif path in self._probes:
            reply.send(*self._probes[path]())
        elif path == "/metrics":
            self.send_metrics(request, reply)
        elif path.startswith(PREFIX):
            self._contents.workers.submit(lambda: self._send_status(request, reply))
        else:
            reply.send(*self._not_a_page(request))

    def send_metrics(self, request: HttpRequest, reply: HttpReply) -> None:
        """Send the metrics page, once a worker has made it; compressed, if the client likes."""
        gzip = accepts_gzip(request.headers)

        def take(page: bytes | None) -> None:
            if page is None:
                reply.send(*error_page(500, "the metrics could not be collected"))
                return
            packed = deflated(page) if gzip else None
            if packed is None:
                reply.send(200, page, CONTENT_TYPE)
            else:
                reply.send(200, packed, CONTENT_TYPE, _PACKED)

        self._contents.metrics.ask(take)

    def _send_status(self, request: HttpRequest, reply: HttpReply) -> None:
        """Send a page about models or devices; on a worker's thread."""
        try:
            page = self._contents.status(request.path) or self._not_a_page(request)
        except ServingError as error:
            page = error_page(HTTP[error.code], error.message)
        except BaseException:  # the client must be answered
            _log.exception("a page could not be made")
            page = error_page(500, "the page could not be made")
        reply.send(*page)

    def _not_a_page(self, request: HttpRequest) -> Answer:
        """Return the error for a path or a method that there is not."""
        known = request.path in self._probes or request.path == "/metrics"
        if known or _STATUS.fullmatch(request.path):
            return error_page(405, f"{request.method} is not supported here; GET is")
        if self._actions.has(request.path):
            return error_page(405, f"{request.method} is not supported here; POST is")
        return error_page(404, f"there is nothing at {request.path}")


def _probe(check: Callable[[], str | None]) -> Answer:
    reason = check()
    return (200, b"ok\n", TEXT) if reason is None else (503, f"{reason}\n".encode(), TEXT)
