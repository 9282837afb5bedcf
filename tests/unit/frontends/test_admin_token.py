"""The administrators' token: read from a file, compared, and never shown."""

from __future__ import annotations

import logging
import os

import pytest

from servingd.errors import Code, InvalidConfig, NotFound
from servingd.frontends.admin_token import REFUSED, AdminToken, guarded

SECRET = "s3cret-._~+/token=="


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "token"
    write(path, f"{SECRET}\n")
    return path


def write(path, text):
    path.write_text(text)
    path.chmod(0o600)


def test_the_token_is_admitted_and_nothing_else(file):
    token = AdminToken(str(file))
    for good in (f"Bearer {SECRET}", f"bearer {SECRET}", f"BEARER  {SECRET} "):
        assert token.admits(good)
    for wrong in ("", SECRET, "Bearer", "Bearer ", f"Basic {SECRET}", f"Bearer {SECRET[:-1]}"):
        assert not token.admits(wrong)
    for wrong in (f"Bearer {SECRET}x", f"Bearer {SECRET}, Bearer x", "Bearer é\udcff\0"):
        assert not token.admits(wrong)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("two words", "expected a token of letters, digits and -._~+/ on one line"),
        ("one\ntwo", "expected a token"),
        ("schlüssel", "expected a token"),
        ("x" * 5000, "of at most 4096 bytes"),
    ],
)
def test_a_file_without_a_token_is_refused_and_not_shown(file, content, text):
    write(file, content)
    with pytest.raises(InvalidConfig) as refusal:
        AdminToken(str(file))
    assert refusal.value.message.startswith(f"--admin_token_file: {file}")
    assert text in refusal.value.message
    assert not content.strip() or content.strip() not in refusal.value.message


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"--admin_token_file: .*/none; No such file or directory"):
        AdminToken(str(tmp_path / "none"))
    with pytest.raises(InvalidConfig, match="is no regular file"):
        AdminToken(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidConfig, match="is no regular file"):
        AdminToken(str(tmp_path / "pipe"))


def test_a_file_that_everybody_can_read_is_warned_of(file, caplog):
    AdminToken(str(file))
    assert not caplog.records
    file.chmod(0o644)
    AdminToken(str(file))
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert SECRET not in caplog.text


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(file, caplog):
    caplog.set_level(logging.DEBUG)
    token = AdminToken(str(file))
    write(file, "another")
    assert token.admits("Bearer another")
    assert not token.admits(f"Bearer {SECRET}")
    write(file, "")
    assert token.admits("Bearer another")
    file.unlink()
    assert token.admits("Bearer another")
    assert token.admits("Bearer another")
    replaced = file.with_name("new")  # as secrets are replaced: by a rename
    write(replaced, SECRET)
    replaced.rename(file)
    assert token.admits(f"Bearer {SECRET}")
    stays = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(stays) == 2, "once for each change"
    assert SECRET not in caplog.text
    assert "another" not in caplog.text


class Call:
    def __init__(self, authorization):
        self._authorization = authorization
        self.outcome = None

    def authorization(self):
        return self._authorization

    def send(self, payload):
        self.outcome = payload

    def fail(self, code, message, retry_after_s=None):
        self.outcome = code, message


def test_an_rpc_needs_the_token(file):
    refused = []
    handler = guarded(
        lambda payload, reply: reply.send(payload), AdminToken(str(file)), lambda: refused.append(1)
    )
    right, wrong = Call(f"Bearer {SECRET}"), Call("Bearer guess")
    handler(b"ask", right)
    assert right.outcome == b"ask"
    assert not refused
    handler(b"ask", wrong)
    assert wrong.outcome == (Code.UNAUTHENTICATED, REFUSED)
    assert refused == [1]
