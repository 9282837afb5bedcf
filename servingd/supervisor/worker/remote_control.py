"""The control plane as a worker process sees it: copies of its states, and questions to it.

What many callers ask is answered from the copies: status, health, readiness, errors of look-ups.
What changes something, and what needs all workers, is asked of the supervisor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from servingd.config.models import ModelConfig
from servingd.config.yaml.edits import ModelEdit
from servingd.core.callbacks import nothing
from servingd.core.readiness import Needs, Readiness, usable, why_unusable
from servingd.errors import ServingError
from servingd.frontends.admin.status_pages import Answer as StatusAnswer
from servingd.runtime.jobs import Jobs, JobStore
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.supervisor.link.messages import (
    AbsentBecause,
    Announced,
    Answer,
    ConfiguredAre,
    Facts,
    IncompleteAre,
    pack,
    pack_models,
    unpack,
)
from servingd.supervisor.link.questions import Questions
from servingd.supervisor.worker.shared_jobs import SharedJobs


class RemoteControl:
    """See `frontends.ports.ControlPlane`. News come from one thread; all else from any."""

    def __init__(self, ready_when: str, questions: Questions) -> None:
        self._rule = ready_when if ready_when in ("all", "any") else tuple(ready_when.split(","))
        self._questions = questions
        self._facts = Facts(False, (), False, False)  # replaced whole
        self._on_readiness: Callable[[], None] = nothing
        self.needs: Callable[[], Needs] = dict
        """Returns the models that models are made of; set when the data plane is built."""
        self.states = StateMonitor()
        self.jobs: SharedJobs | None = None
        """The jobs of all workers; set when the ports are built."""

    def news(self, message: Any) -> bool:
        """Take what the supervisor tells of states; return False for anything else."""
        match message:
            case Announced(state):
                self.states.announce(state)
            case IncompleteAre(name, incomplete):
                self.states.report_incomplete(name, incomplete)
            case AbsentBecause(name, reason):
                self.states.report_absent(name, reason)
            case ConfiguredAre(names):
                self.states.configure(names)
            case Facts():
                self._facts = message
            case _:
                return False
        self._on_readiness()
        return True

    def watch_readiness(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever `readiness` may differ."""
        self._on_readiness = changed

    def readiness(self) -> Readiness:
        """Return how the server is, as the supervisor has told."""
        facts = self._facts
        return Readiness(
            rule=self._rule,
            models_known=facts.models_known,
            configured=self.states.configured() if facts.models_known else frozenset(facts.listed),
            available=frozenset() if facts.stopping else self._usable(),
            started=facts.started,
            stopping=facts.stopping,
        )

    def why_not_ready(self) -> str | None:
        """Return why the server is not ready; None if it is."""
        return self.readiness().why_not_ready(self._trouble)

    def _usable(self) -> frozenset[str]:
        return usable(self.states.available(), self.needs())

    def _trouble(self, name: str) -> str:
        return self.states.trouble(name) or why_unusable(name, self._usable(), self.needs())

    def is_configured(self, name: str) -> bool:
        """Return whether a model ought to be served."""
        return name in self.states.configured()

    def reload(
        self,
        models: tuple[ModelConfig, ...],
        timeout_s: float | None,
        done: Callable[[ServingError | None], None],
    ) -> None:
        """Let the supervisor replace the models."""

        def answered(answer: Answer) -> None:
            # Not here: `done` may ask for metrics, and this thread receives the answers.
            threading.Thread(
                target=done, args=(answer.error,), name="reload-answer", daemon=True
            ).start()

        self._questions.ask("reload", pack([pack_models(models), timeout_s]), answered)

    def edit(self, edit: ModelEdit, done: Callable[[ServingError | None], None]) -> None:
        """Let the supervisor change `servingd.yaml`."""
        body = pack([edit.kind, edit.model, dict(edit.content)])
        self._questions.ask("edit", body, lambda answer: done(answer.error))

    def reread(self, done: Callable[[ServingError | None], None]) -> None:
        """Let the supervisor read the configuration files again."""
        self._questions.ask("reread", b"", lambda answer: done(answer.error))

    def metrics_page(self) -> bytes:
        """Return the metrics page of all workers. Waits for the supervisor."""
        return self._questions.ask_and_wait("metrics")

    def status_page(self, path: str) -> StatusAnswer | None:
        """Return the page about all workers at a path; None if there is none. Waits."""
        page = unpack(self._questions.ask_and_wait("page", pack(path)))
        return None if page is None else (page[0], page[1], page[2])

    def share_jobs(self, store: JobStore) -> Jobs:
        """Let the other workers ask for this one's jobs; return those of all."""
        self.jobs = SharedJobs(store, self._questions)
        return self.jobs

    def serving_values(self, names: Sequence[str]) -> dict[str, int]:
        """Return single metrics of all workers, by TensorFlow Serving's names. Waits."""
        if not names:
            return {}
        values: dict[str, int] = unpack(self._questions.ask_and_wait("values", pack(list(names))))
        return values


class RemoteProfiler:
    """Takes a trace of every worker; see `frontends.tfs.rpc.profiler.Profiler`."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    def profile(
        self,
        seconds: float,
        levels: tuple[int, int, int],
        done: Callable[[Mapping[str, bytes] | ServingError], None],
    ) -> None:
        """Trace all workers for so many seconds; `done` gets their traces by their names."""

        def answered(answer: Answer) -> None:
            done(answer.error if answer.error is not None else unpack(answer.body))

        self._questions.ask("profile", pack([seconds, levels]), answered)

    def terminate(self) -> None:
        """End the trace under way in all workers."""
        self._questions.ask("end profile", b"", nothing)
