"""The Open Inference Protocol over HTTP: every route under `/v2`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

import orjson

from servingd.core.types import DataType, Signature, Tensors
from servingd.errors import Code, InvalidArgument, NotFound, ServingError
from servingd.frontends.call import CallContext, Note, to_serving_error
from servingd.frontends.http.content_coding import inflated
from servingd.frontends.http.messages import HttpReply, HttpRequest
from servingd.frontends.large_bodies import LargeBodies
from servingd.frontends.oip.infer import InferCall, Input, refuse, spec_of
from servingd.frontends.oip.models import ModelInformation
from servingd.frontends.oip.rest_reply import LENGTH_HEADER, OipReply
from servingd.runtime.first_calls import HeldCall
from servingd.wire.oip import (
    ONLY_RAW,
    checked_shape,
    read_list,
    read_raw,
    type_of,
    write_list,
    write_raw,
)

PREFIX = "/v2"
_ROUTE = "oip"
"""The key of the note, on a request's head, that holds its route."""

_LARGE_BYTES = 64 << 10
"""Bytes above which a worker reads a body: parsing it here would block every connection."""
_MODEL = r"/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?"


@dataclass(frozen=True, slots=True)
class _Route:
    """One route: its method, its path below `/v2`, its name in metrics."""

    method: str
    pattern: re.Pattern[str]
    verb: str


_ROUTES = [
    _Route(method, re.compile(pattern), verb)
    for method, pattern, verb in (
        ("POST", f"{_MODEL}/infer", "infer"),
        ("GET", "/health/live", "live"),
        ("GET", "/health/ready", "ready"),
        ("GET", f"{_MODEL}/ready", "model_ready"),
        ("GET", _MODEL, "metadata"),
        ("GET", "/?", "server"),
        ("POST", "/repository/index", "index"),
    )
]


class OipApi:
    """Answers requests on the loop's thread; a run may be completed on any other thread."""

    def __init__(
        self,
        context: CallContext,
        information: ModelInformation,
        large: LargeBodies,
        timeout_s: float | None,
    ) -> None:
        """`timeout_s`: seconds that a call may take; None: no limit. `large` is all APIs'."""
        self._context = context
        self._information = information
        self._large = large
        self._timeout_s = timeout_s

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request whose path is `/v2` or below it."""
        answer = OipReply(reply, request, self._timeout_s)
        started = time.perf_counter()
        verb = "malformed"
        try:
            found = request.notes.get(_ROUTE)  # requests with the same head have the same
            if found is None:
                found = request.notes[_ROUTE] = _find(request)
            route, names = found
            verb = route.verb
            if verb == "infer":
                self._infer(names, request, reply, answer)
                return
            answer.send_json(*self._page(verb, names, request))
            code = Code.OK
        except Exception as error:
            failure = to_serving_error(error, verb)
            code = failure.code
            answer.fail(code, failure.message, failure.retry_after_s)
        self._count(verb, code, time.perf_counter() - started, answer.request_id())

    def handle_elsewhere(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer as `handle` does, but on a worker: the loop's thread is never blocked."""
        try:
            self._large.run(partial(self.handle, request, reply))
        except ServingError as error:
            answer = OipReply(reply, request, None)
            answer.fail(error.code, error.message, error.retry_after_s)

    # Inference ------------------------------------------------------------------------------------

    def _infer(
        self, names: Mapping[str, str], request: HttpRequest, reply: HttpReply, answer: OipReply
    ) -> None:
        """Begin a call here if its body is small, else on a worker; hold it while models load."""

        def begin() -> None:
            if len(request.body) <= _LARGE_BYTES and "content-encoding" not in request.headers:
                self._start(names, request, answer)
            else:
                self._large.start(
                    request, answer, partial(self._start, names, request, answer), fail
                )

        def fail(error: ServingError) -> None:
            answer.fail(error.code, error.message, error.retry_after_s)
            self._count("infer", error.code, 0.0, answer.request_id())

        first_calls = self._context.first_calls
        if first_calls is None or first_calls.over:
            begin()
        else:
            spec = spec_of(names["name"], names["version"], {})
            held = HeldCall(len(request.body), answer.alive, begin, fail)
            if not first_calls.hold(spec, held):
                begin()
        if answer.deadline is not None and reply.payload is None:
            reply.deadline, reply.expire = answer.deadline, answer.expire

    def _start(self, names: Mapping[str, str], request: HttpRequest, answer: OipReply) -> None:
        call = InferHttp(answer, self._context)
        try:
            body = inflated(request.headers, request.body)
            call.read(names, body, request.headers.get(LENGTH_HEADER))
        except Exception as error:
            call.fail(to_serving_error(error, call.method))

    # Pages ----------------------------------------------------------------------------------------

    def _page(self, verb: str, names: Mapping[str, str], request: HttpRequest) -> tuple[Any, int]:
        """Return a document and its status. Raises ServingError."""
        information = self._information
        match verb:
            case "live":
                return {"live": True}, 200
            case "ready":
                ready = information.is_ready()
                return {"ready": ready}, 200 if ready else 503
            case "model_ready":
                ready = information.model_is_ready(names["name"], names["version"])
                return {"name": names["name"], "ready": ready}, 200 if ready else 503
            case "metadata":
                found = information.metadata(names["name"], names["version"])
                tensors = {
                    way: [each._asdict() for each in getattr(found, way)]
                    for way in ("inputs", "outputs")
                }
                return {**found._asdict(), **tensors}, 200
            case "index":
                asked = _object(request.body) if request.body else {}
                entries = information.index(bool(asked.get("ready", False)))
                return [entry._asdict() for entry in entries], 200
            case _:
                return information.server(), 200

    def _count(self, verb: str, code: Code, seconds: float, request_id: str) -> None:
        request_id = "" if code is Code.OK else request_id
        self._context.metrics.record("", 0, "", f"oip:{verb}", code, seconds, request_id)


