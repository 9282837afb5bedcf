"""What administrators do to workers over HTTP. It is handed to the supervisor, and done there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from servingd.errors import InvalidArgument
from servingd.frontends.admin.actions import Action, send_error, send_json
from servingd.frontends.http.messages import HttpReply, HttpRequest
from servingd.supervisor.link.messages import Answer, pack, unpack
from servingd.supervisor.link.questions import Questions


def worker_actions(questions: Questions) -> Sequence[Action]:
    """Return the actions on workers."""

    def recycle(request: HttpRequest, reply: HttpReply, /, **names: str) -> None:
        """Replace workers one after the other; answered at once with their processes."""

        def answered(answer: Answer) -> None:
            if answer.error is not None:
                send_error(reply, answer.error)
            else:
                send_json(reply, {"replacing": unpack(answer.body)})

        questions.ask("recycle", pack(_only_one(request.body)), answered)

    return [Action("workers:recycle", recycle)]


def _only_one(body: bytes) -> bool:
    """Return what a body says: `{"one": true}`; nothing means all. Raises InvalidArgument."""
    try:
        content: Any = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"expected a JSON object, got {body[:80]!r}: {error}") from None
    one = content.get("one", False) if isinstance(content, dict) else None
    if not isinstance(one, bool):
        raise InvalidArgument(f'expected {{"one": true or false}}, got {body[:80]!r}')
    return one
