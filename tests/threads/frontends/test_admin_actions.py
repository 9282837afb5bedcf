"""What administrators do over HTTP: who may call, at which port, and when the answer comes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import ClassVar

import pytest

from servingd.errors import Code, FailedPrecondition
from servingd.frontends.admin.actions import Action, Actions, Doorkeeper, send_error, send_json
from servingd.frontends.admin.pages import AdminPages, PageContents
from servingd.frontends.admin.status_pages import StatusPages
from servingd.frontends.http.transport import HttpTransport
from servingd.observability.placements import Placements
from tests.http_client import Answers, connect, get, post, received

RECYCLE = "/servingd/v1/workers:recycle"
RIGHT = "authorization: right"


class Models:
    """States without any model."""

    models: ClassVar = {}

    @property
    def states(self):
        return self

    def names(self):
        return []


def recycle(request, reply):
    """Answers later, from another thread."""
    threading.Thread(target=lambda: send_json(reply, {"body": request.body.decode()})).start()


def label(request, reply, *, model, label):
    send_json(reply, {"model": model, "label": label}, 201)


def refuse(request, reply):
    raise FailedPrecondition("not now")


def fail_later(request, reply):
    threading.Thread(target=lambda: send_error(reply, FailedPrecondition("too late"))).start()


class AtOnce:
    """Workers that make a page on the thread that asks for it."""

    def submit(self, job):
        job()


TABLE = (
    Action("workers:recycle", recycle),
    Action("models/(?P<model>[^/]+)/labels/(?P<label>[^/]+)", label),
    Action("refuse", refuse),
    Action("fail", fail_later),
)


@pytest.fixture
def ask():
    """Ask a port with this door: `ask(door, request)` returns status and JSON."""
    started = []

    def begin(door: Doorkeeper, request: bytes):
        contents = PageContents(
            metrics=None,
            ready=lambda: None,
            started=lambda: None,
            status=StatusPages(Models(), dict, lambda name: {}, Placements()).page,
            workers=AtOnce(),
        )
        pages = AdminPages(contents, Actions(TABLE, door))
        transport = HttpTransport(pages.handle, name="http-admin")
        started.append(transport)
        port = transport.bind("127.0.0.1", 0)
        transport.start()
        with connect(port) as client:
            client.sendall(request)
            status, body = Answers(client).next()
        return status, json.loads(body) if body.startswith(b"{") else body

    yield begin
    for transport in started:
        transport.stop()


OPEN = Doorkeeper()
LOCKED = Doorkeeper(admits=lambda given: given == "right")
ELSEWHERE = Doorkeeper(here=False, admits=lambda given: given == "right")


def test_an_action_answers_later(ask):
    assert ask(OPEN, post(RECYCLE, b"now")) == (200, {"body": "now"})
    assert ask(LOCKED, post(RECYCLE, b"now", RIGHT)) == (200, {"body": "now"})


def test_parts_of_the_path_are_names(ask):
    found = {"model": "a b", "label": "x/y"}
    assert ask(OPEN, post("/servingd/v1/models/a%20b/labels/x%2Fy?z", b"")) == (201, found)


def test_errors_are_json(ask):
    assert ask(OPEN, post("/servingd/v1/refuse", b"")) == (400, {"error": "not now"})
    assert ask(OPEN, post("/servingd/v1/fail", b"")) == (400, {"error": "too late"})


@pytest.mark.parametrize("header", ["authorization: wrong", "accept: x"])
@pytest.mark.parametrize("path", [RECYCLE, "/servingd/v1/models", "/servingd/v1/nothing"])
def test_whoever_has_no_token_learns_nothing(ask, path, header):
    error = {"error": "administrators' calls need a token: Authorization: Bearer TOKEN"}
    assert ask(LOCKED, post(path, b"", header)) == (401, error)


@pytest.mark.parametrize("header", [RIGHT, "accept: x"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_at_another_port_it_is_refused_with_and_without_a_token(ask, method, header):
    error = {"error": "administrators' calls are served on another port"}
    assert ask(ELSEWHERE, get(RECYCLE, header, method=method)) == (403, error)


@pytest.mark.parametrize("door", [OPEN, LOCKED, ELSEWHERE])
def test_pages_need_no_token_and_are_at_both_ports(ask, door):
    assert ask(door, get("/servingd/v1/models")) == (200, {"models": []})
    assert ask(door, get("/livez")) == (200, b"ok\n")
    wrong = {"error": "GET is not supported here; POST is"}
    assert ask(door, get(RECYCLE)) == (405, wrong)


def test_other_methods_and_paths(ask):
    assert ask(LOCKED, get(RECYCLE, RIGHT, method="PUT"))[0] == 405
    assert ask(LOCKED, post("/servingd/v1/models", b"", RIGHT))[0] == 405
    assert ask(LOCKED, post("/servingd/v1/nothing", b"", RIGHT))[0] == 404
    assert ask(LOCKED, post("/livez", b""))[0] == 405


def test_refusals_are_told_and_name_the_scheme():
    told = Counter()
    locked = Doorkeeper(admits=lambda given: False, refused=lambda code: told.update([code]))
    away = Doorkeeper(here=False, refused=lambda code: told.update([code]))
    for door, head in ((locked, b"www-authenticate: Bearer\r\n"), (away, b"403 Forbidden\r\n")):
        actions = Actions(TABLE, door)
        transport = HttpTransport(lambda request, reply, taker=actions: taker.take(request, reply))
        port = transport.bind("127.0.0.1", 0)
        transport.start()
        with connect(port) as client:
            client.sendall(post(RECYCLE, b""))
            assert head in received(client)
        transport.stop()
    assert told == {Code.UNAUTHENTICATED: 1, Code.PERMISSION_DENIED: 1}


@pytest.mark.parametrize("header", ["origin: http://evil.example", "sec-fetch-site: cross-site"])
def test_a_page_in_a_browser_may_do_nothing_without_a_token(ask, header):
    status, answer = ask(Doorkeeper(), get(RECYCLE, header, method="POST"))[:2]
    assert status == 403
    assert "--admin_token_file" in str(answer)
    assert ask(LOCKED, get(RECYCLE, RIGHT, header, method="POST"))[0] == 200
