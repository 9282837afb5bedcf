"""Calls over gRPC: channels, and what their errors mean. Imports grpc, which takes a while."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from servingd.client.calls import Call, Send
from servingd.client.hints import retry_after_s
from servingd.client.settings import Headers, Settings, Tls
from servingd.errors import FailedPrecondition, InvalidArgument, ServingError, error_from_code

_REQUEST_ID = "x-request-id"
_FIRST_RECONNECT_MS = 50
"""gRPC's own pause before it connects again is a second, longer than our attempts take."""
_LONGEST_RECONNECT_MS = 5_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_NO_GRPC = "Expected SETTINGS frame"
"""What gRPC says of such a port, among much else."""

Options = list[tuple[str, Any]]

CONNECTION_OF_ITS_OWN: Options = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
"""For channels that share no connection with others to the same server, nor limit messages."""


class GrpcTransport:
    """A pool of channels, used in turns. Thread-safe."""

    def __init__(self, target: str, settings: Settings) -> None:
        """Connect at the first call. Raises OSError for files of TLS that cannot be read."""
        self._settings = settings
        self._channels = [open_channel(grpc, target, settings) for _ in range(settings.connections)]
        self._turn = itertools.count()
        self._methods: dict[tuple[int, str], Any] = {}

    def send(self, command: Send) -> Any:
        """Send a call; return its answer, or a stream whose first part has come.

        Raises the ServingError of the call's status.
        """
        method = self._method(command.call)
        try:
            call = method(
                command.call.body, timeout=command.timeout_s, metadata=metadata_of(command)
            )
            return GrpcParts(call) if command.call.is_stream else call
        except grpc.RpcError as error:
            raise translate(error) from error
        except ValueError as error:
            raise refused(error) from error

    def close(self) -> None:
        """Close all connections; calls under way fail with CANCELLED."""
        for channel in self._channels:
            channel.close()

    def _method(self, call: Call) -> Any:
        """Return what sends calls like this one, on the channel whose turn it is."""
        turn = next(self._turn) % len(self._channels)
        key = (turn, call.path)
        method = self._methods.get(key)
        if method is None:
            method = self._methods[key] = method_of(self._channels[turn], call)
        return method


class GrpcParts:
    """A stream that has begun: an iterator over its parts. For one thread at a time."""

    def __init__(self, call: Any) -> None:
        """Wait for the first part, so that an error before it is one of the call."""
        self._call = call
        self._first = list(itertools.islice(call, 1))

    def __iter__(self) -> Iterator[bytes]:
        """Yield the parts. Raises the ServingError of the call's status."""
        try:
            yield from self._first
            yield from self._call
        except grpc.RpcError as error:
            raise translate(error) from error

    def close(self) -> None:
        """End the stream; nothing happens if it has ended."""
        self._call.cancel()


def open_channel(module: Any, target: str, settings: Settings) -> Any:
    """Return a channel of `module`, which is `grpc` or `grpc.aio`."""
    options = [*CONNECTION_OF_ITS_OWN, *_options(settings)]
    compression = grpc.Compression.Gzip if settings.compression else None
    if settings.tls is None:
        return module.insecure_channel(target, options=options, compression=compression)
    return module.secure_channel(
        target, _credentials(settings.tls), options=options, compression=compression
    )


def method_of(channel: Any, call: Call) -> Any:
    """Return what sends calls of this kind; bytes go in and come out as they are."""
    return channel.unary_stream(call.path) if call.is_stream else channel.unary_unary(call.path)


def metadata_of(command: Send) -> Headers:
    """Return a call's metadata."""
    return (*command.headers, *command.call.headers)


def _options(settings: Settings) -> Options:
    options: Options = [
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
    ]
    if settings.keepalive_s > 0:
        options += [
            ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ]
    if settings.tls is not None and settings.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return options


def _credentials(tls: Tls) -> Any:
    def content(path: str | Path | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return grpc.ssl_channel_credentials(
        content(tls.ca_file), content(tls.key_file), content(tls.cert_file)
    )


def translate(error: grpc.RpcError) -> ServingError:
    """Return the ServingError of a call's status, with its hint and the request's id."""
    text = error.details() or ""
    if _NO_GRPC in text:
        text += "; it is no gRPC port: is it one of REST (http://...)?"
    found = error_from_code(error.code().value[0], text)
    trailing = error.trailing_metadata() or ()
    found.retry_after_s = retry_after_s(trailing)
    leading: Headers = getattr(error, "initial_metadata", tuple)() or ()
    for name, value in (*leading, *trailing):
        if name == _REQUEST_ID:
            found.request_id = value
    return found


def refused(error: ValueError) -> ServingError:
    """Return the error for what gRPC refuses by a ValueError: a closed channel, wrong metadata."""
    if "closed" in str(error):
        return FailedPrecondition("the client is closed")
    return InvalidArgument(f"no gRPC call: {error}")
