"""All ports of a server: gRPC, HTTP, and what answers on them.

They depend on two Protocols only, so the control plane may be in another process.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

from servingd.config.flag_fields import channel_arguments
from servingd.config.models import ModelConfig
from servingd.config.server import ServerConfig
from servingd.config.tls_and_monitoring import MonitoringConfig
from servingd.config.webhooks import webhooks_in
from servingd.core.call_protocols import Models, States
from servingd.core.readiness import Readiness
from servingd.errors import Code, ServingError
from servingd.frontends.admin.actions import Action, Actions, Doorkeeper
from servingd.frontends.admin.model_actions import ModelControl, model_actions
from servingd.frontends.admin.pages import AdminPages, PageContents
from servingd.frontends.admin.status_pages import Answer
from servingd.frontends.admin_token import AdminToken, guarded
from servingd.frontends.call import CallContext, RequestLog
from servingd.frontends.grpc.grpcio import DEFAULT_WORKERS
from servingd.frontends.grpc.transport import GrpcFrontend, GrpcOptions
from servingd.frontends.grpc.unread import UnreadLimits
from servingd.frontends.grpc_health import Health
from servingd.frontends.http.limits import HttpLimits
from servingd.frontends.http.shared_page import SharedPage
from servingd.frontends.http.transport import HttpTransport
from servingd.frontends.http_routes import HttpRoutes
from servingd.frontends.large_bodies import LargeBodies
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.oip.models import ModelInformation
from servingd.frontends.oip.rest import OipApi
from servingd.frontends.oip.rpc import oip_table
from servingd.frontends.reply import Handler
from servingd.frontends.tfs.rest.api import RestApi, RestOptions
from servingd.frontends.tfs.rest.jobs import JobPages
from servingd.frontends.tfs.rpc.methods import RpcMethods
from servingd.frontends.tfs.rpc.profiler import Profiler
from servingd.frontends.tls import ssl_context
from servingd.inference.checks import Checks
from servingd.machine.memory import memory_share
from servingd.observability.metrics import Metrics
from servingd.runtime.byte_budget import ByteBudget
from servingd.runtime.first_calls import FirstCalls
from servingd.runtime.jobs import Jobs, JobStore
from servingd.runtime.threads import WorkerPool
from servingd.runtime.webhooks import Webhooks
from servingd.wire.config.files import read_monitoring, read_tls

_LEAST_UNREAD = 512 << 20
_MAX_HTTP_BODY = 256 << 20
_LAST_PARTS_S = 0.5
"""Seconds for the last parts of streams, when the server or the worker stops."""
_ADMIN_LIMITS = HttpLimits(max_body_bytes=4 << 20, max_connections=256)
_ACTION = "AdminAction"
"""The method in the metrics of actions over HTTP."""

_log = logging.getLogger(__name__)


class DataPlane(Protocol):
    """What answers calls."""

    @property
    def models(self) -> Models:
        """The versions that are ready."""
        ...

    @property
    def request_logs(self) -> RequestLog:
        """The log of sampled calls."""
        ...

    @property
    def first_calls(self) -> FirstCalls:
        """Holds calls until the first models have loaded."""
        ...

    @property
    def profiler(self) -> Profiler | None:
        """Takes traces of this process; None: it is switched off."""
        ...

    def gather(self, on_first: Callable[[], object] | None = None) -> Callable[[], None]:
        """Queue together the calls that the calling thread reads; see `Gather`."""
        ...

    def end_streams(self) -> int:
        """End all answers in parts with UNAVAILABLE, and refuse new ones; return how many."""
        ...

    def explain(self, name: str) -> Mapping[int, Sequence[Mapping[str, Any]]]:
        """Return the figures of a model's queues, by version."""
        ...


