"""The server: builds all parts, starts them bottom up, and stops them in the reverse order.

The only place that knows them all. No state lives outside a Server.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack

from servingd.config.models import ModelConfig
from servingd.config.saved_model import SavedModelOptions
from servingd.config.server import ServerConfig
from servingd.core.interfaces import Loader
from servingd.core.lifecycle import PublicState
from servingd.core.policies import availability_preserving
from servingd.core.reconcile import ManagerState
from servingd.core.types import ServableId, VersionData
from servingd.core.versions import ready
from servingd.errors import InvalidConfig
from servingd.frontends.grpc import GrpcFrontend
from servingd.frontends.health import Health
from servingd.frontends.http import HttpCarrier
from servingd.frontends.http_connection import HttpLimits
from servingd.frontends.rest import HttpRoutes, describe_server
from servingd.frontends.rpc import RpcMethods
from servingd.observability.life_cycle import log_state
from servingd.observability.metrics import Metrics
from servingd.runtime.dispatcher import Dispatcher, DispatchOptions
from servingd.runtime.manager import Manager, ManagerOptions
from servingd.runtime.serving_map import ServingMap
from servingd.runtime.state_monitor import StateMonitor
from servingd.servables.registry import Platforms
from servingd.sources.file_system import FileSystemSource, FixedRoster, RepositoryRoster, Roster
from servingd.wire.model_server_config import read_models

_MAX_HTTP_BODY = 256 << 20
_UNLOAD_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class Server:
    """One model server. `start` and `stop` once each, from one thread."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._stack = ExitStack()
        self._stopping = False
        self._started = threading.Event()  # every first model has come up, or failed for good
        self._looked = False  # whether the source has told which models there are

        self.metrics = Metrics()
        self._monitor = self._make_monitor()
        self._platforms = Platforms(_saved_model_options(config), self.metrics.on_graph_state)
        self._dispatcher = Dispatcher(
            DispatchOptions(
                inline_below_s=config.inline_below_us / 1e6, workers=max(2, os.cpu_count() or 1)
            )
        )
        self._models = ServingMap(self._monitor, self._dispatcher)
        self._manager = Manager(
            ManagerState(availability_preserving, config.max_num_load_retries),
            self._make_loader,
            self._models,
            self._monitor,
            self._dispatcher,
            _manager_options(config),
            self.metrics.on_load,
        )
        self._source = FileSystemSource(
            _roster(config),
            self._platforms.__getitem__,
            self._platforms.recognise,
            self._manager.aspire,
            self._configure,
            config.file_system_poll_wait_seconds,
        )
        self._grpc = self._make_grpc()
        self._health = Health(self._grpc.set_health, self._grpc.forget_health)
        self._http = self._make_http() if config.rest_api_port else None

    def _make_monitor(self) -> StateMonitor:
        monitor = StateMonitor()
        monitor.subscribe(log_state)
        monitor.subscribe(self.metrics.on_state)
        monitor.subscribe(lambda state: self._update_health())
        monitor.subscribe_incomplete(self.metrics.on_incomplete)
        return monitor

    def _make_grpc(self) -> GrpcFrontend:
        config = self._config
        methods = RpcMethods(
            self._models, self._monitor, self.metrics.requests, config.max_request_bytes
        )
        return GrpcFrontend(
            _any_address(),
            config.port,
            methods.table(),
            config.grpc_transport,
            config.max_request_bytes,
        )

    def _make_http(self) -> HttpCarrier:
        routes = HttpRoutes(
            self._monitor,
            self.metrics.page,
            self._why_not_ready,
            self._why_not_started,
            lambda: describe_server(os.getpid()),
        )
        body = min(self._config.max_request_bytes, _MAX_HTTP_BODY)
        return HttpCarrier(routes.handle, HttpLimits(max_body_bytes=body))

    def start(self) -> None:
        """Open the ports, then load what is there; returns before the models are up.

        Raises OSError for a port that is busy. What had started is stopped again.
        """
        with ExitStack() as stack:
            self._open_ports(stack)
            self._update_health()
            self._manager.start()
            stack.callback(self._manager.stop, _UNLOAD_TIMEOUT_S)
            stack.callback(self._platforms.stop)  # first: a load may wait for an optimiser
            self._source.start()
            stack.callback(self._source.stop)
            stack.callback(self._drain)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Not ready, drain, stop sources, unload, close the ports: start reversed."""
        self._stack.close()
        _log.info("stopped")

    def _open_ports(self, stack: ExitStack) -> None:
        port = self._grpc.bind()
        stack.callback(self._grpc.stop)
        if self._http is not None:
            rest_port = self._http.bind("", self._config.rest_api_port)
            stack.callback(self._http.stop)
            self._http.start()
            _log.info("Exporting HTTP/REST API at:localhost:%d ...", rest_port)
        self._grpc.start()
        _log.info("Running gRPC ModelServer at 0.0.0.0:%d ... (%s)", port, self._grpc.transport)

    def _drain(self) -> None:
        self._stopping = True
        self._update_health()
        if self._config.drain_delay_s:
            _log.info("not ready any more; draining in %.1f s", self._config.drain_delay_s)
            threading.Event().wait(self._config.drain_delay_s)
        deadline = time.monotonic() + self._config.drain_timeout_s
        _log.info("waiting for calls in flight")
        idle = self._grpc.drain(deadline)
        if self._http is not None:
            self._http.refuse()
            idle = self._http.wait_idle(deadline) and idle
        if not idle:
            _log.warning("calls are cut off after %.1f s", self._config.drain_timeout_s)

    # What the parts ask ---------------------------------------------------------------------------

    def _make_loader(self, servable: ServableId, data: VersionData) -> Loader:
        return self._platforms[data.platform].loader(servable, data)

    def _configure(self, names: Iterable[str]) -> None:
        models = frozenset(names)
        self._monitor.configure(models)
        if not self._looked:
            self._looked = True
            self._monitor.notify_when(models, PublicState.AVAILABLE, self._all_up)
        self._update_health()

    def _all_up(self, all_available: bool) -> None:
        gc.freeze()  # what lives now lives long: no collection needs to look at it again
        self._started.set()
        _log.info("started%s", "" if all_available else ", but not every model is available")

    def _why_not_started(self) -> str | None:
        return None if self._started.is_set() else "starting: not every model has come up yet"

    def _why_not_ready(self) -> str | None:
        if self._stopping:
            return "stopping"
        if not self._looked:
            return "starting: the models are not known yet"
        configured, available = self._monitor.configured(), self._monitor.available()
        if ready(self._ready_rule(), configured, available):
            return None
        missing = ", ".join(sorted(configured - available)) or "none is configured"
        return f"not ready by rule {self._config.ready_when}; not available: {missing}"

    def _ready_rule(self) -> str | list[str]:
        rule = self._config.ready_when
        return rule if rule in ("all", "any") else rule.split(",")

    def _update_health(self) -> None:
        available = frozenset() if self._stopping else self._monitor.available()
        self._health.update(
            self._why_not_ready() is None, self._stopping, self._monitor.configured(), available
        )


def _roster(config: ServerConfig) -> Roster:
    if config.model_config_file:
        return FixedRoster(read_models(config.model_config_file))
    if config.model_repository:
        if not os.path.isdir(config.model_repository):
            raise InvalidConfig(
                f"--model_repository: expected a folder, got {config.model_repository!r}"
            )
        return RepositoryRoster(os.path.abspath(config.model_repository))
    model = ModelConfig(name=config.model_name, base_path=os.path.abspath(config.model_base_path))
    return FixedRoster((model,))


def _manager_options(config: ServerConfig) -> ManagerOptions:
    return ManagerOptions(
        num_load_threads=config.num_load_threads or 2,
        num_unload_threads=config.num_unload_threads or 1,
        load_retry_interval_s=config.load_retry_interval_micros / 1e6,
    )


def _saved_model_options(config: ServerConfig) -> SavedModelOptions:
    return SavedModelOptions(
        tags=tuple(config.saved_model_tags.split(",")),
        optimize_models=config.optimize_models,
        cache_dir=config.cache_dir,
    )


def _any_address() -> str:
    return "[::]" if socket.has_dualstack_ipv6() else "0.0.0.0"
