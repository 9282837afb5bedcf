"""The first line of the log: what is served, where, by how many processes."""

from __future__ import annotations

from servingd import __version__
from servingd.config.server import ServerConfig
from servingd.machine.cpus import cpus
from servingd.machine.memory import ram_budget


def banner(config: ServerConfig) -> str:
    """Return the line. It names no model: these are told as they load."""
    host = config.host or "every address"
    ports = [
        f"{name} on port {port}"
        for name, port in (
            ("gRPC", config.port),
            ("HTTP", config.rest_api_port),
            ("administrators' gRPC", config.admin_port),
            ("administrators' HTTP", config.admin_rest_port),
        )
        if port
    ]
    if config.grpc_socket_path:
        ports.append(f"gRPC on unix:{config.grpc_socket_path}")
    return (
        f"servingd {__version__}: {', '.join(ports) or 'no port'} of {host}; "
        f"{_workers(config)}; {cpus()} CPUs, "
        f"{(config.ram_budget_mb << 20 or ram_budget()) / (1 << 30):.1f} GiB of memory for models; "
        f"models of {_source(config)}"
    )


def _workers(config: ServerConfig) -> str:
    count = config.workers
    return {"1": "one process", "auto": "as many workers as suit"}.get(count, f"{count} workers")


def _source(config: ServerConfig) -> str:
    sources = [
        value
        for value in (
            config.model_config_file or config.model_repository or config.model_base_path,
            config.servingd_config_file,
        )
        if value
    ]
    return " and ".join(sources)
