"""Our own pages: names in them may be percent-encoded."""

from __future__ import annotations

from typing import ClassVar

import pytest

from servingd.frontends.admin.pages import AdminPages, PageContents
from servingd.frontends.admin.status_pages import StatusPages
from servingd.frontends.http.messages import HttpReply, HttpRequest
from servingd.observability.placements import Placements


class OneModel:
    """States of a model with a name that URLs must encode."""

    models: ClassVar = {}

    @property
    def states(self):
        return self

    def names(self):
        return ["a b/c"]

    def of_model(self, name):
        return []

    def absent(self, name):
        return ""

    def incomplete(self, name):
        return {}


class AtOnce:
    """Workers that make a page on the thread that asks for it."""

    def submit(self, job):
        job()


class Writer:
    alone = True

    def answered(self, client):
        pass


class ClientConnection:
    lost = False
    owner = Writer()


def ask(target):
    pages = AdminPages(
        PageContents(
            metrics=None,
            ready=None,
            started=None,
            status=StatusPages(OneModel(), dict, lambda name: {}, Placements()).page,
            workers=AtOnce(),
        )
    )
    reply = HttpReply(ClientConnection(), head=False, keep_alive=True)
    pages.handle(HttpRequest("GET", target, {}, b""), reply)
    return reply.payload


@pytest.mark.parametrize("name", ["a%20b%2Fc", "a%20b%2fc", "%61 b%2Fc"])
def test_a_model_is_found_by_its_encoded_name(name):
    head, body = ask(f"/servingd/v1/models/{name}")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"a b/c" in body


@pytest.mark.parametrize("name", ["a", "a%2520b%2Fc", "%ff", "%"])
def test_another_name_is_not_found(name):
    assert ask(f"/servingd/v1/models/{name}")[0].startswith(b"HTTP/1.1 404")
