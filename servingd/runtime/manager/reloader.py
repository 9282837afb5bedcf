"""Replace the set of models while the server runs: check it as a whole, then apply it at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from servingd.config.models import ModelConfig, check_transition
from servingd.core.lifecycle.labels import Labels, check_labels
from servingd.core.lifecycle.states import PublicState
from servingd.errors import InvalidArgument, ServingError, UnknownError
from servingd.runtime.manager.state_monitor import StateMonitor

Done: TypeAlias = Callable[[ServingError | None], None]
"""Called once when a reload has ended; None if every new model is available, else the error."""

_log = logging.getLogger(__name__)


class KnownPlatforms(Protocol):
    """The servable types; see `servables.registry.Platforms`."""

    @property
    def names(self) -> Sequence[str]:
        """The names that configurations may use."""
        ...

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise InvalidArgument if a type does not take these options."""
        ...


class Reloader:
    """Applies configurations one after the other; a reload does not wait for another's loads."""

    def __init__(
        self,
        label: Callable[[Labels], None],
        monitor: StateMonitor,
        platforms: KnownPlatforms,
        replace: Callable[[tuple[ModelConfig, ...]], None],
        allow_labels_for_unavailable: bool = False,
    ) -> None:
        self._label = label
        self._monitor = monitor
        self._platforms = platforms
        self._replace = replace
        self._allow_unavailable = allow_labels_for_unavailable
        self._lock = threading.Lock()
        self._models: tuple[ModelConfig, ...] = ()  # guarded by _lock
        self._by_call = False  # whether they came by a call, not a file; guarded by _lock

    def begin(self, models: tuple[ModelConfig, ...]) -> None:
        """Set the models of the start; their labels may name versions that are not available."""
        with self._lock:
            self._models = models
            self._label(_labels(models))

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The models that are configured now."""
        with self._lock:
            return self._models

    @property
    def by_call(self) -> bool:
        """Whether a call has set them, not files."""
        with self._lock:
            return self._by_call

    def reload(
        self, models: tuple[ModelConfig, ...], timeout_s: float, done: Done, by_call: bool = True
    ) -> None:
        """Replace all models; `done` is called once the new ones are available, or have failed.

        If anything is wrong with `models`, nothing is changed and a ServingError is raised. `done`
        is called on any thread, at the latest after `timeout_s`. A model that cannot be loaded
        stays configured, and is tried again when its files change.
        """
        with self._lock:
            changed, undoes = models != self._models, self._by_call and not by_call
            known = {model.name for model in self._models}
            self._check(models)
            new = [model.name for model in models if model.name not in known]
            wait = _Wait(self._monitor, new, done)
            wait.watch()  # before anything is changed: the first states may follow at once
            try:
                self._models, self._by_call = models, by_call
                self._label(_labels(models))
                self._replace(models)
            except BaseException:
                wait.give_up()
                raise
        if changed and undoes:
            _log.warning("a reload by a call is undone: the configuration file holds again")
        if changed or by_call:
            _log.info("reloaded: %d models, new: %s", len(models), ", ".join(new) or "none")
        wait.begin(timeout_s)

    def follow(self, models: tuple[ModelConfig, ...], *, checked: bool = False) -> None:
        """Take the models of a folder that is watched, which are replaced elsewhere; set labels.

        `checked`: raise ServingError, with nothing changed, for what a reload could not apply.
        """
        with self._lock:
            labels, before = _labels(models), _labels(self._models)
            if checked:
                self.check_platforms(models)
                check_labels(labels, before, self._is_available, self._allow_unavailable)
            self._models = models
            if labels != before:
                self._label(labels)

    def check_platforms(self, models: Iterable[ModelConfig]) -> None:
        """Raise InvalidArgument for a model whose platform does not exist, or not take its options.

        Where the versions' files are to tell the platform, they are checked with the files.
        """
        known = frozenset(self._platforms.names)
        for model in models:
            if model.platform and model.platform not in known:
                raise InvalidArgument(
                    f"Model {model.name} requests unsupported platform {model.platform}; "
                    f"known: {', '.join(sorted(known))}"
                )
            if model.platform and model.platform_options:
                try:
                    self._platforms.check_options(model.platform, model.platform_options)
                except InvalidArgument as error:
                    raise InvalidArgument(f"Model {model.name}: {error.message}") from None

    def _check(self, models: tuple[ModelConfig, ...]) -> None:
        """Raise ServingError if the models cannot replace the current ones."""
        check_transition(self._models, models)
        self.check_platforms(models)
        check_labels(
            _labels(models),
            _labels(self._models),
            self._is_available,
            self._allow_unavailable,
        )

    def _is_available(self, name: str, version: int) -> bool:
        return any(
            s.id.version == version and s.state is PublicState.AVAILABLE
            for s in self._monitor.of_model(name)
        )


class _Wait:
    """One reload's wait for its new models: `watch` them first, then `begin` to report."""

    def __init__(self, monitor: StateMonitor, names: list[str], done: Done) -> None:
        self._monitor = monitor
        self._names = names
        self._done = done
        self._lock = threading.Lock()
        self._outcome: bool | None = None  # guarded by _lock
        self._begun = False  # guarded by _lock
        self._timer: threading.Timer | None = None  # set before _begun

    def watch(self) -> None:
        """Watch the models from now on; nothing is reported before `begin`."""
        self._monitor.notify_when(self._names, PublicState.AVAILABLE, self._end, patient=False)

    def give_up(self) -> None:
        """Stop watching; nothing will be reported."""
        self._monitor.forget(self._end)

    def begin(self, timeout_s: float) -> None:
        """Report the outcome as soon as it is known, at the latest after `timeout_s`."""
        timer = self._timer = threading.Timer(timeout_s, self._end, (False,))
        timer.name = "reload-timeout"
        timer.daemon = True
        with self._lock:
            self._begun = True
            ended = self._outcome
        if ended is not None:
            self._report(ended)
            return
        try:
            timer.start()
        except RuntimeError:  # without the timer the reload might never end
            self._end(False)

    def _end(self, reached: bool) -> None:
        """Record the outcome; report it if `begin` was called."""
        with self._lock:
            if self._outcome is not None:
                return
            self._outcome = reached
            begun = self._begun
        if begun:
            self._report(reached)

    def _report(self, reached: bool) -> None:
        assert self._timer is not None  # set before `_begun`
        self._timer.cancel()
        self._monitor.forget(self._end)
        self._done(None if reached else self._failure())

    def _failure(self) -> ServingError | None:
        missing = sorted(set(self._names) - self._monitor.available())
        if not missing:
            return None
        reasons = "".join(f"{{{self._monitor.why_not(name)}}}, " for name in missing)
        return UnknownError(f"{len(missing)} model(s) did not become available: {{{reasons}}}")


def _labels(models: tuple[ModelConfig, ...]) -> Labels:
    return {m.name: dict(m.version_labels) for m in models if m.version_labels}


def log_reload(error: ServingError | None) -> None:
    """Log the failure of a reload that nobody waits for."""
    if error is not None:
        _log.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error.message)
