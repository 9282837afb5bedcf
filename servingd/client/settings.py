"""How a client calls: retries, encryption, and what else holds for all of its calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from servingd.errors import Code, InvalidArgument, ServingError

Token: TypeAlias = str | Callable[[], str]
"""A token, or what returns the one that is good now; it is asked before each attempt."""

Headers: TypeAlias = tuple[tuple[str, str], ...]

PRIORITIES = ("high", "normal", "low")
_NAME = re.compile(r"[a-z0-9_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call that failed is tried again, and after how long. `Retry(attempts=1)`: never.

    Only calls that change nothing are tried again: all but `reload`, and `page` where it posts.
    A stream is tried again until its first part has come. Nothing is tried past the deadline.
    """

    attempts: int = 3
    """Attempts in all, the first one included."""
    first_s: float = 0.05
    """Seconds before the second attempt."""
    factor: float = 2.0
    """By what each pause is longer than the one before."""
    longest_s: float = 2.0
    """The longest pause in seconds, but for one that the server asks for."""
    jitter: float = 0.2
    """The share by which pauses differ at random, so that clients do not come back all at once."""
    codes: tuple[str, ...] = ("UNAVAILABLE",)
    """Codes that are worth another attempt."""
    hinted_codes: tuple[str, ...] = ("RESOURCE_EXHAUSTED",)
    """Codes that are, if the server says when to come again."""

    def __post_init__(self) -> None:
        """Check the values. Raises InvalidArgument."""
        for code in (*self.codes, *self.hinted_codes):
            if code not in Code.__members__:
                known = ", ".join(Code.__members__)
                raise InvalidArgument(f"Retry: {code!r} is no code; there are: {known}")
        if self.attempts < 1 or min(self.first_s, self.factor, self.longest_s) < 0:
            raise InvalidArgument("Retry: expected attempts >= 1, and no negative time or factor")
        if not 0 <= self.jitter <= 1:
            raise InvalidArgument(f"Retry: expected jitter from 0 to 1, got {self.jitter}")

    def pause_s(
        self, attempt: int, error: ServingError, left_s: float | None, chance: float
    ) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is to be none.

        Args:
            attempt: the number of the attempt that failed, from 1.
            error: how it failed. Its hint, if it has one, is the least that is waited.
            left_s: seconds until the deadline; None without one.
            chance: from 0 to 1, by which the pause is varied.
        """
        hint = error.retry_after_s
        code = error.code.name
        may = code in self.codes or (hint is not None and code in self.hinted_codes)
        if not may or attempt >= self.attempts:
            return None
        usual = min(self.longest_s, self.first_s * self.factor ** (attempt - 1))
        pause = usual * (1 + self.jitter * (2 * chance - 1))
        if hint is not None:
            pause = max(pause, hint * (1 + self.jitter * chance))  # never earlier than asked
        return None if left_s is not None and pause >= left_s else pause


@dataclass(frozen=True, slots=True)
class Tls:
    """How a connection is encrypted. Files are of PEM."""

    ca_file: str | Path | None = None
    """Certificates of those who may vouch for the server; None: those that the system trusts."""
    cert_file: str | Path | None = None
    """The client's own certificate, for servers that ask for one (mTLS)."""
    key_file: str | Path | None = None
    """The key of `cert_file`."""
    server_name: str | None = None
    """The name that the server's certificate must have, where it is not that of the address."""

    def __post_init__(self) -> None:
        """Check the values. Raises InvalidArgument."""
        if (self.cert_file is None) != (self.key_file is None):
            raise InvalidArgument("Tls: cert_file and key_file are given together, or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for all calls of a client; see `Client`."""

    tls: Tls | None = None
    token: Token | None = None
    timeout_s: float | None = 30.0
    retry: Retry = field(default_factory=Retry)
    connections: int = 1
    compression: Literal["gzip"] | None = None
    keepalive_s: float = 30.0
    priority: str | None = None
    headers: Headers = ()

    def __post_init__(self) -> None:
        """Check the values. Raises InvalidArgument."""
        if self.connections < 1:
            raise InvalidArgument(f"connections: expected 1 or more, got {self.connections}")
        if self.compression not in (None, "gzip"):
            raise InvalidArgument(f"compression: expected 'gzip' or None, got {self.compression!r}")
        check_priority(self.priority)
        for name, value in self.headers:
            if not _NAME.fullmatch(name):
                raise InvalidArgument(f"headers: {name!r} is no name of a header")
            check_header(name, value)

    def authorization(self) -> str | None:
        """Return the header `authorization`, with the token that is good now; None without one."""
        token = self.token() if callable(self.token) else self.token
        if token is None:
            return None
        check_header("authorization", token)
        return f"Bearer {token}"


def settings_of(
    tls: Tls | bool, encrypted: bool, headers: Mapping[str, str], **others: object
) -> Settings:
    """Return the settings that a client was given; `encrypted` is what its address says."""
    chosen = tls if isinstance(tls, Tls) else Tls() if tls or encrypted else None
    named = tuple((name.lower(), value) for name, value in headers.items())
    return Settings(tls=chosen, headers=named, **others)  # type: ignore[arg-type]


def check_header(name: str, value: str) -> None:
    """Raise InvalidArgument for what no header can hold; the text does not show it."""
    if not _VALUE.fullmatch(value):
        raise InvalidArgument(f"{name}: expected printable ASCII characters on one line")


def check_priority(priority: str | None) -> None:
    """Raise InvalidArgument for a priority that there is not."""
    if priority is not None and priority not in PRIORITIES:
        raise InvalidArgument(f"priority: expected high, normal or low, got {priority!r}")