class ControlPlane(ModelControl, Protocol):
    """What decides which versions are served."""

    @property
    def states(self) -> States:
        """The public states of all versions."""
        ...

    def watch_readiness(self, changed: Callable[[], None]) -> None:
        """Call `changed`, on any thread, whenever `readiness` may differ; set before `start`."""
        ...

    def readiness(self) -> Readiness:
        """Return the readiness of the server now. Thread-safe."""
        ...

    def why_not_ready(self) -> str | None:
        """Return why the server is not ready, with the models' troubles; None if it is."""
        ...

    def is_configured(self, name: str) -> bool:
        """Return whether a model is configured; called for each call that finds none."""
        ...

    def reload(
        self,
        models: tuple[ModelConfig, ...],
        timeout_s: float | None,
        done: Callable[[ServingError | None], None],
    ) -> None:
        """Replace the models, as a call requests; see `Reloader.reload`."""
        ...


class Figures(Protocol):
    """What is shown of the whole server. Its methods may wait."""

    def metrics_page(self) -> bytes:
        """Return the metrics page."""
        ...

    def serving_values(self, names: Sequence[str]) -> dict[str, int]:
        """Return single metrics, by TensorFlow Serving's names."""
        ...

    def status_page(self, path: str) -> Answer | None:
        """Return the page at a path under `/servingd/v1/`; None if there is none."""
        ...


class SharedPorts(Protocol):
    """The other processes that have the same ports."""

    def share_jobs(self, store: JobStore) -> Jobs:
        """Let the others ask for this process's jobs; return those of all processes."""
        ...


