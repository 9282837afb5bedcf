"""HandleReloadConfigRequest: replace the set of models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from servingd.config.models import ModelConfig
from servingd.errors import Code, InvalidArgument, ServingError
from servingd.frontends.call import CallContext, to_serving_error
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import Reply
from servingd.wire import protos
from servingd.wire.config.models import models_from_message

METHOD = "HandleReloadConfigRequest"


class Reload(Protocol):
    """What replaces all models; see `ControlPlane.reload`."""

    def __call__(
        self,
        models: tuple[ModelConfig, ...],
        timeout_s: float | None,
        done: Callable[[ServingError | None], None],
        /,
    ) -> None:
        """Replace the models, then call `done` once: with None if the new ones are available.

        That is after `timeout_s` at the latest; None: the configured time. Raises a ServingError,
        with nothing changed.
        """
        ...


class ReloadMethod:
    """The handler of ModelService.HandleReloadConfigRequest."""

    def __init__(
        self,
        context: CallContext,
        parser: MessageParser,
        reload: Reload,
        serving_values: Callable[[Sequence[str]], dict[str, int]],
    ) -> None:
        """`serving_values` returns the values of metrics by TensorFlow Serving's names for them."""
        self._context = context
        self._serving_values = serving_values
        self._parser = parser
        self._reload = reload

    def __call__(self, payload: bytes, reply: Reply) -> None:
        """Answer one call; see `Handler`."""
        started = time.perf_counter()
        values = self._serving_values

        def record(code: Code) -> None:
            seconds = time.perf_counter() - started
            self._context.metrics.record("", 0, "", METHOD, code, seconds)

        def done(error: ServingError | None) -> None:
            if error is None:
                reply.send(_response(names, before, values(names)))
            else:
                reply.fail(error.code, error.message)
            record(error.code if error else Code.OK)

        names: Sequence[str] = ()
        before: dict[str, int] = {}
        try:
            request = self._parser.parse(protos.ReloadConfigRequest, payload)
            names = list(dict.fromkeys(request.metric_names))
            before = values(names)
            left = None if reply.deadline is None else reply.deadline - time.monotonic()
            self._reload(_models(request.config), left, done)
        except Exception as error:
            failure = to_serving_error(error, METHOD)
            reply.fail(failure.code, failure.message)
            record(failure.code)


def _models(config: Any) -> tuple[ModelConfig, ...]:
    """Return the models of a request. Raises InvalidArgument, with TensorFlow Serving's text."""
    if config.WhichOneof("config") != "model_config_list":
        raise InvalidArgument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported"
        )
    return models_from_message(config)


def _response(names: Sequence[str], before: dict[str, int], after: dict[str, int]) -> bytes:
    """Return the response: OK, and by how much the requested metrics have grown."""
    response = protos.ReloadConfigResponse()
    response.status.error_code = 0  # type: ignore[assignment]
    response.status.SetInParent()
    for name in names:
        response.metric.add(name=name, int64_value_increase=after[name] - before[name])
    content: bytes = response.SerializeToString()
    return content
