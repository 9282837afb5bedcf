"""The control plane: which versions ought to be served, and what is done about it.

It owns the manager, the source, the configuration and every public state. It touches no call: it
commands the data plane, which is one worker (`worker.py`) or several, and hears its events.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from typing import Protocol

from servingd.config.models import ModelConfig
from servingd.config.server import ServerConfig
from servingd.config.yaml.edits import ModelEdit
from servingd.core.callbacks import nothing
from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.readiness import Readiness, usable, why_unusable
from servingd.core.types import AspiredVersions, ServableId, VersionData
from servingd.errors import FailedPrecondition, ServingError, as_serving_error
from servingd.observability.metrics import Metrics
from servingd.runtime.manager.fleet import Fleet
from servingd.runtime.manager.manager import Manager
from servingd.runtime.manager.options import manager_state, rules_of
from servingd.runtime.manager.reloader import Reloader, log_reload
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.runtime.threads import WorkerPool
from servingd.servables.registry import Platforms
from servingd.sources.catalogs import (
    ConfiguredCatalog,
    RepositoryCatalog,
    known_models,
    listed_models,
    make_catalog,
)
from servingd.sources.config_edits import edit_file
from servingd.sources.config_file import ConfigFilePoll
from servingd.sources.file_system import FileSystemSource, SourceOptions
from servingd.wire.config.models import configured_models

_UNLOAD_TIMEOUT_S = 30.0
_SCAN_THREADS = 4
_MOST_NAMED = 20
"""Models that one line of the log names, at most."""

_log = logging.getLogger(__name__)


def _log_refusal(error: ServingError | None) -> None:
    if error is not None:
        _log.warning("%s", error.message)


class DataPlane(Protocol):
    """What loads versions and answers calls: one worker, or the fleet of several."""

    @property
    def versions(self) -> Fleet:
        """Whoever carries out the manager's commands."""
        ...

    @property
    def platforms(self) -> Platforms:
        """The servable types that there are."""
        ...

    @property
    def holds_calls(self) -> bool:
        """Whether calls may be held for the first models."""
        ...

    def configure(self, models: Iterable[ModelConfig]) -> None:
        """Take the settings of all models that ought to be served."""
        ...

    def expect(self, names: Collection[str]) -> None:
        """Take which models there are: calls are held until each is settled."""
        ...

    def settle(self, name: str) -> None:
        """Let the calls that are held for a model go on."""
        ...

    def end_runs(self) -> None:
        """End every run of a model: a load may wait for one."""
        ...


