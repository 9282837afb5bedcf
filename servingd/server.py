"""The server: a control plane, a data plane and their ports in one process.

`Server` builds them, starts them bottom up, and stops them in the reverse order. No state lives
outside a Server.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import ExitStack

from servingd.config.server import ServerConfig
from servingd.control import Control
from servingd.frontends.admin.status_pages import StatusPages, describe_server
from servingd.frontends.ports import Ports
from servingd.observability.metrics import Metrics
from servingd.observability.state_log import log_incomplete, log_state
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.worker import Worker

_log = logging.getLogger(__name__)


class _Figures:
    """What the only process says of the server."""

    def __init__(self, metrics: Metrics, control: Control, worker: Worker) -> None:
        self.metrics_page = metrics.page
        self.serving_values = metrics.serving_values
        self.status_page = StatusPages(
            control, lambda: describe_server(os.getpid()), worker.explain, metrics.placements
        ).page


class Planes:
    """A control plane and a data plane in one process, without ports."""

    def __init__(self, config: ServerConfig) -> None:
        """Read the models' configuration; raises a ServingError naming the file."""
        self.metrics = Metrics()
        self.metrics.show_process()
        self.states = StateMonitor()
        self.states.subscribe(log_state)
        self.states.subscribe(self.metrics.on_state)
        self.states.subscribe_incomplete(log_incomplete)
        self.states.subscribe_incomplete(self.metrics.on_incomplete)
        self.worker = Worker(config, self.metrics, self.states)
        self.control = Control(config, self.metrics, self.states, self.worker)


class Server(Planes):
    """One model server. `start` and `stop` once each, from one thread."""

    def __init__(self, config: ServerConfig) -> None:
        """Read every file that the configuration names; raises a ServingError naming it."""
        super().__init__(config)
        self._config = config
        self._stack = ExitStack()
        self.ports = Ports(
            config,
            self.metrics,
            self.worker,
            self.control,
            _Figures(self.metrics, self.control, self.worker),
        )

    def start(self) -> None:
        """Open the ports, then load what is there; returns before the models are up.

        Raises OSError for a port that is busy, and InvalidConfig for operations that do not load.
        What had started is stopped again.
        """
        self.control.check()
        with ExitStack() as stack:
            self.worker.start()
            stack.callback(self.worker.stop)
            self.ports.start()
            stack.callback(self.ports.stop)
            self.control.start()
            stack.callback(self.control.stop)
            stack.callback(self._drain)
            self._stack = stack.pop_all()

    def reread(self) -> None:
        """Read the configuration files again and apply what they say of models. Does not wait."""
        self.control.reread()

    def stop(self) -> None:
        """Not ready, drain, stop sources, unload, close the ports: start reversed."""
        self._stack.close()
        _log.info("stopped")

    def _drain(self) -> None:
        self.control.begin_to_stop()
        self.worker.first_calls.stop()
        if self._config.drain_delay_s:
            _log.info("not ready any more; draining in %.1f s", self._config.drain_delay_s)
            threading.Event().wait(self._config.drain_delay_s)
        deadline = time.monotonic() + self._config.drain_timeout_s
        _log.info("waiting for calls in flight")
        if not self.ports.drain(deadline):
            _log.warning("calls are cut off after %.1f s", self._config.drain_timeout_s)
