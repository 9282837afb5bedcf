"""What administrators do to models over HTTP: add, remove and label them, in `servingd.yaml`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from servingd.config.yaml.edits import ADD, REMOVE, REMOVE_LABEL, SET_LABELS, ModelEdit
from servingd.errors import InvalidArgument, ServingError
from servingd.frontends.admin.actions import Act, Action, send_error, send_json
from servingd.frontends.http.messages import HttpReply, HttpRequest

_MODEL = "models/(?P<model>[^/]+)"


class ModelControl(Protocol):
    """What changes the models of the server."""

    def edit(self, edit: ModelEdit, done: Callable[[ServingError | None], None], /) -> None:
        """Change `servingd.yaml`, and serve what it says then; `done` is called on any thread.

        Raises ServingError instead where that cannot begin.
        """
        ...

    def reread(self, done: Callable[[ServingError | None], None], /) -> None:
        """Read the configuration files again. Does not wait for what comes of it."""
        ...


def model_actions(control: ModelControl) -> Sequence[Action]:
    """Return the actions on models."""

    def editing(make: Callable[[str, Mapping[str, Any]], ModelEdit]) -> Act:
        """Return the action that makes the edit which a body asks for."""

        def act(request: HttpRequest, reply: HttpReply, /, **names: str) -> None:
            edit = make(names.get("model", ""), _object(request.body))

            def done(error: ServingError | None) -> None:
                if error is not None:
                    send_error(reply, error)
                else:
                    send_json(reply, {"model": edit.model, "done": edit.kind})

            control.edit(edit, done)

        return act

    def reload(request: HttpRequest, reply: HttpReply, /, **names: str) -> None:
        def done(error: ServingError | None) -> None:
            if error is not None:
                send_error(reply, error)
            else:
                send_json(reply, {"reading": True})

        control.reread(done)

    return [
        Action("models:add", editing(_add)),
        Action("models:reload", reload),
        Action(f"{_MODEL}:remove", editing(lambda model, content: ModelEdit(REMOVE, model))),
        Action(f"{_MODEL}/labels:set", editing(_set_labels)),
        Action(f"{_MODEL}/labels:remove", editing(_remove_label)),
    ]


def _add(_: str, content: Mapping[str, Any]) -> ModelEdit:
    name = content.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"name: expected the model's name, got {name!r}")
    if "base_path" not in content:
        raise InvalidArgument("base_path: expected the folder of the model's versions, got nothing")
    return ModelEdit(ADD, name, {key: value for key, value in content.items() if key != "name"})


def _set_labels(model: str, content: Mapping[str, Any]) -> ModelEdit:
    if not content:
        raise InvalidArgument('expected versions by label, such as {"stable": 3}, got none')
    for label, version in content.items():
        if type(version) is not int:
            raise InvalidArgument(f"{label}: expected a version, got {version!r}")
    return ModelEdit(SET_LABELS, model, content)


def _remove_label(model: str, content: Mapping[str, Any]) -> ModelEdit:
    label = content.get("label")
    if not isinstance(label, str):
        raise InvalidArgument(f'expected {{"label": "NAME"}}, got {dict(content)!r}')
    return ModelEdit(REMOVE_LABEL, model, {"label": label})


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        content = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"expected a JSON object, got {body[:80]!r}: {error}") from None
    if not isinstance(content, dict):
        raise InvalidArgument(f"expected a JSON object, got {body[:80]!r}")
    return content
