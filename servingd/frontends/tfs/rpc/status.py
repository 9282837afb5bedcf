"""GetModelStatus and GetModelMetadata over gRPC: answered on the transport's thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from servingd.core.call_protocols import States
from servingd.core.types import ModelSpec
from servingd.errors import Code
from servingd.frontends.call import CallContext, to_serving_error
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.reply import Handler, Reply
from servingd.frontends.tfs.rpc.messages import optional_model_spec
from servingd.inference.metadata import SIGNATURE_DEF, model_metadata
from servingd.inference.status import model_status
from servingd.wire import protos
from servingd.wire.signatures import signature_def_map


class StatusMethods:
    """The handlers of GetModelStatus and GetModelMetadata."""

    def __init__(self, context: CallContext, states: States, parser: MessageParser) -> None:
        self._context = context
        self._states = states
        self._parser = parser
        self.metadata = self._answered_by("GetModelMetadata", self._metadata)
        self.status = self._answered_by("GetModelStatus", self._status)

    def _answered_by(
        self, method: str, answer: Callable[[bytes], tuple[bytes, ModelSpec]]
    ) -> Handler:
        """Return a handler that sends what `answer` returns, and records the call."""

        def handle(payload: bytes, reply: Reply) -> None:
            started = time.perf_counter()
            model, version, code = "", 0, Code.OK
            try:
                content, spec = answer(payload)
                model, version = spec.name, spec.version or 0
                reply.send(content)
            except Exception as error:
                failure = to_serving_error(error, method)
                code = failure.code
                reply.fail(code, failure.message)
            seconds = time.perf_counter() - started
            request_id = "" if code is Code.OK else reply.request_id()
            self._context.metrics.record(model, version, "", method, code, seconds, request_id)

        return handle

    def _metadata(self, payload: bytes) -> tuple[bytes, ModelSpec]:
        """Return a GetModelMetadataResponse, and the version that answered."""
        request = self._parser.parse(protos.GetModelMetadataRequest, payload)
        spec = optional_model_spec(request)
        servable, signatures = model_metadata(self._context.models, spec, request.metadata_field)
        response = protos.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_DEF].Pack(signature_def_map(signatures))
        return response.SerializeToString(), ModelSpec(servable.name, servable.version)

    def _status(self, payload: bytes) -> tuple[bytes, ModelSpec]:
        """Return a GetModelStatusResponse, and the model that was asked for."""
        request = self._parser.parse(protos.GetModelStatusRequest, payload)
        spec = optional_model_spec(request)
        response = protos.GetModelStatusResponse()
        for status in model_status(self._states, spec):
            entry = response.model_version_status.add(version=status.version, state=status.state)
            entry.status.error_code = status.code
            entry.status.error_message = status.message
        return response.SerializeToString(), ModelSpec(spec.name if spec else "")
