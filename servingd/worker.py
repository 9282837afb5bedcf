"""The data plane: it loads versions, answers calls, and does not decide which versions are served.

The control plane (`control.py`) commands it through `versions`, `configure`, `expect` and `settle`,
and hears of events. That is the cut along which a server becomes one control plane and several
workers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from servingd.client.remote import RemoteModels
from servingd.config.models import ModelConfig
from servingd.config.saved_model import SavedModelOptions
from servingd.config.server import ServerConfig
from servingd.core.batching.refusal import AdmissionLimits
from servingd.core.call_protocols import KnownStates
from servingd.core.callbacks import nothing
from servingd.core.lifecycle.events import Event, Grown, ReplicaFailed
from servingd.core.resources.placement import ReplicaReport
from servingd.core.servable import Servable
from servingd.core.types import Device, ServableId, VersionData
from servingd.errors import Unavailable
from servingd.frontends.tfs.rpc.profiler import Profiler
from servingd.inference.checks import Checks
from servingd.inference.replay import replay
from servingd.machine.cpus import cpus
from servingd.machine.memory import memory_share
from servingd.observability.metrics import Metrics
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.batching.options import DispatchOptions, ModelBatching
from servingd.runtime.first_calls import FirstCalls
from servingd.runtime.request_log.logs import RequestLogs
from servingd.runtime.streaming.streams import OpenStreams
from servingd.runtime.threads import WorkerPool
from servingd.runtime.versions.options import load_options
from servingd.runtime.versions.serving_map import ServingMap
from servingd.runtime.versions.versions import Versions
from servingd.runtime.warm_up.recorded import WarmUp
from servingd.runtime.warm_up.self_warm_up import SelfWarmUp
from servingd.servables.registry import make_platforms
from servingd.servables.synthetic_inputs import synthetic_inputs
from servingd.wire.config.saved_model import saved_model_options

_GROWN = {"optimised": True, "declined": False}
"""States of a graph in which nothing more is made of it, and whether it became an optimised one."""


class NewRuns(Protocol):
    """Who makes the record of the runs under way in one session."""

    def __call__(self, servable_id: ServableId, /) -> dict[int, Any]:
        """Return an empty one, by thread."""
        ...


class SavedModelEvents:
    """The worker's `SavedModelListener`: counts, warms up, and tells the control plane."""

    def __init__(self, metrics: Metrics, warm_up: WarmUp, new_runs: NewRuns | None = None) -> None:
        self._new_runs = new_runs
        self._metrics = metrics
        self._warm_up = warm_up
        self.report: Callable[[Event], None] = nothing
        """Takes events for the control plane; set before the first load."""

    def graph_state_changed(self, servable_id: ServableId, state: str) -> None:
        """Show the state in the metrics; say when the version has stopped growing."""
        self._metrics.on_graph_state(servable_id, state)
        if state in _GROWN:
            self.report(Grown(servable_id, _GROWN[state]))

    def warm_up(self, servable_id: ServableId, data: VersionData, servable: Servable) -> None:
        """Run the recorded requests on a session that is to replace the one that serves."""
        self._warm_up.again(servable_id, data, servable)

    def replicas_changed(self, servable_id: ServableId, replicas: Sequence[ReplicaReport]) -> None:
        """Show the replicas in the metrics and on the page of devices."""
        self._metrics.placements.report(servable_id, replicas)

    def replica_failed(self, servable_id: ServableId, device: Device) -> None:
        """Tell the control plane."""
        self.report(ReplicaFailed(servable_id, device))

    def new_runs(self, servable_id: ServableId) -> dict[int, Any]:
        """Return an empty record of the runs under way in one session of a version, by thread."""
        return self._new_runs(servable_id) if self._new_runs is not None else {}

    def load_attempted(self, path: str, seconds: float, succeeded: bool) -> None:
        """Count a load of a SavedModel."""
        self._metrics.counts.attempted(path, seconds, succeeded)


