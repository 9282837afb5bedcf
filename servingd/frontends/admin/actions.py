"""What administrators do over HTTP: the one table of actions, and who may call them here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import orjson

from servingd.errors import Code, ServingError
from servingd.frontends.admin_token import REFUSED
from servingd.frontends.http.messages import Headers, HttpReply, HttpRequest
from servingd.frontends.reply import AUTHORIZATION_HEADER
from servingd.frontends.status_codes import HTTP

PREFIX = "/servingd/v1/"
JSON = "application/json"

ELSEWHERE = "administrators' calls are served on another port"

FROM_A_BROWSER = "a browser's requests are taken with a token only: --admin_token_file"

_CHALLENGE: Headers = (("www-authenticate", "Bearer"),)


class Act(Protocol):
    """Does what a request asks."""

    def __call__(self, request: HttpRequest, reply: HttpReply, /, **names: str) -> None:
        """Answer now, or later from any thread (`send_json`, `send_error`).

        It runs on a loop's thread and must not block. Raises ServingError instead of an answer.
        `names` are the named groups of the action's pattern, decoded.
        """
        ...


@dataclass(frozen=True, slots=True)
class Action:
    """One action: `POST /servingd/v1/` and a path."""

    pattern: str
    """A regular expression for the rest of the path: `workers:recycle`."""
    act: Act


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorkeeper:
    """Who may call actions at one port."""

    here: bool = True
    """False: they are served on another port."""
    admits: Callable[[str], bool] | None = None
    """Returns whether an `authorization` header will do; None: none is needed."""
    refused: Callable[[Code], None] | None = None
    """Is told of each call that is refused."""


class Actions:
    """The actions at one port. Runs on the loops' threads."""

    def __init__(self, table: Sequence[Action] = (), door: Doorkeeper | None = None) -> None:
        self._table = [
            (re.compile(re.escape(PREFIX) + action.pattern), action.act) for action in table
        ]
        self._door = door or Doorkeeper()

    def take(self, request: HttpRequest, reply: HttpReply) -> bool:
        """Answer whatever may be an action; return False if it is none and nobody is refused.

        Whoever may not call actions is not told either which there are.
        """
        if request.method in ("GET", "HEAD") or not request.path.startswith(PREFIX):
            return False
        if self._refuses(request, reply):
            return True
        act, names = self._find(request.path)
        if act is None or request.method != "POST":
            return False
        try:
            act(request, reply, **names)
        except ServingError as error:
            send_error(reply, error)
        return True

    def has(self, path: str) -> bool:
        """Return whether there is an action at a path."""
        return self._find(path)[0] is not None

    def _refuses(self, request: HttpRequest, reply: HttpReply) -> bool:
        door = self._door
        if not door.here:
            self._refuse(reply, Code.PERMISSION_DENIED, ELSEWHERE)
            return True
        if door.admits is None:
            # A page that somebody looks at on this machine could send it: only a token tells.
            if not _comes_from_a_browser(request):
                return False
            self._refuse(reply, Code.PERMISSION_DENIED, FROM_A_BROWSER)
            return True
        if door.admits(request.headers.get(AUTHORIZATION_HEADER, "")):
            return False
        self._refuse(reply, Code.UNAUTHENTICATED, REFUSED, _CHALLENGE)
        return True

    def _refuse(self, reply: HttpReply, code: Code, text: str, headers: Headers = ()) -> None:
        if self._door.refused is not None:
            self._door.refused(code)
        reply.send(HTTP[code], _error(text), JSON, headers)

    def _find(self, path: str) -> tuple[Act | None, dict[str, str]]:
        for pattern, act in self._table:
            match = pattern.fullmatch(path)
            if match:
                return act, {name: unquote(text) for name, text in match.groupdict().items()}
        return None, {}


def _comes_from_a_browser(request: HttpRequest) -> bool:
    headers = request.headers
    return "origin" in headers or headers.get("sec-fetch-site", "none") != "none"


def send_json(reply: HttpReply, content: Any, status: int = 200) -> None:
    """Answer an action with a JSON document."""
    reply.send(status, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), JSON)


def send_error(reply: HttpReply, error: ServingError) -> None:
    """Answer an action with an error, as pages do."""
    reply.send(HTTP[error.code], _error(error.message), JSON)


def _error(message: str) -> bytes:
    return orjson.dumps({"error": message})
