"""Where a server is, and which of its two protocols a port speaks."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple

from servingd.errors import DeadlineExceeded, InvalidArgument, Unavailable

if TYPE_CHECKING:
    import socket

GRPC_PORT, HTTP_PORT = 8500, 8501

_SCHEMES = {"grpc": ("grpc", False), "grpcs": ("grpc", True)} | {
    "http": ("rest", False),
    "https": ("rest", True),
}
_PORTS = {"grpc": GRPC_PORT, "grpcs": GRPC_PORT, "http": 80, "https": 443}
_TARGET = re.compile(r"(unix|unix-abstract|dns|ipv4|ipv6|passthrough|vsock|xds):")
"""What begins an address that gRPC understands and that is no host and port."""
_PLACE = re.compile(r"(?P<host>\[[^\]/]+\]|[^:/\[\]]+)?(?::(?P<port>\d+))?(?P<prefix>/.*)?")

# The preface of HTTP/2, with settings that change nothing.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS = 4
"""The type of the frame with which a server of HTTP/2 begins."""
_TLS_RECORDS = (0x15, 0x16)


class Address(NamedTuple):
    """A server's address, taken apart."""

    transport: str
    """`grpc` or `rest`."""
    encrypted: bool
    """Whether its scheme says so."""
    host: str
    """Without brackets; of a gRPC target that is no host and port, the whole target."""
    port: int | None
    """None for such a target."""
    prefix: str
    """What precedes every path of HTTP, without a slash at its end."""

    @property
    def target(self) -> str:
        """What gRPC is told."""
        return self.host if self.port is None else self.place

    @property
    def place(self) -> str:
        """Host and port, as they are typed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        schemes = ("grpc", "grpcs") if self.transport == "grpc" else ("http", "https")
        return f"{schemes[self.encrypted]}://{self.place}{self.prefix}"


def parse_address(text: str) -> Address:
    """Return an address; one without a scheme is gRPC's. Raises InvalidArgument."""
    if _TARGET.match(text):
        return Address("grpc", False, text, None, "")
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "grpc", text
    match = _PLACE.fullmatch(rest)
    if scheme not in _SCHEMES or match is None or not rest:
        raise InvalidArgument(
            f"no address of a server: {text!r}; expected host:port, grpc://host:port, "
            "grpcs://host:port, http://host:port or https://host:port"
        )
    transport, encrypted = _SCHEMES[scheme]
    prefix = (match["prefix"] or "").rstrip("/")
    if prefix and transport == "grpc":
        raise InvalidArgument(f"no address of a server: {text!r}; gRPC has no path")
    port = int(match["port"]) if match["port"] else _PORTS[scheme]
    if not 0 < port < 65536:
        raise InvalidArgument(f"no address of a server: {text!r}; there is no port {port}")
    host = (match["host"] or "localhost").strip("[]")
    return Address(transport, encrypted, host, port, prefix)


def find_address(text: str, default_port: int = HTTP_PORT, timeout_s: float = 5.0) -> str:
    """Return an address with its scheme; without one, the port is asked what it speaks.

    Args:
        text: `host`, `host:port`, or an address with a scheme, which is returned as it is.
        default_port: the port of an address without one.
        timeout_s: seconds that asking may take.

    Returns:
        Such as `grpc://localhost:8500` or `http://localhost:8501`; `grpcs` and `https` if the port
        is encrypted. Nobody's certificate is looked at, and nothing but a greeting is sent.

    Raises:
        InvalidArgument: it is no address.
        Unavailable: nobody listens there, or it is another protocol; the text says what to do.
        DeadlineExceeded: whoever listens does not answer.
    """
    if "://" in text or _TARGET.match(text):
        parse_address(text)
        return text
    match = _PLACE.fullmatch(text)
    port = "" if match is None or match["port"] or match["prefix"] else f":{default_port}"
    address = parse_address(text + port)
    scheme = _asked(address, timeout_s)
    return f"{scheme}://{address.place}{address.prefix}"


def _asked(address: Address, timeout_s: float) -> str:
    """Return `grpc` or `http`, whichever the port speaks."""
    import socket

    place, where = address.place, (address.host, address.port)
    try:
        with socket.create_connection(where, timeout_s) as asker:
            scheme = scheme_of(_answer_to_hello(asker), place)
        if scheme is None:
            with socket.create_connection(where, timeout_s) as asker:
                scheme = _encrypted_scheme(asker, address.host) or "http"
        return scheme
    except TimeoutError as error:
        raise DeadlineExceeded(f"{place} did not answer within {timeout_s:g} s") from error
    except OSError as error:
        raise Unavailable(
            f"nobody listens at {place}: {error.strerror or error}. Is the server running? "
            f"Its ports are {GRPC_PORT} (gRPC) and {HTTP_PORT} (HTTP) unless it was told others"
        ) from error


def _answer_to_hello(asker: socket.socket) -> bytes:
    """Return the first nine bytes of an answer to HTTP/2, or as many as there are."""
    answer = b""
    with contextlib.suppress(ConnectionError):  # it could not read this, and ended
        asker.sendall(_HELLO)
        while len(answer) < 9 and (received := asker.recv(9 - len(answer))):
            answer += received
    return answer


def _encrypted_scheme(asker: socket.socket, host: str) -> str | None:
    """Return `grpcs` or `https`, whichever an encrypted port speaks; None if it is none."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with context.wrap_socket(asker, server_hostname=host) as encrypted:
            return "grpcs" if encrypted.selected_alpn_protocol() == "h2" else "https"
    except (ssl.SSLError, ConnectionError):
        return None


def scheme_of(answer: bytes, place: str) -> str | None:
    """Return what a port speaks, by its first nine bytes; None if it may be encrypted.

    Raises Unavailable for any other protocol.
    """
    if len(answer) == 9 and answer[3] == _SETTINGS and not answer.startswith(b"HTTP"):
        return "grpc"
    if answer.startswith((b"HTTP", b"<")):  # some send an error's page alone
        return "http"
    if not answer or answer[0] in _TLS_RECORDS:
        return None
    raise Unavailable(f"{place} speaks neither gRPC nor HTTP: it answered {answer!r}")
