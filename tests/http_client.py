"""HTTP by hand: raw sockets, for clients that break rules."""

from __future__ import annotations

import socket


def connect(port: int, timeout: float = 10, receive_buffer: int = 0) -> socket.socket:
    """A connection; with a small receive buffer it takes little that it does not read."""
    client = socket.socket()
    client.settimeout(timeout)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    return client


def get(path="/", *headers: str, method="GET", body=b"") -> bytes:
    """A request's bytes."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request with a body of announced length."""
    return get(path, f"content-length: {len(body)}", *headers, method="POST", body=body)


class Answers:
    """Reads a connection's answers one by one."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._data = b""

    def next(self, head: bool = False) -> tuple[int, bytes]:
        """Status and body; EOFError if there is none any more."""
        while b"\r\n\r\n" not in self._data:
            self._data += received(self._client)
        start, self._data = self._data.split(b"\r\n\r\n", 1)
        status = int(start.split()[1])
        if head or status == 100:
            return status, b""
        length = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        pieces, missing = [self._data], length - len(self._data)
        while missing > 0:
            pieces.append(received(self._client))
            missing -= len(pieces[-1])
        data = b"".join(pieces)
        self._data = data[length:]
        return status, data[:length]


def answer(client: socket.socket) -> tuple[int, bytes]:
    """The next answer, where nothing follows it."""
    return Answers(client).next()


def received(client: socket.socket) -> bytes:
    """What comes next; EOFError at the end."""
    data = client.recv(1 << 20)
    if not data:
        raise EOFError("closed")
    return data


def ended(client: socket.socket) -> bool:
    """Whether the server closes the connection, within the socket's time-out."""
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True