class Worker:
    """Everything that a call touches. `start` and `stop` once each."""

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        states: KnownStates,
        new_runs: NewRuns | None = None,
        log_suffix: str = "",
    ) -> None:
        """Start nothing. `new_runs` makes a record of a version's runs; None: a plain one.

        `log_suffix` is appended to the names of request logs: each process has its own files.
        """
        self._config = config
        self._metrics = metrics
        self._stack = ExitStack()
        options = saved_model_options(config)
        self._sampling = WorkerPool("samples", 1)
        self._self_warm_up = self._build_self_warm_up()
        self._warm_up = self._build_warm_up(options)
        self.request_logs = RequestLogs(
            config.request_log_max_bytes,
            config.request_log_max_files,
            metrics.counts.logged,
            options.tags,
            log_suffix,
        )
        self._saved_models = SavedModelEvents(metrics, self._warm_up, new_runs)
        self.platforms = make_platforms(config, self._saved_models)
        self.profiler: Profiler | None = self.platforms.profiler if config.enable_profiler else None
        """Takes traces; it may be replaced before the ports are built."""
        self._dispatcher = self._build_dispatcher()
        self.streams = OpenStreams(config.max_streams)
        self.models = ServingMap(states, self._dispatcher, self.streams)
        self.platforms.parts.models = self.models
        self.platforms.parts.remote = RemoteModels()
        self.platforms.parts.on_step = metrics.steps.ended
        self.versions = Versions(
            self.platforms.loader,
            self.models,
            self._dispatcher,
            load_options(config, self._warm_up, self.platforms.devices, self.platforms.may_hang),
            self._on_load,
        )
        self._saved_models.report = self.versions.report
        self.first_calls = FirstCalls(self.models, enabled=config.hold_calls_during_start)

    def start(self) -> None:
        """Start what records requests. Raises InvalidConfig for operations that do not load."""
        self.platforms.prepare()
        with ExitStack() as stack:
            self.request_logs.start()
            stack.callback(self.request_logs.stop)
            self._sampling.start()
            stack.callback(self._sampling.stop, 2.0)
            self._stack = stack.pop_all()

    def end_runs(self) -> None:
        """End the optimiser and every run of a model: a load may wait for one of them."""
        self.platforms.stop()
        self._dispatcher.refuse_waiting()

    def end_streams(self) -> int:
        """End all answers in parts, which are told that the server stops; return how many."""
        return self.streams.end_all(Unavailable("server is shutting down"))

    def stop(self) -> None:
        """End the threads; everything is unloaded by now."""
        self._stack.close()
        if self.platforms.parts.remote is not None:
            self.platforms.parts.remote.close()

    # Commands -------------------------------------------------------------------------------------

    def configure(self, models: Iterable[ModelConfig]) -> None:
        """Take the settings of all models that ought to be served, in the place of the last ones.

        They hold for versions that are loaded from now on; logs follow at once.
        """
        known = tuple(models)
        goal_ms = self._config.latency_goal_ms
        self._dispatcher.configure(
            {m.name: ModelBatching((m.latency_goal_ms or goal_ms) / 1e3, m.merging) for m in known}
        )
        self.request_logs.configure(known)
        self._self_warm_up.keep_only(frozenset(m.name for m in known))

    @property
    def holds_calls(self) -> bool:
        """Whether calls are held for the first models."""
        return not self.first_calls.over

    def expect(self, names: Collection[str]) -> None:
        """Take which models there are: calls are held until each is settled."""
        self.first_calls.expect(names)

    def settle(self, name: str) -> None:
        """Let the calls that are held for a model go on."""
        self.first_calls.settle(name)

    def explain(self, name: str) -> Mapping[int, Sequence[Mapping[str, Any]]]:
        """Return by version of a model what its signatures' queues do, for people to read."""
        return self._dispatcher.explain(name)

    def gather(self, on_first: Callable[[], object] | None = None) -> Callable[[], None]:
        """Queue together the calls that the calling thread reads from now on; see `Gathering`.

        Returns what the thread must call after each batch. `on_first` is called when a call waits.
        """
        return self._dispatcher.gatherings.open(on_first).flush

    # Events ---------------------------------------------------------------------------------------

    def _on_load(self, servable_id: ServableId, seconds: float, succeeded: bool) -> None:
        """Count one attempt to load; calls held for a model whose first load failed go on."""
        self._metrics.on_load(servable_id, seconds, succeeded)
        if not succeeded:
            self.first_calls.settle(servable_id.name)

    # Parts ----------------------------------------------------------------------------------------

    def _build_self_warm_up(self) -> SelfWarmUp:
        metrics = self._metrics
        built = SelfWarmUp(
            metrics.batches.rows_in_use,
            synthetic_inputs,
            metrics.self_warm_up.warmed,
            enabled=self._config.self_warm_up,
            later=self._sampling.submit,
        )
        metrics.self_warm_up.kept = built.sizes
        return built

    def _build_warm_up(self, options: SavedModelOptions) -> WarmUp:
        config = self._config
        checks = Checks(config.enable_signature_method_name_check, config.check_input_shapes)
        return WarmUp(
            lambda servable, request: replay(servable, request, checks),
            self._metrics.counts.warmed_up,
            enabled=options.enable_model_warmup,
            iterations=options.warmup_iterations,
            threads=options.warmup_threads,
            kept=self._self_warm_up,
        )

    def _build_dispatcher(self) -> Dispatcher:
        config = self._config
        options = DispatchOptions(
            inline_below_s=config.inline_below_us / 1e6,
            merge=config.merge_waiting_calls,
            model=ModelBatching(config.latency_goal_ms / 1e3),
            limits=AdmissionLimits(
                max_wait_s=config.max_queue_s,
                max_bytes=memory_share(config.max_queue_mb),
            ),
            workers=max(2, cpus()),
            self_warm_up=self._self_warm_up,
        )
        return Dispatcher(options, self._metrics.batches)
