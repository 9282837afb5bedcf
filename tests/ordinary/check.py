"""Checks ordinary models on a real server: loaded, right alone, right beside others, and merged.

Models are loaded into a running server one after another and called at once, while the first ones
are being optimised; then again each when that is settled.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from tensorflow_serving.apis import model_management_pb2

from tests.e2e.process import Process
from tests.ordinary.asking import (
    Beside,
    answered,
    at_once,
    by_grpc,
    by_rest,
    message,
    one_by_one,
    shortened,
)
from tests.ordinary.entry import Entry, Inputs
from tests.ordinary.exporting import export_all, version_folder
from tests.ordinary.reference import Answer, Reference, merged_equals_single, same

BATCHES = (1, 3, 64)
GROUP = 12
"""Models that one server serves."""
LOAD_S = 60
VERDICT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is asked of each model."""

    calls: int
    """Made at once: before the optimiser's verdict, and after it."""
    different: int
    """Of which so many differ."""
    trials: int
    """Batches that TensorFlow answers whole and in parts."""


FULL = Effort(calls=1000, different=64, trials=60)
SHORT = Effort(calls=200, different=24, trials=15)


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked of a model, with TensorFlow's answers."""

    batches: list[tuple[Inputs, Answer]]
    small: list[tuple[bytes, Answer]]
    """Requests of one to three rows."""


@dataclass(slots=True)
class Findings:
    """What was found out about a model."""

    entry: Entry
    error: str = ""
    """Why it could not be exported, or is not served; empty if it is."""
    graph: str = ""
    """The optimiser's verdict."""
    declined: str = ""
    """Its reason."""
    worth_merging: int = 0
    """So many rows; 0 if its calls are not merged."""
    not_merged: str = ""
    """The server's reason."""
    mean_rows: float | None = None
    """Of what left the queue; none if nothing was ever in it."""
    wrong_alone: list[str] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    """Before the verdict, and after it."""
    differences: int | None = None
    """Batches that TensorFlow itself answers otherwise whole than in parts."""
    seconds: float = 0.0

    def failures(self) -> list[str]:
        """What is not as it must be, in words; empty if all is well."""
        if self.error:
            return [f"it is not served: {self.error}"]
        found = [f"wrong alone: {text}" for text in self.wrong_alone[:1]]
        found += [f"wrong beside others: {b.example}" for b in self.beside if b.wrong][:1]
        if self.worth_merging and not self.entry.may_merge:
            found.append(f"it is merged, but {self.entry.never_merged}")
        if self.differences and self.entry.may_merge:
            found.append(
                "merged calls have other answers in TensorFlow, too: it must not be merged"
            )
        if self.differences == 0 and not self.entry.may_merge:
            found.append("merged calls are answered as single ones in TensorFlow: ask worse ones")
        return found


def check(
    entries: Sequence[Entry],
    folder: Path,
    effort: Effort,
    tell: Callable[[Findings], None] = lambda _: None,
) -> list[Findings]:
    """Export what is missing in `folder/exports` and check it all; tell of each when it is done."""
    exports = folder / "exports"
    exports.mkdir(parents=True, exist_ok=True)
    errors = export_all(entries, exports)
    findings = [Findings(entry, errors.get(entry.name, "")) for entry in entries]
    for each in findings:
        if each.error:
            tell(each)
    sound = [each for each in findings if not each.error]
    for start in range(0, len(sound), GROUP):
        group = sound[start : start + GROUP]
        with _serving(folder / f"server-{start}.log") as server:
            _Session(server, exports, effort).check(group, tell)
    return findings


@contextmanager
def _serving(log: Path) -> Iterator[Process]:
    """A server without models; that must end well."""
    config = log.with_suffix(".config")
    config.write_text("model_config_list {}")
    # The one flag that is not by default: what cannot be loaded is told at once.
    server = Process(log, f"--model_config_file={config}", "--max_num_load_retries=0")
    try:
        server.wait_for("the server", lambda: server.get("/livez")[0] == 200)
        yield server
        assert server.terminate() == 0, server.tail()
    finally:
        server.close()


