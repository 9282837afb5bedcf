"""The token that administrators' calls must carry, over HTTP and over gRPC."""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import re
import stat
import threading
from collections.abc import Callable

from servingd.errors import Code, InvalidConfig, NotFound, ServingError
from servingd.frontends.reply import Handler, Reply

REFUSED = "administrators' calls need a token: Authorization: Bearer TOKEN"

_MAX_BYTES = 4096
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""What a header can carry as a token (RFC 6750)."""

_log = logging.getLogger(__name__)


class AdminToken:
    """The token in a file, which is read again when it has changed. Thread-safe.

    No text here ever shows the token, or what was given in its place.
    """

    def __init__(self, path: str) -> None:
        """Read the file. Raises NotFound or InvalidConfig naming it."""
        self._path = path
        self._lock = threading.Lock()
        # Guarded by _lock: the file's state when it was last read; None: it was not there.
        self._state: tuple[int, ...] | None = _state(path)
        self._token = _read(path)  # guarded by _lock

    def admits(self, authorization: str) -> bool:
        """Return whether a header has the token; as slow for a near miss as for any other."""
        scheme, _, given = authorization.partition(" ")
        found = given.strip().encode(errors="replace")
        return hmac.compare_digest(found, self._current()) and scheme.lower() == "bearer"

    def _current(self) -> bytes:
        """Return the token; one that cannot be read any more stays as it was."""
        state = None
        with contextlib.suppress(NotFound):
            state = _state(self._path)
        with self._lock:
            if state == self._state:
                return self._token
            self._state = state
            try:
                self._token = _read(self._path)
            except ServingError as error:
                _log.warning("the administrators' token stays as it was: %s", error.message)
            else:
                _log.info("the administrators' token was read again from %s", self._path)
            return self._token


def guarded(handler: Handler, token: AdminToken, refused: Callable[[], None]) -> Handler:
    """Return an RPC's handler that refuses calls without the token, and tells `refused`."""

    def guard(payload: bytes, reply: Reply) -> None:
        if token.admits(reply.authorization()):
            handler(payload, reply)
        else:
            refused()
            reply.fail(Code.UNAUTHENTICATED, REFUSED)

    return guard


def _state(path: str) -> tuple[int, ...]:
    """Return what tells that a file has changed. Raises NotFound."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise NotFound(f"--admin_token_file: {path}; {error.strerror}") from None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: str) -> bytes:
    """Return the token in a file. Raises NotFound or InvalidConfig, naming the file."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise InvalidConfig(f"--admin_token_file: {path} is no regular file")
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1).strip()
    except FileNotFoundError as error:
        raise NotFound(f"--admin_token_file: {path}; {error.strerror}") from None
    except OSError as error:
        raise InvalidConfig(f"--admin_token_file: {path}: {error.strerror}") from None
    if not content:
        raise InvalidConfig(f"--admin_token_file: {path} is empty")
    if len(content) > _MAX_BYTES or not _TOKEN.fullmatch(content):
        raise InvalidConfig(
            f"--admin_token_file: {path}: expected a token of letters, digits and -._~+/ on one "
            f"line, of at most {_MAX_BYTES} bytes"
        )
    if mode & stat.S_IROTH:
        _log.warning("every user of this host can read the administrators' token in %s", path)
    return content