def _find(request: HttpRequest) -> tuple[_Route, Mapping[str, str]]:
    """Return the route of a request, and the names in its path. Raises NotFound."""
    path = request.path[len(PREFIX) :]
    for route in _ROUTES:
        match = route.pattern.fullmatch(path)
        if match and route.method == request.method:
            found = {key: unquote(text or "") for key, text in match.groupdict().items()}
            return route, {"name": "", "version": "", **found}
    raise NotFound(f"there is nothing at {request.method} {request.path}")


class InferHttp(InferCall):
    """One call of `infer`."""

    method = "oip:infer"

    __slots__ = ("_all_binary", "_wanted")

    def read(self, names: Mapping[str, str], body: bytes, length: str | None) -> None:
        """Read a body and run it. Raises ServingError."""
        head, raw = _parted(body, length)
        document = _object(head)
        request_name = document.get("id", "")
        if not isinstance(request_name, str):
            raise InvalidArgument(f"id: expected a text, got {request_name!r}")
        self.request_name = request_name
        parameters = _parameters(document, "parameters")
        self.given = self._inputs(document, raw)
        self._all_binary = bool(parameters.get("binary_data_output", False))
        self._wanted = _outputs(document)
        self.output_filter = list(self._wanted)
        self.start(names["name"], names["version"], parameters)

    def _inputs(self, document: Mapping[str, Any], raw: bytes) -> Mapping[str, Input]:
        """Return the inputs. Raises InvalidArgument naming the one that is wrong."""
        given: dict[str, Input] = {}
        at = 0
        for tensor in _list(document, "inputs"):
            name = tensor.get("name")
            if not isinstance(name, str):
                raise InvalidArgument(f"inputs: expected each to have a name, got {name!r}")
            what = f"input '{name}'"
            if name in given:
                raise InvalidArgument(f"{what} is there twice")
            data_type = type_of(tensor.get("datatype", ""), what)
            shape = _shape(tensor.get("shape"), what)
            parameters = _parameters(tensor, what)
            refuse(parameters, what)
            size = parameters.get("binary_data_size")
            if size is None:
                if "data" not in tensor:
                    raise InvalidArgument(f"{what}: expected data, or binary_data_size")
                read = partial(read_list, data_type, shape, tensor["data"], what)
            else:
                if type(size) is not int or not 0 <= size <= len(raw) - at:
                    raise InvalidArgument(
                        f"{what}: binary_data_size: expected up to {len(raw) - at} bytes, got "
                        f"{size!r}"
                    )
                read = partial(read_raw, data_type, shape, raw[at : at + size], what)
                at += size
            given[name] = Input(data_type, shape, read)
        if at != len(raw):
            raise InvalidArgument(f"{len(raw) - at} bytes of raw data belong to no input")
        return given

    def encode(self, outputs: Tensors, signature: Signature, note: Note) -> bytes:
        """Return the JSON, and the raw outputs after it; the reply learns where they begin."""
        handle = self.handle
        assert handle is not None  # the call has run
        described, raw = [], []
        for alias, data_type, name, array in self.outputs_of(outputs, signature):
            tensor: dict[str, Any] = {
                "name": alias,
                "datatype": name,
                "shape": list(array.shape),
            }
            if self._wanted.get(alias) or self._all_binary or data_type in ONLY_RAW:
                content = write_raw(array, data_type)
                tensor["parameters"] = {"binary_data_size": len(content)}
                raw.append(content)
            else:
                tensor["data"] = _json_values(array, data_type, alias)
            described.append(tensor)
        document = {
            "model_name": handle.id.name,
            "model_version": str(handle.id.version),
            **({"id": self.request_name} if self.request_name else {}),
            "outputs": described,
        }
        head = _dumped(document)
        if raw:
            cast(OipReply, self._reply).raw_begins_at = len(head)
        return b"".join((head, *raw))


