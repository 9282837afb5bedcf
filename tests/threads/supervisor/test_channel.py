"""Messages across a real socket pair: in order, whatever their size, and the end of it."""

import queue
import socket
import struct
import threading

import pytest

from servingd.supervisor.link.channel import Channel
from servingd.supervisor.link.messages import Ask, Ping, Pong, encode
from tests.threads.fakes import TIMEOUT


class End:
    """A channel and what it has received."""

    def __init__(self, connection: socket.socket) -> None:
        self.received: queue.SimpleQueue = queue.SimpleQueue()
        self.closed = threading.Event()
        self.times_closed = 0
        self.fails_at: object = None
        self.channel = Channel("test", connection, self._take, self._closed)

    def _take(self, message) -> None:
        if message == self.fails_at:
            raise RuntimeError("a reader that raises")
        self.received.put(message)

    def _closed(self) -> None:
        self.times_closed += 1
        self.closed.set()

    def next(self):
        return self.received.get(timeout=TIMEOUT)


@pytest.fixture
def sockets():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def ends(sockets):
    ends = [End(connection) for connection in sockets]
    for end in ends:
        end.channel.start()
    yield ends
    for end in ends:
        end.channel.close()
    for end in ends:
        assert end.closed.wait(TIMEOUT)
        for thread in end.channel._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        assert end.times_closed == 1


def test_messages_arrive_in_order_both_ways(ends):
    ours, theirs = ends
    for number in range(200):
        assert ours.channel.send(Pong(number))
        assert theirs.channel.send(Ask(number, "x"))
    assert [theirs.next() for _ in range(200)] == [Pong(n) for n in range(200)]
    assert [ours.next() for _ in range(200)] == [Ask(n, "x") for n in range(200)]


def test_large_messages_pass_both_ways_at_the_same_time(ends):
    """Each side writes more than the socket holds before it has read anything."""
    ours, theirs = ends
    large = Ask(1, "x", bytes(16 << 20))
    for end in ends:
        end.channel.send(large)
        end.channel.send(Ping())
    for end in (ours, theirs):
        assert end.next() == large
        assert end.next() == Ping()


def test_one_message_that_cannot_be_taken_ends_no_other(ends, caplog):
    ours, theirs = ends
    theirs.fails_at = Pong(1)
    for number in range(3):
        ours.channel.send(Pong(number))
    assert [theirs.next(), theirs.next()] == [Pong(0), Pong(2)]
    assert "a message could not be taken" in caplog.text


def test_bytes_that_are_no_message_end_no_other(sockets, caplog):
    ours, theirs = sockets
    end = End(ours)
    end.channel.start()
    for data in (b"nonsense", encode(Ping())):
        theirs.sendall(struct.pack("!I", len(data)) + data)
    assert end.next() == Ping()
    assert "a message could not be taken" in caplog.text
    theirs.close()
    assert end.closed.wait(TIMEOUT)
    end.channel.close()


def test_a_message_that_is_cut_off_is_not_taken(sockets):
    ours, theirs = sockets
    end = End(ours)
    end.channel.start()
    data = encode(Ping())
    theirs.sendall(struct.pack("!I", len(data)) + data[:-1])
    theirs.close()
    assert end.closed.wait(TIMEOUT)
    assert end.received.empty()
    end.channel.close()


def test_the_other_side_learns_of_a_close(ends):
    ours, theirs = ends
    ours.channel.close()
    assert theirs.closed.wait(TIMEOUT)
    assert ours.closed.wait(TIMEOUT)
    assert ours.channel.send(Ping()), "dropped: there is nobody any more"


def test_what_waits_is_written_before_the_end(ends):
    ours, theirs = ends
    for number in range(1000):
        ours.channel.send(Ask(number, "x", bytes(10_000)))
    ours.channel.finish(TIMEOUT)
    assert [theirs.next().number for _ in range(1000)] == list(range(1000))
    assert theirs.closed.wait(TIMEOUT)


def test_what_cannot_be_sent_is_the_senders_error(ends):
    with pytest.raises(TypeError):
        ends[0].channel.send(Ask(1, "x", object()))
