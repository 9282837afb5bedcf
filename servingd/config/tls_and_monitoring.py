"""The encryption of ports (`SSLConfig`), and the path of the metrics page (`MonitoringConfig`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from servingd.errors import InvalidConfig

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SSLConfig:
    """PEM contents, not paths. Its `repr` shows no secret."""

    server_key: str = field(repr=False)
    """The private key."""

    server_cert: str = field(repr=False)
    """The server's certificate, followed by those up to a root."""

    custom_ca: str = field(default="", repr=False)
    """The root certificates for clients' certificates."""

    client_verify: bool = False
    """Whether clients must present a certificate."""

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
    """Whether the page is served at `path`."""

    path: str = DEFAULT_METRICS_PATH
    """The exact path; a leading slash is added if it has none."""

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
    else:  # the text itself is never shown: it may be a key
        got = f"{len(text)} characters that are none; paths are not followed"
    raise InvalidConfig(f"{name}: expected PEM contents, -----BEGIN {kind}-----, got {got}")