def _dumped(document: Any) -> bytes:
    """Return JSON; NaN and infinities as Python's json writes them, since JSON has none."""
    text = orjson.dumps(document)
    return text if b"null" not in text else json.dumps(document, separators=(",", ":")).encode()


def _json_values(array: Any, data_type: DataType, alias: str) -> list[Any]:
    values = write_list(array)
    if data_type is not DataType.STRING:
        return values
    try:
        return [v.decode() if isinstance(v, bytes) else v for v in values]
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"output '{alias}' holds bytes that are no UTF-8: ask for it as binary data"
        ) from None


def _parted(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """Return the JSON of a body, and what follows it. Raises InvalidArgument."""
    if length is None:
        return body, b""
    size = int(length) if length.isascii() and length.isdigit() and len(length) < 12 else -1
    if not 0 < size <= len(body):
        raise InvalidArgument(
            f"{LENGTH_HEADER}: expected a number up to {len(body)}, got {length!r}"
        )
    return body[:size], body[size:]


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument("the body: expected a JSON object")
    return found


def _list(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = document.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidArgument(f"{key}: expected a list of objects")
    return found


def _parameters(document: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    found = document.get("parameters", {})
    if not isinstance(found, dict):
        raise InvalidArgument(f"{what}: parameters: expected an object")
    return found


def _outputs(document: Mapping[str, Any]) -> Mapping[str, bool]:
    """Return whether each output that is asked for is to be raw; empty: all outputs are."""
    if document.get("outputs") is None:
        return {}
    wanted: dict[str, bool] = {}
    for output in _list(document, "outputs"):
        name = output.get("name")
        if not isinstance(name, str):
            raise InvalidArgument(f"outputs: expected each to have a name, got {name!r}")
        if name in wanted:
            raise InvalidArgument(f"output '{name}' is there twice")
        parameters = _parameters(output, f"output '{name}'")
        refuse(parameters, f"output '{name}'")
        wanted[name] = bool(parameters.get("binary_data", False))
    return wanted


def _shape(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int for size in value):
        raise InvalidArgument(f"{what}: expected a shape of whole numbers, got {value!r}")
    return checked_shape(value, what)