class _Session:
    """A server's time, from its first model to its last."""

    def __init__(self, server: Process, exports: Path, effort: Effort) -> None:
        self._server = server
        self._exports = exports
        self._effort = effort
        self._served: list[Entry] = []

    def check(self, group: Sequence[Findings], tell: Callable[[Findings], None]) -> None:
        asked: list[tuple[Findings, Questions]] = []
        for found in group:
            with _timed(found):
                questions = self._questions(found)
                if self._load(found):
                    self._ask_at_once(found, questions, 0)
                    asked.append((found, questions))
            if found.error:
                tell(found)
        for found, questions in asked:
            with _timed(found):
                self._wait_for_verdict(found)
                self._ask_alone(found, questions)
                self._ask_at_once(found, questions, 1)
                self._read_queue(found)
            tell(found)

    def _questions(self, found: Findings) -> Questions:
        entry, rng = found.entry, np.random.default_rng(len(found.entry.name))
        path = version_folder(self._exports, entry)
        found.differences = merged_equals_single(entry, path, self._effort.trials)
        whole = [entry.ask(rng, rows) for rows in BATCHES]
        small = [entry.ask(rng, int(rows)) for rows in rng.integers(1, 4, self._effort.different)]
        with Reference(path, entry.signature) as reference:
            return Questions(
                [(inputs, reference.run(inputs)) for inputs in whole],
                [(message(entry, inputs), reference.run(inputs)) for inputs in small],
            )

    def _load(self, found: Findings) -> bool:
        """Have one model more served; False, with the reason in `found.error`, if it is not."""
        entry = found.entry
        ask = model_management_pb2.ReloadConfigRequest()
        for each in (*self._served, entry):
            config = ask.config.model_config_list.config.add()
            config.name, config.model_platform = each.name, "tensorflow"
            config.base_path = str(version_folder(self._exports, each).parent)
        try:
            answer = self._server.model.HandleReloadConfigRequest(ask, timeout=LOAD_S)
            found.error = answer.status.error_message
        except grpc.RpcError as error:
            found.error = error.details() or error.code().name
        state = self._server.states(entry.name).get(1)
        if state != "AVAILABLE":
            found.error = found.error or f"it is {state}"
            return False
        self._served.append(entry)
        return True

    def _ask_alone(self, found: Findings, questions: Questions) -> None:
        for inputs, right in questions.batches:
            for way, answer in (
                ("gRPC", by_grpc(self._server, found.entry, inputs)),
                ("REST", by_rest(self._server, found.entry, inputs, right)),
            ):
                rows = len(next(iter(inputs.values())))
                self._note(found, f"{rows} rows by {way}", answer, right)

    def _ask_at_once(self, found: Findings, questions: Questions, seed: int) -> None:
        messages = [text for text, _ in questions.small]
        calls = one_by_one(self._server, messages)
        for call, (_, right) in zip(calls, questions.small, strict=True):
            self._note(found, "a few rows", answered(call.alone), right)
        found.beside.append(at_once(self._server, calls, self._effort.calls, seed))

    def _note(self, found: Findings, what: str, answer: Answer | str, right: Answer) -> None:
        if not same(right, answer):
            found.wrong_alone.append(f"{what}: {shortened(answer)}, not {shortened(right)}")

    def _wait_for_verdict(self, found: Findings) -> None:
        name = found.entry.name
        states = re.compile(rf'^servingd_model_graph{{model="{name}",state="(\w+)".*}} 1', re.M)

        def settled() -> str:
            states_now = states.findall(self._server.get("/metrics")[1])
            return "" if "optimising" in states_now else "".join(states_now)

        found.graph = self._server.wait_for(f"the graph of {name}", settled, VERDICT_S)
        reason = re.search(
            rf"name: {name} version: 1}} is served as it is, not optimised: (.*)",
            self._server.log.read_text(),
        )
        found.declined = reason[1] if reason else ""

    def _read_queue(self, found: Findings) -> None:
        (version,) = json.loads(self._server.get(f"/servingd/v1/models/{found.entry.name}")[1])[
            "versions"
        ]
        queue = next(q for q in version["queues"] if q["signature"] == found.entry.signature)
        found.worth_merging = queue["worth_merging"]
        found.not_merged = queue.get("not_merged") or ""
        found.mean_rows = queue["batch"]["mean_rows"]


@contextmanager
def _timed(found: Findings) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        found.seconds += time.monotonic() - started
