"""A server of several worker processes: the control plane here, the calls in the workers.

Without TensorFlow, gRPC and ports of its own: it holds the ports for its workers, decides, and
answers what a worker cannot answer alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

from servingd.config.server import ServerConfig
from servingd.config.yaml.edits import ModelEdit
from servingd.control import Control
from servingd.core.types import ServableId, VersionData
from servingd.errors import ServingError, Unavailable, as_serving_error
from servingd.observability.metrics import Metrics
from servingd.observability.snapshots import MetricsSnapshot, page, serving_values
from servingd.observability.snapshots import decode as decode_snapshot
from servingd.observability.state_log import log_incomplete, log_state
from servingd.observability.worker_totals import WorkerTotals
from servingd.runtime.threads import WorkerPool
from servingd.servables.registry import make_platforms
from servingd.supervisor.fleet.fleet import WorkerFleet
from servingd.supervisor.link.messages import Answer, Ask, Facts, pack, unpack, unpack_models
from servingd.supervisor.pages import FleetPages
from servingd.supervisor.ports import ReservedPorts
from servingd.supervisor.states import ToldStates
from servingd.supervisor.worker_metrics import WorkerMetrics

_END_S = 10.0
_JOB_S = 5.0
"""Seconds that a worker may take to answer for a job, after the time that its caller waits."""
_TRACE_S = 30.0
"""Seconds that a worker may take to write a trace down, after it was taken."""

_log = logging.getLogger(__name__)


class Supervisor:
    """See `server.Server`. `start` and `stop` once each, from one thread."""

    def __init__(self, config: ServerConfig, workers: int, hopeless: Callable[[], None]) -> None:
        """Read the models' configuration; raises a ServingError naming the file or flag.

        `hopeless` is called from any thread if no worker can start.
        """
        self._config = config
        self._stack = ExitStack()
        self._metrics = Metrics()
        self._metrics.show_process()
        self._totals: WorkerTotals[int] = WorkerTotals()  # guarded by _totals_lock
        self._totals_lock = threading.Lock()
        self._slow = WorkerPool("pages", 2)
        self._facts: Facts | None = None  # guarded by _facts_lock
        self._facts_lock = threading.Lock()
        platforms = make_platforms(config)
        self.fleet = WorkerFleet(config, workers, platforms, self)
        self.states = ToldStates(self.fleet.tell, self._forget_model)
        self.states.subscribe(log_state)
        self.states.subscribe(self._metrics.on_state)
        self.states.subscribe_incomplete(log_incomplete)
        self.states.subscribe_incomplete(self._metrics.on_incomplete)
        self.control = Control(config, self._metrics, self.states, self.fleet)
        self.control.watch_readiness(self._tell_facts)
        self._metrics.register(WorkerMetrics(self.fleet))
        self._ports = ReservedPorts(config)
        self._pages = FleetPages(self.control, self.fleet, self._metrics.placements)
        self._hopeless = hopeless

    def start(self) -> None:
        """Hold the ports and start the workers; returns before the models are up.

        Raises OSError for a port that is busy.
        """
        self.control.check()
        with ExitStack() as stack:
            self._ports.open()
            stack.callback(self._ports.close)
            self._slow.start()
            stack.callback(self._slow.stop, 2.0)
            self.fleet.begin()
            stack.callback(self.fleet.end, _END_S)
            self.control.start()
            stack.callback(self.control.stop)
            stack.callback(self._drain)
            self._stack = stack.pop_all()

    def reread(self) -> None:
        """Read the configuration files again and apply what they say of models. Does not wait."""
        self.control.reread()

    def stop(self) -> None:
        """Not ready, drain, stop sources, unload, end the workers: start reversed."""
        self._stack.close()
        _log.info("stopped")

    def _drain(self) -> None:
        self.control.begin_to_stop()
        if self._config.drain_delay_s:
            _log.info("not ready any more; draining in %.1f s", self._config.drain_delay_s)
            threading.Event().wait(self._config.drain_delay_s)
        _log.info("waiting for calls in flight")
        if not self.fleet.drain(self._config.drain_timeout_s):
            _log.warning("calls are cut off after %.1f s", self._config.drain_timeout_s)

    # News for the workers -------------------------------------------------------------------------

    def snapshot(self) -> Iterable[object]:
        """Return what a worker must know of the states when it starts."""
        yield from self.states.snapshot()
        yield self._current_facts()

    def told(self, message: object) -> None:
        """Remember what a worker that starts must be told as well; see `FleetListener`."""
        self.states.told(message)

    def _current_facts(self) -> Facts:
        now = self.control.readiness()
        listed = () if now.models_known else tuple(sorted(now.configured))
        return Facts(now.models_known, listed, now.started, now.stopping)

    def _tell_facts(self) -> None:
        facts = self._current_facts()
        with self._facts_lock:
            if facts != self._facts:
                self._facts = facts
                self.fleet.tell(facts)

    def held(self) -> int:
        """Return the bytes that all models are planned to hold; see `FleetListener`."""
        return sum(version.holds.ram for version in self._metrics.placements.plan().versions)

    def quarantined(self, servable_id: ServableId, data: VersionData) -> None:
        """Aspire a version no more; see `FleetListener`."""
        self.control.quarantine(servable_id, data)

    # What workers ask: the thread `fleet` ---------------------------------------------------------

    def asked(self, ask: Ask, reply: Callable[[object], object]) -> None:
        """Answer a worker's question, now or later."""

        def answer(body: bytes = b"", error: ServingError | None = None) -> None:
            reply(Answer(ask.number, body, error))

        try:
            self._begin(ask, answer)
        except BaseException as error:
            answer(error=as_serving_error(error))

    def _begin(self, ask: Ask, answer: Callable[..., None]) -> None:
        match ask.what:
            case "metrics":
                self._with_metrics(lambda merged: answer(page(merged)))
            case "values":
                names = unpack(ask.body)
                self._with_metrics(lambda merged: answer(pack(serving_values(merged, names))))
            case "recycle":
                self.fleet.recycle(unpack(ask.body), lambda begun: answer(pack(begun)))
            case "profile":
                self._profile(ask.body, answer)
            case "end profile":
                self.fleet.gather("end profile", b"", lambda found, error: answer())
            case "job":
                self._job(ask.body, answer)
            case "page":
                path = unpack(ask.body)
                self._slow.submit(lambda: _answer(answer, lambda: pack(self._pages.page(path))))
            case _:
                self._change_models(ask, answer)

    def _change_models(self, ask: Ask, answer: Callable[..., None]) -> None:
        match ask.what:
            case "reload":
                models, timeout_s = unpack(ask.body)
                self.control.reload(
                    unpack_models(models), timeout_s, lambda error: answer(error=error)
                )
            case "edit":
                edit = ModelEdit(*unpack(ask.body))
                self.control.edit(edit, lambda error: answer(error=error))
            case "reread":
                self.control.reread(lambda error: answer(error=error))
            case unknown:
                raise Unavailable(f"the supervisor knows nothing about {unknown}")

    def _with_metrics(self, then: Callable[[MetricsSnapshot], None]) -> None:
        """Pass the sums over all workers to `then`, on the pool `pages`."""

        def merge(answers: Mapping[int, bytes]) -> None:
            live = {key: decode_snapshot(body) for key, body in answers.items()}
            with self._totals_lock:
                live[0] = self._metrics.snapshot()
                then(self._totals.merged(live))

        self.fleet.gather(
            "metrics", b"", lambda found, error: self._slow.submit(lambda: merge(found))
        )

    def _job(self, body: bytes, answer: Callable[..., None]) -> None:
        """Answer with what the worker says that has a job; with nothing if none has it."""
        *_, wait_s = unpack(body)

        def take(found: Mapping[int, bytes], error: ServingError | None) -> None:
            answer(next((each for each in found.values() if each), b""))

        self.fleet.gather("job", body, take, wait_s + _JOB_S)

    def _profile(self, body: bytes, answer: Callable[..., None]) -> None:
        """Answer with the traces of all workers, by their names."""

        def take(traces: Mapping[int, bytes], error: ServingError | None) -> None:
            if traces:
                answer(pack({f"worker-{key}": trace for key, trace in traces.items()}))
            else:
                answer(error=error or Unavailable("no worker has taken a trace in time"))

        seconds, _ = unpack(body)
        self.fleet.gather("profile", body, take, seconds + _TRACE_S)

    def gone(self, worker: int) -> None:
        """Keep what a worker has counted; see `FleetListener`."""
        with self._totals_lock:
            self._totals.gone(worker)

    def metrics_came(self, worker: int, snapshot: bytes) -> None:
        """Take a worker's last metrics; see `FleetListener`."""
        with self._totals_lock:
            self._totals.update(worker, decode_snapshot(snapshot))

    def _forget_model(self, name: str) -> None:
        with self._totals_lock:
            self._totals.forget_model(name)

    def hopeless(self) -> None:
        """Say that no worker can start; see `FleetListener`."""
        self._hopeless()


def _answer(answer: Callable[..., None], make: Callable[[], bytes]) -> None:
    """Answer with what `make` returns, or its error: whoever asked waits for it."""
    try:
        body = make()
    except BaseException as error:
        answer(error=as_serving_error(error))
    else:
        answer(body)