class Control:
    """Decides what is served. `start` and `stop` once each, from one thread.

    Whatever it is told of, it is told from the thread of who tells; each such method is short.
    """

    def __init__(
        self, config: ServerConfig, metrics: Metrics, monitor: StateMonitor, data: DataPlane
    ) -> None:
        """Read the models' configuration; raises a ServingError naming the file or flag."""
        self._config = config
        self._metrics = metrics
        self._data = data
        self._on_readiness: Callable[[], None] = nothing
        self.states = monitor
        self.models: Mapping[str, ModelConfig] = {}
        """The models that ought to be served, by name. Replaced whole; read from any thread."""
        self._manager = Manager(
            manager_state(config),
            data.versions,
            monitor,
        )
        metrics.placements.watch(lambda: self._manager.plan, data.platforms.devices)
        self._catalog = make_catalog(config)
        self._source = FileSystemSource(
            self._catalog,
            data.platforms,
            self,
            SourceOptions(
                poll_wait_s=config.file_system_poll_wait_seconds,
                threads=WorkerPool("scan", _SCAN_THREADS),
            ),
        )
        self._reloader = Reloader(
            data.versions.label,
            monitor,
            data.platforms,
            self._replace_models,
            config.allow_version_labels_for_unavailable_models,
        )
        self._config_file = self._build_config_file_poll()
        self._models_known = False  # written by the source's thread alone
        self._started = threading.Event()  # every first model has come up, or failed for good
        self._stopping = False
        self._stack = ExitStack()
        monitor.subscribe(self._on_state)

    def check(self) -> None:
        """Raise InvalidArgument for a model of a type that there is not."""
        self._reloader.check_platforms(known_models(self._catalog))

    def start(self) -> None:
        """Load what is there; returns before the models are up."""
        with ExitStack() as stack:
            self._reloader.begin(listed_models(self._catalog))
            self._manager.start()
            stack.callback(self._manager.stop, _UNLOAD_TIMEOUT_S)
            stack.callback(self._data.end_runs)  # first: a load may wait for one
            self._source.start()
            stack.callback(self._source.stop)
            if self._config_file is not None:
                self._config_file.start()
                stack.callback(self._config_file.stop)
            self._stack = stack.pop_all()

    def begin_to_stop(self) -> None:
        """Be ready no more, and say so."""
        self._stopping = True
        self._on_readiness()

    def stop(self) -> None:
        """Stop the sources and unload everything."""
        self._stack.close()

    # Readiness ------------------------------------------------------------------------------------

    def watch_readiness(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever `readiness` may differ, from any thread; set before `start`."""
        self._on_readiness = changed

    def readiness(self) -> Readiness:
        """Return how the server is now; from any thread."""
        rule, stopping, known = self._config.ready_when, self._stopping, self._models_known
        return Readiness(
            rule=rule if rule in ("all", "any") else tuple(rule.split(",")),
            models_known=known,
            # Until the source has looked, health is told of the models that are to come.
            configured=self.states.configured() if known else self._listed(),
            available=frozenset() if stopping else self._usable(),
            started=self._started.is_set(),
            stopping=stopping,
        )

    def why_not_ready(self) -> str | None:
        """Return why the server is not ready, with what is wrong with its models; None if it is."""
        return self.readiness().why_not_ready(self._trouble)

    def _usable(self) -> frozenset[str]:
        return usable(self.states.available(), self._data.platforms.parts.needs_by_model())

    def _trouble(self, name: str) -> str:
        needs = self._data.platforms.parts.needs_by_model()
        return self.states.trouble(name) or why_unusable(name, self._usable(), needs)

    def is_configured(self, name: str) -> bool:
        """Return whether a model ought to be served."""
        return name in self.states.configured()

    def _listed(self) -> frozenset[str]:
        return frozenset(model.name for model in listed_models(self._catalog))

    # What administrators ask ----------------------------------------------------------------------

    def reload(
        self,
        models: tuple[ModelConfig, ...],
        timeout_s: float | None,
        done: Callable[[ServingError | None], None],
        *,
        by_call: bool = True,
    ) -> None:
        """Replace the models that were configured; see `Reloader.reload`.

        Raises FailedPrecondition where the models are those of a repository's folders.
        """
        if not isinstance(self._catalog, ConfiguredCatalog):
            raise FailedPrecondition(
                f"the models are those of {self._config.model_repository}: they cannot be reloaded"
            )
        longest = self._config.reload_timeout_s
        self._reloader.reload(models, min(longest, timeout_s or longest), done, by_call)

    def reread(self, done: Callable[[ServingError | None], None] = _log_refusal) -> None:
        """Read the configuration files again and apply what they say of models. Does not wait.

        `done` is called at once, with FailedPrecondition if there is no such file.
        """
        if self._config_file is None:
            done(FailedPrecondition("there is no configuration file to read again"))
            return
        _log.info("reading the configuration files again")
        self._config_file.read_now()
        done(None)

    def edit(self, edit: ModelEdit, done: Callable[[ServingError | None], None]) -> None:
        """Change a model in `servingd.yaml`, and serve what it says then. Does not wait.

        `done` is called on the thread `config-file`, before new versions have loaded. Raises
        FailedPrecondition where no `servingd.yaml` says what is served, else ResourceExhausted.
        """
        path = self._config.servingd_config_file
        if not path or self._config_file is None:
            raise FailedPrecondition(
                "models are changed in servingd.yaml, and this server has none: start it with "
                "--servingd_config_file=FILE"
            )
        self._config_file.submit(lambda: done(self._edit_now(path, edit)))

    def _edit_now(self, path: str, edit: ModelEdit) -> ServingError | None:
        """Change the file and apply it, on the thread that reads it; return what went wrong."""
        try:
            served = {model.name: model for model in known_models(self._catalog)}
            if self._reloader.by_call:
                raise FailedPrecondition(
                    "a ReloadConfig call has set the models: let the files be read again first"
                )
            edit_file(path, lambda text: edit.apply(text, served), self._read, self._apply)
        except BaseException as error:  # the thread must be there for the next reading
            return as_serving_error(error)
        _log.info("%s was changed: %s, model %s", path, edit.kind, edit.model)
        return None

    def _read(self, yaml: str) -> tuple[ModelConfig, ...]:
        """Return all models, those of a `servingd.yaml` at this path among them."""
        if isinstance(self._catalog, RepositoryCatalog):
            return self._catalog.reread(yaml)
        config = dataclasses.replace(self._config, servingd_config_file=yaml)
        return configured_models(config, self._reloader.models)

    def _apply(self, models: tuple[ModelConfig, ...]) -> None:
        """Serve the models that files name now."""
        if isinstance(self._catalog, RepositoryCatalog):
            self._reloader.follow(models, checked=True)
            self._source.request_scan()
        else:
            self.reload(models, None, log_reload, by_call=False)

    def _replace_models(self, models: tuple[ModelConfig, ...]) -> None:
        assert isinstance(self._catalog, ConfiguredCatalog)  # only such a one is reloaded
        self._catalog.replace(models)
        self._source.request_scan()

    def _build_config_file_poll(self) -> ConfigFilePoll | None:
        config = self._config
        if not (config.model_config_file or config.servingd_config_file):
            return None
        return ConfigFilePoll(
            lambda: self._read(config.servingd_config_file),
            self._apply,
            config.model_config_file_poll_wait_seconds,
            self._metrics.reloads.ended,
        )

    def _what_serves(self) -> str:
        """Return models with their versions, and devices, for the log."""
        serving = [
            f"{name} {', '.join(str(s.id.version) for s in states)}"
            for name in sorted(self.states.available())
            if (
                states := [
                    s for s in self.states.of_model(name) if s.state is PublicState.AVAILABLE
                ]
            )
        ]
        more = f" and {len(serving) - _MOST_NAMED} more" if len(serving) > _MOST_NAMED else ""
        devices = ", ".join(
            f"{device.name} ({what})" for device, what in self._metrics.placements.known().items()
        )
        named = "; ".join(serving[:_MOST_NAMED]) or "nothing"
        return f"{named}{more}{f'; devices: {devices}' if devices else ''}"

    # What the source and the manager tell ---------------------------------------------------------

    def models_configured(self, configured: Mapping[str, ModelConfig]) -> None:
        """Give each part the models that ought to be served; see `SourceListener`."""
        self.models = configured
        names, models = frozenset(configured), tuple(configured.values())
        self.states.configure(names)
        self._metrics.configure(names)
        self._data.configure(models)
        if isinstance(self._catalog, RepositoryCatalog):
            self._reloader.follow(models)
        self._manager.configure(rules_of(self._config, models))
        if not self._models_known:
            self._models_known = True
            self.states.notify_when(names, PublicState.AVAILABLE, self._on_all_up)
        self._data.expect(names)
        self._on_readiness()

    def quarantine(self, servable_id: ServableId, data: VersionData) -> None:
        """Serve a version no more until its files change: workers die of it."""
        self._source.quarantine(servable_id, data.fingerprint)

    def set_aspired_versions(self, aspired: AspiredVersions) -> None:
        """Let the manager load and unload what differs; see `SourceListener`."""
        self._manager.aspire(aspired)

    def no_version_found(self, name: str, reason: str) -> None:
        """Show the reason in the model's status; calls held for the model go on."""
        self.states.report_absent(name, reason)
        if reason:
            self._data.settle(name)

    def _on_state(self, state: ServableState) -> None:
        self._on_readiness()
        if self._data.holds_calls:
            states = {s.state for s in self.states.of_model(state.id.name)}
            if not states & {PublicState.START, PublicState.LOADING}:
                self._data.settle(state.id.name)

    def _on_all_up(self, all_available: bool) -> None:
        gc.freeze()  # what lives now lives long: no collection needs to look at it again
        self._started.set()
        self._on_readiness()
        _log.info("serving %s", self._what_serves())
        _log.info("started%s", "" if all_available else ", but not every model is available")
