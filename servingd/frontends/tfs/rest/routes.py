"""Parse TensorFlow Serving's URLs: the meaning of a method and a target."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from servingd.core.types import ModelSpec
from servingd.errors import InvalidArgument, ServingError

_POST = re.compile(
    r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?",
    re.IGNORECASE | re.ASCII,
)
_JOB = "?async=true"
_INT64_MAX = 2**63 - 1
_INT64_DIGITS = 19


class Route(NamedTuple):
    """A target's meaning; with an `error` only that is answered."""

    verb: str
    """`predict`, `classify`, `regress`, `status`, `metadata`, `models`, or empty."""
    spec: ModelSpec
    error: ServingError | None = None
    silent: bool = False
    """Whether the error is answered by its status alone, as in TensorFlow Serving."""
    is_job: bool = False
    """Whether the caller does not wait for the answer, and asks for it later."""


@lru_cache(maxsize=1024)
def route(method: str, target: str) -> Route:
    """Return what a request asks for.

    The target is matched with its query; names are decoded afterwards. The rules are TensorFlow
    Serving's, except that `GET /v1/models` lists the models, and that `?async=true` makes a job.
    """
    match = _POST.fullmatch(target.removesuffix(_JOB)) if method == "POST" else None
    if match is not None:
        name, version, label, verb = match.groups()
        if verb not in ("classify", "regress", "predict"):
            return _malformed(method, target)
        return _to_model(verb, name, version, label)._replace(is_job=target.endswith(_JOB))
    match = _GET.fullmatch(target) if method == "GET" else None
    if match is None:
        return _malformed(method, target)
    name, version, label, metadata = match.groups()
    if name is None:
        if target.lower() == "/v1/models":
            return Route("models", ModelSpec(""))
        return Route("", ModelSpec(""), InvalidArgument("Missing model name in request."))
    # The pattern ignores case, but only lower case means metadata, as in TensorFlow Serving.
    return _to_model("metadata" if metadata == "metadata" else "status", name, version, label)


def _to_model(verb: str, name: str, version: str | None, label: str | None) -> Route:
    """Return the route to a model; a version beyond int64 is an error."""
    name = unquote(name, errors="surrogateescape")
    digits = version and (version.lstrip("0") or "0")  # `int` reads at most 4,300 digits
    if digits and (len(digits) > _INT64_DIGITS or int(digits) > _INT64_MAX):
        error = InvalidArgument(f"Failed to convert version: {version} to numeric.")
        return Route(verb, ModelSpec(name), error, silent=True)
    return Route(
        verb,
        ModelSpec(
            name,
            int(digits) if digits else None,
            None if label is None else unquote(label, errors="surrogateescape"),
        ),
    )


def _malformed(method: str, target: str) -> Route:
    return Route("", ModelSpec(""), InvalidArgument(f"Malformed request: {method} {target}"))
