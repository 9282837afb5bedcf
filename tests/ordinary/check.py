"""Checks ordinary models on a real server: loaded, right alone, right beside others, and merged.

Models are loaded into a running server one after another and called at once, while the first ones
are being optimised; then again each when that is settled.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from tensorflow_serving.apis import model_management_pb2

from tests.e2e.process import Process
from tests.ordinary.asking import (
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
from tests.ordinary.findings import Findings
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
        assert "Traceback" not in log.read_text(), f"the server's log {log} has a traceback"
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
        """Find out about each; tell of it."""
        asked: list[tuple[Findings, Questions]] = []
        for found in group:
            with _noting(found):
                questions = self._questions(found)
                self._load(found)
                self._ask_at_once(found, questions, 0)
                asked.append((found, questions))
            if found.error:
                tell(found)
        for found, questions in asked:
            with _noting(found):
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

    def _load(self, found: Findings) -> None:
        """Have one model more served. Raises _NotServed."""
        entry = found.entry
        ask = model_management_pb2.ReloadConfigRequest()
        for each in (*self._served, entry):
            config = ask.config.model_config_list.config.add()
            config.name, config.model_platform = each.name, "tensorflow"
            config.base_path = str(version_folder(self._exports, each).parent)
        try:
            reason = self._server.model.HandleReloadConfigRequest(ask, timeout=LOAD_S).status
            text = reason.error_message
        except grpc.RpcError as error:
            text = error.details() or error.code().name
        state = self._server.states(entry.name).get(1)
        if state != "AVAILABLE":
            raise _NotServed(text or f"it is {state}")
        self._served.append(entry)

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
        before = self._batches(found)
        found.beside.append(at_once(self._server, calls, self._effort.calls, seed))
        found.batches = self._batches(found) - before

    def _note(self, found: Findings, what: str, answer: Answer | str, right: Answer) -> None:
        if not same(right, answer):
            found.wrong_alone.append(f"{what}: {shortened(answer)}, not {shortened(right)}")

    def _wait_for_verdict(self, found: Findings) -> None:
        name = found.entry.name
        series = re.compile(rf'^servingd_model_graph{{model="{name}",state="(\w+)".*}} 1', re.M)

        def settled() -> str:
            states = series.findall(self._server.get("/metrics")[1])
            return "" if "optimising" in states else "".join(states)

        found.graph = self._server.wait_for(f"the graph of {name}", settled, VERDICT_S)
        reason = re.search(
            rf"name: {name} version: 1}} is served as it is, not optimised: (.*)",
            self._server.log.read_text(),
        )
        found.declined = reason[1] if reason else ""

    def _read_queue(self, found: Findings) -> None:
        text = self._server.get(f"/servingd/v1/models/{found.entry.name}")[1]
        (version,) = json.loads(text)["versions"]
        queue = next(q for q in version["queues"] if q["signature"] == found.entry.signature)
        found.worth_merging = queue["worth_merging"]
        found.not_merged = queue.get("not_merged") or ""

    def _batches(self, found: Findings) -> Counter[str]:
        """How many calls have left the queue, and in how many batches."""
        text = self._server.get("/metrics")[1]
        return Counter(
            {
                what: sum(int(float(n)) for n in self._series(name, found).findall(text))
                for what, name in (
                    ("calls", "servingd_queue_seconds_count"),
                    ("batches", "servingd_batches_total"),
                )
            }
        )

    def _series(self, name: str, found: Findings) -> re.Pattern[str]:
        return re.compile(rf'^{name}{{[^}}]*model="{found.entry.name}"[^}}]*}} (\S+)$', re.M)


class _NotServed(Exception):
    """The text says why."""


@contextmanager
def _noting(found: Findings) -> Iterator[None]:
    """Note the time that it takes, and what goes wrong with this model; the others go on."""
    started = time.monotonic()
    try:
        yield
    except _NotServed as error:
        found.error = str(error)
    except Exception as error:
        found.error = f"{type(error).__name__}: {error}"
    finally:
        found.seconds += time.monotonic() - started