class Ports:
    """The gRPC and HTTP ports, those of administrators and the Unix socket, as configured.

    `start`, `refuse`, `wait_idle` and `stop` once each, in this order, from one thread.
    """

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        data: DataPlane,
        control: ControlPlane,
        figures: Figures,
        actions: Sequence[Action] = (),
        shared: SharedPorts | None = None,
    ) -> None:
        """Read the files of TLS, monitoring and token.

        `actions` are what administrators can do over HTTP besides changing models. `shared`: other
        processes have the same ports; None: this process is alone. Raises InvalidConfig or NotFound
        naming the file.
        """
        self._shared = shared
        self._figures = figures
        self._config = config
        self._control = control
        self._end_streams = data.end_streams
        self._jobs = JobStore(config.jobs_mb << 20, config.job_age_s)
        allowed = webhooks_in(config.job_webhooks)
        self._webhooks = Webhooks(allowed, self._jobs, config.job_age_s) if allowed else None
        if shared is not None:
            self._jobs.everywhere = shared.share_jobs(self._jobs)
        self._calls = _call_context(config, metrics, data, control)
        self._information = ModelInformation(data.models, control.states, control.why_not_ready)
        self._rest_workers = WorkerPool("rest", max(1, config.rest_api_num_threads))
        self._page_worker = WorkerPool("metrics-page", 1)
        self._token = AdminToken(config.admin_token_file) if config.admin_token_file else None
        self._monitoring_path = _monitoring_path(config.monitoring_config_file)
        self._contents = PageContents(
            metrics=SharedPage(self._figures.metrics_page, self._page_worker),
            ready=control.why_not_ready,
            started=lambda: control.readiness().why_not_started(),
            status=self._figures.status_page,
            workers=self._page_worker,
        )
        actions = [*model_actions(control), *actions]
        self._http = self._build_http(data, actions) if config.rest_api_port else None
        self._admin = self._build_admin(actions) if config.admin_rest_port else None
        self._grpc = self._build_grpc(metrics, data)
        self._health = Health(self._grpc)
        control.watch_readiness(self.update_health)
        self._stack = ExitStack()

    def start(self) -> None:
        """Open the ports. Raises OSError naming a busy port; then all ports are closed."""
        self.update_health()  # the first health check is answered NOT_SERVING
        with ExitStack() as stack:
            self._jobs.start()
            stack.callback(self._jobs.stop)
            if self._webhooks is not None:
                self._webhooks.start()
                stack.callback(self._webhooks.stop)
            port = self._grpc.bind()
            stack.callback(self._grpc.stop)
            if self._http is not None or self._admin is not None:
                self._start_http(stack)
            self._grpc.start()
            for place in self._grpc.places(port):
                _log.info("Running gRPC ModelServer at %s", place)
            self._stack = stack.pop_all()

    def update_health(self) -> None:
        """Update the health service from the server's readiness. Thread-safe."""
        self._health.update(self._control.readiness)

    def leave(self, deadline: float) -> None:
        """Take no more clients, send those there are to other processes, and wait for them to go.

        Returns at `deadline` (monotonic) at the latest. Calls are answered as before.
        """
        https = [http for http in (self._http, self._admin) if http is not None]
        for http in https:
            http.leave()
        self._grpc.leave(deadline)
        streams_end = deadline - _LAST_PARTS_S  # at the deadline grpcio cuts its clients off
        while self._grpc.connections() or any(http.connections() for http in https):
            now = time.monotonic()
            if now >= streams_end:
                self._end_streams()
                streams_end = deadline
            if now >= deadline:
                return
            time.sleep(0.05)

    def drain(self, deadline: float) -> bool:
        """Refuse new calls, and wait for those in flight until `deadline` (monotonic).

        Answers in parts that are not over by then end with UNAVAILABLE as their last part, for
        which there is a moment. Returns False if calls remain.
        """
        self.refuse()
        if self.wait_idle(deadline):
            return True
        ended = self._end_streams()
        if ended:
            _log.warning("%d streams are ended: the server is shutting down", ended)
        return ended > 0 and self.wait_idle(time.monotonic() + _LAST_PARTS_S)

    def refuse(self) -> None:
        """Refuse new calls from now on; probes and health checks are still answered."""
        self._jobs.tell_all()
        self._grpc.refuse()
        for http in (self._http, self._admin):
            if http is not None:
                http.refuse()

    def wait_idle(self, deadline: float) -> bool:
        """Wait for calls in flight; return False if some remain at `deadline` (monotonic)."""
        idle = self._grpc.wait_idle(deadline)
        for http in (self._http, self._admin):
            if http is not None:
                idle = http.wait_idle(deadline) and idle
        return idle

    def stop(self) -> None:
        """Close the ports, and cut off the calls in flight."""
        self._stack.close()

    def _start_http(self, stack: ExitStack) -> None:
        """Open the HTTP ports: both are bound before either answers."""
        config = self._config
        for workers in (self._rest_workers, self._page_worker):
            workers.start()
            stack.callback(workers.stop, 2.0)
        opened = []
        for http, port, what in (
            (self._http, config.rest_api_port, "Exporting HTTP/REST API"),
            (self._admin, config.admin_rest_port, "Administrators' HTTP port"),
        ):
            if http is not None:
                stack.callback(http.stop)
                shared = self._shared is not None
                opened.append((http, http.bind(config.host, port, shared=shared), what))
        everywhere = "" if config.host else "(and at every address of this host)"
        for http, port, what in opened:
            http.start()
            _log.info("%s at:%s:%d ... %s", what, config.host or "localhost", port, everywhere)

    def _build_grpc(self, metrics: Metrics, data: DataPlane) -> GrpcFrontend:
        config = self._config
        methods = RpcMethods(
            self._calls,
            self._control.states,
            self._control.reload,
            self._figures.serving_values,
            data.profiler,
            config.max_request_bytes,
            self._jobs,
        )
        parser = MessageParser(config.max_request_bytes)
        options = GrpcOptions(
            port=config.port,
            host=config.host,
            socket_path=config.grpc_socket_path,
            admin_port=config.admin_port,
            transport=config.grpc_transport,
            max_request_bytes=config.max_request_bytes,
            ssl=read_tls(config.ssl_config_file) if config.ssl_config_file else None,
            alts=config.use_alts_credentials,
            arguments=channel_arguments(config.grpc_channel_arguments),
            workers=max(DEFAULT_WORKERS, config.grpc_max_threads),
            max_connection_age_s=config.max_connection_age_s,
            shares_port=self._shared is not None,
            unread=UnreadLimits(total_bytes=max(_LEAST_UNREAD, memory_share(0))),
        )
        return GrpcFrontend(
            options,
            {**methods.table(), **oip_table(self._calls, self._information, parser)},
            self._guarded(methods.admin_table()),
            data.gather,
            methods.stream_table(),
        )

    def _guarded(self, table: Mapping[str, Handler]) -> Mapping[str, Handler]:
        """Return administrators' RPCs as those that carry the token may call them."""
        token = self._token
        if token is None:
            return table
        return {
            name: guarded(handler, token, partial(self._refused, name.rpartition("/")[2]))
            for name, handler in table.items()
        }

    def _refused(self, method: str, code: Code = Code.UNAUTHENTICATED) -> None:
        """Count and log an administrators' call that was refused at the door."""
        self._calls.metrics.record("", 0, "", method, code, 0.0)

    def _pages(self, actions: Sequence[Action], here: bool) -> AdminPages:
        door = Doorkeeper(
            here=here,
            admits=self._token.admits if self._token else None,
            refused=partial(self._refused, _ACTION),
        )
        return AdminPages(self._contents, Actions(actions, door))

    def _build_admin(self, actions: Sequence[Action]) -> HttpTransport:
        """Return the administrators' HTTP port: the pages and the actions, and no API."""
        pages = self._pages(actions, here=True)
        routes = HttpRoutes(pages.handle, pages, self._monitoring_path)
        return HttpTransport(routes.handle, _ADMIN_LIMITS, self._tls(), name="http-admin")

    def _tls(self) -> ssl.SSLContext | None:
        file = self._config.rest_ssl_config_file
        return ssl_context(read_tls(file)) if file else None

    def _build_http(self, data: DataPlane, actions: Sequence[Action]) -> HttpTransport:
        config = self._config
        timeout_s = config.rest_api_timeout_in_ms / 1000
        api_timeout_s = timeout_s if timeout_s > 0 else None
        budget = ByteBudget(memory_share(config.large_bodies_mb))
        large = LargeBodies(self._rest_workers, budget)
        api = RestApi(
            self._calls,
            self._control.states,
            self._rest_workers,
            RestOptions(
                timeout_s=api_timeout_s,
                cors=config.rest_api_enable_cors_support,
                max_message_bytes=config.max_request_bytes,
                webhooks=self._webhooks,
                large_bodies=large,
            ),
            self._jobs,
        )
        jobs = JobPages(self._jobs.everywhere, api.headers).handle
        oip = OipApi(self._calls, self._information, large, api_timeout_s)
        pages, path = self._pages(actions, here=not config.admin_rest_port), self._monitoring_path
        limits = HttpLimits(
            max_body_bytes=min(config.max_request_bytes, _MAX_HTTP_BODY),
            sweep_s=min(0.5, max(0.01, timeout_s / 10)) if timeout_s > 0 else 0.5,
        )
        return HttpTransport(
            HttpRoutes(api.handle, pages, path, jobs, oip.handle).handle,
            limits,
            self._tls(),
            HttpRoutes(api.handle_elsewhere, pages, path, jobs, oip.handle_elsewhere).handle,
            data.gather,
        )


def _monitoring_path(file: str) -> str:
    """Return TensorFlow Serving's path of the metrics; empty: none."""
    monitoring = read_monitoring(file) if file else MonitoringConfig(enabled=True)
    return monitoring.path if monitoring.enabled else ""


def _call_context(
    config: ServerConfig, metrics: Metrics, data: DataPlane, control: ControlPlane
) -> CallContext:
    return CallContext(
        models=data.models,
        metrics=metrics.requests,
        is_configured=control.is_configured,
        request_log=data.request_logs,
        first_calls=data.first_calls,
        checks=Checks(config.enable_signature_method_name_check, config.check_input_shapes),
        as_content=config.enable_serialization_as_tensor_content,
    )
