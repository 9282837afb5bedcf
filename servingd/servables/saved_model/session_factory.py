"""Opens the sessions of one SavedModel, as the operator configured them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import Device
from servingd.servables.saved_model.files.graph_safety import safe_signatures
from servingd.servables.saved_model.files.meta_graph import MetaGraph, read_meta_graph
from servingd.servables.saved_model.session.opening import open_plain
from servingd.servables.saved_model.session.options import RunLimits, SessionOptions
from servingd.servables.saved_model.session.run_watch import RunWatch
from servingd.servables.saved_model.session.session import RunningSession
from servingd.wire.records.prediction_logs import WARM_UP_FILE


class SessionFactory:
    """Opens sessions over the plain graph of the version under `path`. From any thread."""

    def __init__(
        self,
        path: str,
        options: SavedModelOptions,
        watch: RunWatch | None,
        new_runs: Callable[[], dict[int, Any]] = dict,
    ) -> None:
        """`watch` ends runs that nobody waits for; None: nobody does.

        `new_runs` makes the record of the runs under way in one session.
        """
        self._path = path
        self._options = options
        self.limits = RunLimits(watch, threading.Event(), new_runs=new_runs)

    def cancel(self) -> None:
        """Make every run of these sessions end, and every one that begins later."""
        self.limits.cancelled.set()

    def read(self) -> tuple[MetaGraph, dict[str, bool]]:
        """Return the meta graph, and by signature whether it is safe to run on synthetic inputs.

        Raises NotFound, PermissionDenied or DataLoss.
        """
        meta_graph = read_meta_graph(self._path, self._options.tags)
        return meta_graph, find_safe_to_run(meta_graph)

    def session_options(self, device: Device | None) -> SessionOptions:
        """Return how a session on `device` is opened; None: wherever TensorFlow likes."""
        return SessionOptions(
            max(1, self._options.intra_op_threads),
            self._options.session_config,
            device,
            self._options.virtual_cpu_devices,
            self.limits,
        )

    @property
    def has_recorded_requests(self) -> bool:
        """Whether the version is warmed up by recorded requests: they say what is to be run."""
        return self._options.enable_model_warmup and os.path.lexists(
            os.path.join(self._path, WARM_UP_FILE)
        )

    def open(
        self,
        options: SessionOptions,
        meta_graph: MetaGraph,
        safe_to_run: MutableMapping[str, bool],
    ) -> RunningSession:
        """Open a session, warmed by synthetic inputs; see `open_plain`. Raises a ServingError."""
        return open_plain(self._path, self._options.tags, options, meta_graph, safe_to_run)

    def open_on(
        self,
        device: Device | None,
        meta_graph: MetaGraph,
        safe_to_run: MutableMapping[str, bool],
    ) -> RunningSession:
        """Open a session on a device, warmed by synthetic inputs unless requests are recorded."""
        if self.has_recorded_requests:
            safe_to_run = dict.fromkeys(safe_to_run, False)
        return self.open(self.session_options(device), meta_graph, safe_to_run)

    def open_all(
        self,
        devices: Sequence[Device],
        meta_graph: MetaGraph,
        safe_to_run: MutableMapping[str, bool],
    ) -> list[RunningSession]:
        """Open a session on each device, or one anywhere if none is given; see `open_on`."""
        sessions: list[RunningSession] = []
        try:
            for device in devices or (None,):
                sessions.append(self.open_on(device, meta_graph, safe_to_run))
        except BaseException:
            for session in sessions:
                session.close()
            raise
        return sessions


def find_safe_to_run(meta_graph: MetaGraph) -> dict[str, bool]:
    """Return by signature whether it may be run on synthetic inputs, as far as its graph tells.

    It must keep no state, and all of its inputs must be served.
    """
    signatures = meta_graph.signatures
    stateless = safe_signatures(meta_graph.graph(), signatures)
    return {
        name: stateless[name] and not signature.unserved.keys() & signature.inputs.keys()
        for name, signature in signatures.items()
    }
