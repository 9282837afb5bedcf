"""The server: builds all parts, starts them bottom up, and stops them in the reverse order.

The only place that knows them all. No state lives outside a Server.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from servingd.config.endpoints import MonitoringConfig
from servingd.config.flag_fields import channel_arguments
from servingd.config.models import ModelConfig
from servingd.config.saved_model import SavedModelOptions
from servingd.config.server import ServerConfig
from servingd.core.batching.refusal import AdmissionLimits
from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.lifecycle.versions import ready
from servingd.core.serving import Loader
from servingd.core.types import Device, ServableId, VersionData
from servingd.errors import FailedPrecondition, ServingError
from servingd.frontends.admin.routes import HttpRoutes, Pages, describe_server
from servingd.frontends.call import CallContext
from servingd.frontends.grpc.grpcio import DEFAULT_WORKERS
from servingd.frontends.grpc.transport import GrpcFrontend, GrpcOptions
from servingd.frontends.grpc.unread import UnreadLimits
from servingd.frontends.health import Health, Picture
from servingd.frontends.http.connection import HttpLimits
from servingd.frontends.http.shared_page import SharedPage
from servingd.frontends.http.transport import HttpTransport
from servingd.frontends.tfs.rest.api import RestApi, RestOptions
from servingd.frontends.tfs.rpc.methods import RpcMethods
from servingd.frontends.tls import ssl_context
from servingd.inference.calls import Checks
from servingd.inference.replay import replay
from servingd.machine.cpus import cpus
from servingd.machine.memory import memory_share
from servingd.observability.metrics import Metrics
from servingd.observability.state_log import log_state
from servingd.runtime.batching.dispatcher import Dispatcher, DispatchOptions
from servingd.runtime.byte_budget import ByteBudget
from servingd.runtime.first_calls import FirstCalls
from servingd.runtime.manager.manager import Manager
from servingd.runtime.manager.options import manager_options, manager_state, rules_of
from servingd.runtime.manager.reloader import Reloader, log_reload
from servingd.runtime.manager.serving_map import ServingMap
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.runtime.request_log.logs import RequestLogs
from servingd.runtime.threads import WorkerPool
from servingd.runtime.warm_up.recorded import WarmUp
from servingd.runtime.warm_up.self_warm_up import SelfWarmUp
from servingd.servables.made_up_inputs import synthetic_inputs
from servingd.servables.registry import Platforms
from servingd.servables.saved_model.loader import Hooks
from servingd.sources.catalogs import (
    ConfiguredCatalog,
    RepositoryCatalog,
    known_models,
    listed_models,
    make_catalog,
)
from servingd.sources.config_file import ConfigFilePoll
from servingd.sources.file_system import FileSystemSource, SourceOptions
from servingd.wire.config.files import read_monitoring, read_tls
from servingd.wire.config.models import configured_models
from servingd.wire.config.saved_model import saved_model_options

_LEAST_UNREAD = 512 << 20
_MAX_HTTP_BODY = 256 << 20
_UNLOAD_TIMEOUT_S = 30.0
_SCAN_THREADS = 4
_SHOWN_TROUBLES = 10
"""Of so many models `/readyz` says what is wrong with them."""

_log = logging.getLogger(__name__)


class Server:
    """One model server. `start` and `stop` once each, from one thread."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._checks = Checks(config.enable_signature_method_name_check, config.check_input_shapes)
        self._stack = ExitStack()
        self._stopping = False
        self._started = threading.Event()  # every first model has come up, or failed for good
        self._settings: Mapping[str, ModelConfig] = {}  # of each model; replaced whole
        self._looked = False  # whether the source has told which models there are

        self.metrics = Metrics()
        self._monitor = self._make_monitor()
        saved_models = saved_model_options(config)
        self._sampling = WorkerPool("samples", 1)
        self._self_warm_up = self._make_self_warm_up()
        warm_up = self._make_warm_up(saved_models)
        placements = self.metrics.placements
        hooks = Hooks(
            self._on_graph_state,
            warm_up.again,
            placements.report,
            self._on_replica_failed,
            self.metrics.counts.attempted,
        )
        self._platforms = Platforms(saved_models, hooks)
        self._request_logs = RequestLogs(
            config.request_log_max_bytes,
            config.request_log_max_files,
            self.metrics.counts.logged,
            saved_models.tags,
        )
        self._dispatcher = self._make_dispatcher()
        self._models = ServingMap(self._monitor, self._dispatcher)
        self._first_calls = FirstCalls(self._models, enabled=config.hold_calls_during_start)
        self._manager = self._make_manager(warm_up)
        placements.watch(lambda: self._manager.plan, self._platforms.devices)
        self._catalog = make_catalog(config)
        self._source = self._make_source()
        self._reloader = self._make_reloader()
        self._config_file = self._make_config_file_poll()
        self._calls = self._make_call_context()
        file = config.monitoring_config_file
        self._monitoring = read_monitoring(file) if file else MonitoringConfig(enabled=True)
        self._grpc = self._make_grpc()
        self._health = Health(self._grpc.set_health, self._grpc.forget_health)
        self._rest_workers = WorkerPool("rest", max(1, config.rest_api_num_threads))
        self._page_worker = WorkerPool("metrics-page", 1)
        self._http = self._make_http() if config.rest_api_port else None

    def _make_self_warm_up(self) -> SelfWarmUp:
        made = SelfWarmUp(
            self.metrics.batches.rows_in_use,
            synthetic_inputs,
            self.metrics.self_warm_up.warmed,
            enabled=self._config.self_warm_up,
            later=self._sampling.submit,
        )
        self.metrics.self_warm_up.kept = made.sizes
        return made

    def _make_reloader(self) -> Reloader:
        return Reloader(
            self._models,
            self._monitor,
            self._platforms.names,
            self._replace_models,
            self._config.allow_version_labels_for_unavailable_models,
        )

    def _make_dispatcher(self) -> Dispatcher:
        config = self._config
        return Dispatcher(
            DispatchOptions(
                inline_below_s=config.inline_below_us / 1e6,
                merge=config.merge_waiting_calls,
                goal_s=self._goal_s,
                merging=lambda name: m.merging if (m := self._settings.get(name)) else "auto",
                limits=AdmissionLimits(
                    max_wait_s=config.max_queue_s,
                    max_bytes=memory_share(config.max_queue_mb),
                ),
                workers=max(2, cpus()),
                self_warm_up=self._self_warm_up,
            ),
            self.metrics.batches,
        )

    def _make_manager(self, warm_up: WarmUp) -> Manager:
        config = self._config
        return Manager(
            manager_state(config),
            self._make_loader,
            self._models,
            self._monitor,
            self._dispatcher,
            manager_options(config, warm_up, self._platforms.devices),
            self._on_load,
        )

    def _make_source(self) -> FileSystemSource:
        config = self._config
        return FileSystemSource(
            self._catalog,
            self._platforms.__getitem__,
            self._platforms.recognise,
            self._manager.aspire,
            self._configure,
            self._on_absent,
            SourceOptions(
                poll_wait_s=config.file_system_poll_wait_seconds,
                threads=WorkerPool("scan", _SCAN_THREADS),
            ),
        )

    def _make_call_context(self) -> CallContext:
        config = self._config
        return CallContext(
            models=self._models,
            metrics=self.metrics.requests,
            knows=lambda name: name in self._monitor.configured(),
            request_log=self._request_logs,
            first_calls=self._first_calls,
            checks=self._checks,
            as_content=config.enable_serialization_as_tensor_content,
        )

    def _make_monitor(self) -> StateMonitor:
        monitor = StateMonitor()
        monitor.subscribe(log_state)
        monitor.subscribe(self.metrics.on_state)
        monitor.subscribe(self._on_state)
        monitor.subscribe_incomplete(self.metrics.on_incomplete)
        return monitor

    def _make_warm_up(self, options: SavedModelOptions) -> WarmUp:
        return WarmUp(
            lambda body, request: replay(body, request, self._checks),
            self.metrics.counts.warmed_up,
            enabled=options.enable_model_warmup,
            iterations=options.warmup_iterations,
            threads=options.warmup_threads,
            kept=self._self_warm_up,
        )

    def _make_config_file_poll(self) -> ConfigFilePoll | None:
        config, catalog = self._config, self._catalog
        if not (config.model_config_file or config.servingd_config_file):
            return None
        wait_s = config.model_config_file_poll_wait_seconds
        ended = self.metrics.on_config_reload
        if isinstance(catalog, RepositoryCatalog):
            yaml = config.servingd_config_file
            return ConfigFilePoll(
                lambda: catalog.reread(yaml), lambda models: self._source.look_soon(), wait_s, ended
            )
        return ConfigFilePoll(
            lambda: configured_models(config, self._reloader.models),
            lambda models: self._reload(models, None, log_reload, by_call=False),
            wait_s,
            ended,
        )

    def _make_grpc(self) -> GrpcFrontend:
        config = self._config
        methods = RpcMethods(
            self._calls,
            self._monitor,
            self._reload,
            self.metrics.serving_values,
            self._platforms.profiler if config.enable_profiler else None,
            config.max_request_bytes,
        )
        options = GrpcOptions(
            port=config.port,
            socket_path=config.grpc_socket_path,
            admin_port=config.admin_port,
            transport=config.grpc_transport,
            max_request_bytes=config.max_request_bytes,
            ssl=read_tls(config.ssl_config_file) if config.ssl_config_file else None,
            alts=config.use_alts_credentials,
            arguments=channel_arguments(config.grpc_channel_arguments),
            workers=max(DEFAULT_WORKERS, config.grpc_max_threads),
            unread=UnreadLimits(total_bytes=max(_LEAST_UNREAD, memory_share(0))),
        )
        return GrpcFrontend(options, methods.table(), methods.admin_table())

    def _make_http(self) -> HttpTransport:
        config = self._config
        timeout_s = config.rest_api_timeout_in_ms / 1000
        api = RestApi(
            self._calls,
            self._monitor,
            self._rest_workers,
            RestOptions(
                timeout_s=timeout_s if timeout_s > 0 else None,
                cors=config.rest_api_enable_cors_support,
                max_message_bytes=config.max_request_bytes,
                large_bodies=ByteBudget(memory_share(config.large_bodies_mb)),
            ),
        )
        pages = Pages(
            metrics=SharedPage(self.metrics.page, self._page_worker),
            ready=self._why_not_ready,
            started=self._why_not_started,
            describe=lambda: describe_server(os.getpid()),
            explain=self._dispatcher.explain,
            placements=self.metrics.placements,
            monitoring_path=self._monitoring.path if self._monitoring.enabled else "",
        )
        routes = HttpRoutes(api.handle, self._monitor, pages)
        limits = HttpLimits(
            max_body_bytes=min(config.max_request_bytes, _MAX_HTTP_BODY),
            sweep_s=min(0.5, max(0.01, timeout_s / 10)) if timeout_s > 0 else 0.5,
        )
        ssl = config.rest_ssl_config_file
        calm = HttpRoutes(api.handle_elsewhere, self._monitor, pages)
        context = ssl_context(read_tls(ssl)) if ssl else None
        return HttpTransport(routes.handle, limits, context, calm.handle)

    def start(self) -> None:
        """Open the ports, then load what is there; returns before the models are up.

        Raises OSError for a port that is busy, and InvalidConfig for operations that do not load.
        What had started is stopped again.
        """
        self._reloader.check_platforms(known_models(self._catalog))
        self._platforms.prepare()
        with ExitStack() as stack:
            self._request_logs.start()
            stack.callback(self._request_logs.stop)
            self._sampling.start()
            stack.callback(self._sampling.stop, 2.0)
            self._update_health()  # before the ports open: whoever asks first is told NOT_SERVING
            self._open_ports(stack)
            self._reloader.begin(listed_models(self._catalog))
            self._manager.start()
            stack.callback(self._manager.stop, _UNLOAD_TIMEOUT_S)
            stack.callback(self._platforms.stop)  # first: a load may wait for an optimiser
            self._source.start()
            stack.callback(self._source.stop)
            if self._config_file is not None:
                self._config_file.start()
                stack.callback(self._config_file.stop)
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
            for workers in (self._rest_workers, self._page_worker):
                workers.start()
                stack.callback(workers.stop, 2.0)
            stack.callback(self._http.stop)
            self._http.start()
            _log.info(
                "Exporting HTTP/REST API at:localhost:%d ... (and at every address of this host)",
                rest_port,
            )
        self._grpc.start()
        for place in self._grpc.places(port):
            _log.info("Running gRPC ModelServer at %s", place)

    def _drain(self) -> None:
        self._stopping = True
        self._update_health()
        self._first_calls.stop()
        if self._config.drain_delay_s:
            _log.info("not ready any more; draining in %.1f s", self._config.drain_delay_s)
            threading.Event().wait(self._config.drain_delay_s)
        deadline = time.monotonic() + self._config.drain_timeout_s
        _log.info("waiting for calls in flight")
        self._grpc.refuse()
        if self._http is not None:
            self._http.refuse()
        idle = self._grpc.wait_idle(deadline)
        if self._http is not None:
            idle = self._http.wait_idle(deadline) and idle
        if not idle:
            _log.warning("calls are cut off after %.1f s", self._config.drain_timeout_s)

    # What administrators ask ----------------------------------------------------------------------

    def _reload(
        self,
        models: tuple[ModelConfig, ...],
        timeout_s: float | None,
        done: Callable[[ServingError | None], None],
        *,
        by_call: bool = True,
    ) -> None:
        """Replace the models that were configured; see `Reloader`."""
        if not isinstance(self._catalog, ConfiguredCatalog):
            raise FailedPrecondition(
                f"the models are those of {self._config.model_repository}: they cannot be reloaded"
            )
        longest = self._config.reload_timeout_s
        self._reloader.reload(models, min(longest, timeout_s or longest), done, by_call)

    def reread(self) -> None:
        """Read the configuration files again and apply what they say of models. Does not wait."""
        if self._config_file is None:
            _log.warning("there is no configuration file to read again")
        else:
            _log.info("reading the configuration files again")
            self._config_file.read_now()

    def _replace_models(self, models: tuple[ModelConfig, ...]) -> None:
        assert isinstance(self._catalog, ConfiguredCatalog)  # only such a one is reloaded
        self._catalog.replace(models)
        self._source.look_soon()

    # What the parts ask ---------------------------------------------------------------------------

    def _make_loader(self, servable_id: ServableId, data: VersionData) -> Loader:
        return self._platforms[data.platform].loader(servable_id, data)

    def _on_graph_state(self, servable_id: ServableId, state: str) -> None:
        self.metrics.on_graph_state(servable_id, state)
        if state in ("optimised", "declined"):
            self._manager.grown(servable_id, grew=state == "optimised")

    def _on_replica_failed(self, servable_id: ServableId, device: Device) -> None:
        self._manager.replica_failed(servable_id, device)

    def _on_load(self, servable_id: ServableId, seconds: float, succeeded: bool) -> None:
        self.metrics.on_load(servable_id, seconds, succeeded)
        if not succeeded:
            self._first_calls.settle(servable_id.name)

    def _on_absent(self, name: str, reason: str) -> None:
        self._monitor.report_absent(name, reason)
        if reason:
            self._first_calls.settle(name)

    def _on_state(self, state: ServableState) -> None:
        self._update_health()
        if not self._first_calls.over:
            states = {s.state for s in self._monitor.of_model(state.id.name)}
            if not states & {PublicState.START, PublicState.LOADING}:
                self._first_calls.settle(state.id.name)

    def _configure(self, configured: Mapping[str, ModelConfig]) -> None:
        models = frozenset(configured)
        self._monitor.configure(models)
        self.metrics.configure(models)
        self._self_warm_up.keep_only(models)
        known = tuple(configured.values())
        self._settings = dict(configured)
        self._request_logs.configure(known)
        self._manager.configure(rules_of(self._config, known))
        if not self._looked:
            self._looked = True
            self._monitor.notify_when(models, PublicState.AVAILABLE, self._all_up)
        self._first_calls.expect(models)
        self._update_health()

    def _goal_s(self, name: str) -> float:
        model = self._settings.get(name)
        own = model.latency_goal_ms if model else 0.0
        return (own or self._config.latency_goal_ms) / 1e3

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
        missing = sorted(configured - available)
        named = ", ".join(missing) or "none is configured"
        troubles = (self._monitor.trouble(name) for name in missing[:_SHOWN_TROUBLES])
        lines = [f"not ready by rule {self._config.ready_when}; not available: {named}"]
        return "\n".join(lines + [trouble for trouble in troubles if trouble])

    def _ready_rule(self) -> str | list[str]:
        rule = self._config.ready_when
        return rule if rule in ("all", "any") else rule.split(",")

    def _update_health(self) -> None:
        def look() -> Picture:
            stopping = self._stopping
            available = frozenset() if stopping else self._monitor.available()
            configured = self._monitor.configured()
            if not self._looked:
                configured = frozenset(model.name for model in listed_models(self._catalog))
            return Picture(self._why_not_ready() is None, stopping, configured, available)

        self._health.update(look)
