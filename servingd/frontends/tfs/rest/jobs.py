"""Jobs over REST: who asks for a result later, waits for it, or wants it no more."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

import orjson

from servingd.errors import Code, InvalidArgument, NotFound, ServingError
from servingd.frontends.http.messages import Headers, HttpReply, HttpRequest
from servingd.frontends.status_codes import HTTP
from servingd.frontends.tfs.rest.reply import JSON, told
from servingd.runtime.jobs import Jobs, JobView
from servingd.wire.json.results import encode_error

JOBS = "/servingd/v1/jobs/"

MAX_WAIT_S = 60.0
"""Seconds that a caller may wait for the end of a job by one request."""

_JOB = re.compile(re.escape(JOBS) + "([0-9a-f]{32})")


class JobPages:
    """`GET` and `DELETE` of `/servingd/v1/jobs/ID`. Runs on the loops' threads."""

    def __init__(self, jobs: Jobs, headers: Headers = ()) -> None:
        """`headers` are those of every answer."""
        self._jobs = jobs
        self._headers = headers

    def handle(self, request: HttpRequest, reply: HttpReply) -> None:
        """Answer a request for a job, now or when it is done."""
        try:
            match = _JOB.fullmatch(request.path)
            if match is None:
                raise NotFound(f"there is no job at {request.path}")
            if request.method == "DELETE":
                self._jobs.cancel(match[1], lambda found: send_job(reply, found, self._headers))
            elif request.method == "GET":
                self._jobs.get(
                    match[1],
                    _wait_s(request.target),
                    lambda found: send_job(reply, found, self._headers),
                )
            else:
                body = encode_error(f"{request.method} is not supported here; GET and DELETE are")
                reply.send(405, body, JSON, self._headers)
        except ServingError as error:
            reply.send(HTTP[error.code], encode_error(error.message), JSON, self._headers)


def send_pending(reply: HttpReply, job_id: str, headers: Headers) -> None:
    """Send where a job's answer will be."""
    reply.send(202, _document(job_id, "pending"), JSON, (*headers, ("location", JOBS + job_id)))


def send_job(reply: HttpReply, job: JobView | ServingError, headers: Headers) -> None:
    """Send a job's answer, as the call would have got it, or that it is still to come."""
    if isinstance(job, ServingError):
        reply.send(HTTP[job.code], encode_error(job.message), JSON, headers)
        return
    result = job.result
    if job.state == "cancelled":
        reply.send(200, _document(job.id, "cancelled"), JSON, headers)
    elif result is None:
        send_pending(reply, job.id, headers)
    elif result.code is Code.OK:
        reply.send(200, result.body, result.content_type, headers)
    else:
        text = told(result.code, result.message)
        reply.send(HTTP[result.code], encode_error(text), JSON, headers)


def _document(job_id: str, state: str) -> bytes:
    content: dict[str, Any] = {"id": job_id, "state": state}
    return orjson.dumps(content)


def _wait_s(target: str) -> float:
    """Return the seconds in the query's `wait_s`; 0 if there are none. Raises InvalidArgument."""
    found = parse_qs(target.partition("?")[2]).get("wait_s", ["0"])[-1]
    try:
        seconds = float(found)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise InvalidArgument(f"wait_s: expected seconds from 0 to {MAX_WAIT_S:g}, got {found!r}")
    return seconds
