"""Limits on what HTTP clients may make the server hold or wait for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits on what one client may make the server hold or wait for, but for `max_connections`."""

    max_body_bytes: int = 256 << 20
    """`ports.py` sets the smaller of `--max_request_bytes` and this; `reader.py` checks it."""
    max_head_bytes: int = 64 << 10
    max_headers: int = 128
    max_url_bytes: int = 16 << 10
    max_pipelined: int = 32
    max_connections: int = 10_000
    """Of all clients of one loop together."""
    head_s: float = 20.0
    """Seconds from a request's first byte to the end of its headers."""
    progress_s: float = 30.0
    """Seconds for each `progress_bytes` of a body, or of a response that is read slowly."""
    progress_bytes: int = 32 << 10
    idle_s: float = 120.0
    """Seconds between two requests."""
    sweep_s: float = 0.5
    """Seconds between two checks of all connections' deadlines."""
