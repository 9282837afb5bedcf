"""HTTP/2 by hand: frames on a raw socket, for clients that break rules."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from tests.http_client import connect

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _integer(value: int, prefix_bits: int) -> bytes:
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((value,))
    out, value = bytearray((most,)), value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def block(headers: list[tuple[str, str]]) -> bytes:
    """Headers as HPACK, none of them indexed or compressed."""
    out = b""
    for name, value in headers:
        key, text = name.encode(), value.encode()
        out += b"\0" + _integer(len(key), 7) + key + _integer(len(text), 7) + text
    return out


def call_headers(path: str, *more: tuple[str, str], content_type: str = "application/grpc"):
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", content_type),
        *more,
    ]


def message(payload: bytes, compressed: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return struct.pack(">BI", compressed, len(payload)) + payload


class Client:
    """One connection, its preface sent; what it reads is frames."""

    def __init__(self, port: int, settings: bytes = b"", timeout: float = 20) -> None:
        self.socket: socket.socket = connect(port, timeout)
        self._data = b""
        self._next = 1
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send; False if the server does not take it any more."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def open(self, path: str, *more: tuple[str, str], end: bool = False, **headers: str) -> int:
        """Begin a call; its stream."""
        stream, self._next = self._next, self._next + 2
        head = block(call_headers(path, *more, **headers))
        first, rest = head[:16384], head[16384:]
        flags = END_STREAM if end else 0
        frames = frame(HEADERS, flags | (0 if rest else END_HEADERS), stream, first)
        while rest:
            first, rest = rest[:16384], rest[16384:]
            frames += frame(CONTINUATION, 0 if rest else END_HEADERS, stream, first)
        self.send(frames)
        return stream

    def data(self, stream: int, payload: bytes, end: bool = True) -> bool:
        frames = b""
        pieces = [payload[i : i + 16384] for i in range(0, len(payload), 16384)] or [b""]
        for i, piece in enumerate(pieces):
            last = end and i == len(pieces) - 1
            frames += frame(DATA, END_STREAM if last else 0, stream, piece)
        return self.send(frames)

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What comes, until the server closes or is silent for the time-out."""
        with contextlib.suppress(ConnectionError):
            while True:
                while len(self._data) >= 9:
                    length = int.from_bytes(self._data[:3], "big")
                    if len(self._data) < 9 + length:
                        break
                    kind, flags, stream = struct.unpack(">BBI", self._data[3:9])
                    payload, self._data = self._data[9 : 9 + length], self._data[9 + length :]
                    yield kind, flags, stream & 0x7FFFFFFF, payload
                received = self.socket.recv(1 << 20)
                if not received:
                    return
                self._data += received

    def ends(self, stream: int) -> str:
        """How a call ends: `answered`, `reset`, `connection`; TimeoutError if it does not."""
        for kind, flags, of, _ in self.frames():
            if kind == GOAWAY:
                return "connection"
            if of == stream and kind == RST_STREAM:
                return "reset"
            if of == stream and kind in (DATA, HEADERS) and flags & END_STREAM:
                return "answered"
        return "connection"
