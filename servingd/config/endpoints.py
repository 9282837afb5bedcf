"""How ports are encrypted (`SSLConfig`), and where metrics are served (`MonitoringConfig`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from servingd.errors import InvalidConfig

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SSLConfig:
    """PEM contents, not paths. What is printed of it holds no secret."""

    server_key: str = field(repr=False)
    """The private key."""

    server_cert: str = field(repr=False)
    """The server's certificate, with those that lead from it to a root."""

    custom_ca: str = field(default="", repr=False)
    """The roots that a client's certificate must come from."""

    client_verify: bool = False
    """Whether clients must show a certificate."""

    def __post_init__(self) -> None:
        _check("server_key", "PRIVATE KEY", self.server_key)
        _check("server_cert", "CERTIFICATE", self.server_cert)
        if self.custom_ca:
            _check("custom_ca", "CERTIFICATE", self.custom_ca)
        if self.client_verify and not self.custom_ca:
            raise InvalidConfig(
                "custom_ca: client_verify needs the roots of the clients' certificates, got nothing"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringConfig:
    """The Prometheus page on the HTTP port."""

    enabled: bool = False
    """Whether there is one at `path`."""

    path: str = DEFAULT_METRICS_PATH
    """Compared as it stands; one without a slash in front gets one."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            object.__setattr__(self, "path", f"/{self.path}")


def _check(name: str, kind: str, text: str) -> None:
    found = [block[1] for block in _PEM.finditer(text)]
    if any(block.endswith(kind) and not block.startswith("ENCRYPTED") for block in found):
        return
    if found:
        got = f"PEM of {', '.join(found)}"
    elif not text:
        got = "nothing"
    else:  # never the text itself: it may be a key
        got = f"{len(text)} characters that are none; paths are not followed"
    raise InvalidConfig(f"{name}: expected PEM contents, -----BEGIN {kind}-----, got {got}")
