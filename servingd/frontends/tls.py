"""Encrypt the ports, from PEM contents."""

from __future__ import annotations

import os
import ssl
import tempfile

import grpc

from servingd.config.tls_and_monitoring import SSLConfig
from servingd.errors import InvalidConfig


def grpc_credentials(config: SSLConfig | None, alts: bool) -> grpc.ServerCredentials | None:
    """Return grpcio's server credentials; None: plain text."""
    if alts:
        return grpc.alts_server_credentials()
    if config is None:
        return None
    ssl_context(config)  # checks it: grpcio would not say what is wrong
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def ssl_context(config: SSLConfig) -> ssl.SSLContext:
    """Return the HTTP port's TLS context. Raises InvalidConfig if key and certificate differ."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        _load_cert_chain(context, config)
        if config.custom_ca:
            context.load_verify_locations(cadata=config.custom_ca)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidConfig(
            f"server_key, server_cert or custom_ca cannot be used: {error}"
        ) from error
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_cert_chain(context: ssl.SSLContext, config: SSLConfig) -> None:
    """Load key and certificate through a private file: Python reads them from files only.

    The file is in memory where the system supports that, and is removed at once.
    """
    content = f"{config.server_key}\n{config.server_cert}\n".encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("servingd-tls")
        path = f"/proc/self/fd/{descriptor}"
    else:
        descriptor, path = tempfile.mkstemp()
    try:
        os.write(descriptor, content)
        context.load_cert_chain(path)
    finally:
        os.close(descriptor)
        if not path.startswith("/proc/"):
            os.unlink(path)
