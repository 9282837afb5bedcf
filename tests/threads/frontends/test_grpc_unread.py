"""Answers that nobody reads: counted by connection, bounded, and cut off after a while."""

from __future__ import annotations

import os
import socket

import pytest

from servingd.frontends.grpc.unread import Unread, UnreadLimits, connections_of

MIB = 1 << 20
LIMITS = UnreadLimits(connection_bytes=20 * MIB, total_bytes=30 * MIB, stalled_s=20.0)


class Wire:
    """A client's connection: what it has taken, and whether it was cut."""

    def __init__(self):
        self.taken, self.is_cut = 0, False

    def acked(self):
        return self.taken

    def cut(self):
        self.is_cut = True


class Front:
    def __init__(self):
        self.wires = {"a": Wire(), "b": Wire()}
        self.time = 100.0
        self.looks = 0
        self.unread = Unread(self.look, LIMITS, lambda: self.time)

    def look(self):
        self.looks += 1
        return self.wires

    def hand(self, peer, size=MIB):
        self.time += 0.1
        return self.unread.admits(peer, size)


@pytest.fixture
def front():
    return Front()


def test_a_client_that_takes_nothing_is_given_no_more_than_the_limit(front):
    given = [front.hand("a") for _ in range(40)]
    assert given == [True] * 20 + [False] * 20
    assert front.hand("b")


def test_a_client_that_takes_its_answers_is_given_any_number(front):
    for _ in range(200):
        assert front.hand("a")
        front.wires["a"].taken += MIB
    assert front.looks < 60


def test_all_together_are_bounded_too(front):
    assert [front.hand("a") for _ in range(20)] == [True] * 20
    given = [front.hand("b") for _ in range(20)]
    assert given == [True] * 10 + [False] * 10


def test_one_large_answer_is_always_given(front):
    assert front.hand("a", 100 * MIB)
    assert not front.hand("a")


def test_what_is_gone_is_owed_nothing(front):
    for _ in range(20):
        front.hand("a")
    del front.wires["a"]
    assert [front.hand("b") for _ in range(20)] == [True] * 20


def test_who_takes_nothing_for_a_while_is_cut_off_and_who_takes_slowly_is_not(front):
    for peer in "ab":
        for _ in range(5):
            front.hand(peer)
    for _ in range(30):
        front.time += 1.0
        front.wires["b"].taken += 1000
        front.unread.tick()
        if front.time < 118:
            assert not front.wires["a"].is_cut
    assert front.wires["a"].is_cut
    assert not front.wires["b"].is_cut


def test_at_the_end_patience_is_short(front):
    front.hand("a")
    front.unread.stopping = True
    for _ in range(10):
        front.time += 0.3
        front.unread.tick()
    assert front.wires["a"].is_cut


def test_nobody_looks_while_nobody_is_owed_anything(front):
    for _ in range(100):
        front.time += 1.0
        front.unread.tick()
    assert not front.looks


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="sockets are found by /proc")
def test_a_real_connection_is_found_counted_and_cut():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            taken, _ = server.accept()
            with taken:
                (wire,) = (
                    w
                    for name, w in connections_of(port).items()
                    if name == f"ipv4:127.0.0.1:{client.getsockname()[1]}"
                )
                before = wire.acked()
                taken.sendall(bytes(5000))
                assert len(client.recv(5000, socket.MSG_WAITALL)) == 5000
                assert wire.acked() - before == 5000
                wire.cut()
                assert client.recv(1) == b""
