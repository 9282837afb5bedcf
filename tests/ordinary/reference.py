"""What TensorFlow itself answers, without our server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from servingd.core.batching.merge import merge, split
from servingd.errors import ServingError
from servingd.servables.saved_model.trials.parity import agree
from tests.ordinary.entry import Entry, Inputs

Answer = dict[str, Any]


class Reference:
    """A signature of an export in a session; or of the loaded object where no session can run it.

    A context manager.
    """

    def __init__(self, path: Path, signature: str) -> None:
        self._path, self._signature = path, signature
        self._session: Any = None
        self._function: Any = None

    def __enter__(self) -> Reference:
        import tensorflow as tf

        tf1 = tf.compat.v1
        graph = tf.Graph()
        self._session = tf1.Session(graph=graph)
        with graph.as_default():
            loaded = tf1.saved_model.loader.load(self._session, ["serve"], str(self._path))
        known = loaded.signature_def[self._signature]
        self._feeds = {alias: info.name for alias, info in known.inputs.items()}
        self._fetches = {alias: known.outputs[alias].name for alias in sorted(known.outputs)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the signature's inputs."""
        return frozenset(self._feeds)

    def run(self, inputs: Inputs) -> Answer:
        """The outputs by name, in the order of their names."""
        import tensorflow as tf

        if self._function is None:
            try:
                feeds = {self._feeds[alias]: array for alias, array in inputs.items()}
                return dict(self._session.run(self._fetches, feeds))
            except tf.errors.FailedPreconditionError:  # variables that its loader does not restore
                self._module = tf.saved_model.load(str(self._path))
                self._function = self._module.signatures[self._signature]
        outputs = self._function(**{alias: tf.constant(a) for alias, a in inputs.items()})
        return {alias: outputs[alias].numpy() for alias in self._fetches}


def same(one: Mapping[str, Any] | str, other: Mapping[str, Any] | str) -> bool:
    """Whether two answers agree, as the server's optimiser sees it; a text is an error."""
    if isinstance(one, str) or isinstance(other, str) or one.keys() != other.keys():
        return one == other
    return agree([one[alias] for alias in one], [other[alias] for alias in one])


def merged_equals_single(entry: Entry, path: Path, trials: int, seed: int = 0) -> int:
    """Let TensorFlow answer merged calls and the same calls singly; return how often they differ.

    `trials` batches of two to six calls, of one to three rows each.
    """
    rng = np.random.default_rng(seed)
    with Reference(path, entry.signature) as reference:
        return sum(_differs(entry, reference, rng) for _ in range(trials))


def _differs(entry: Entry, reference: Reference, rng: np.random.Generator) -> bool:
    length = int(rng.choice(entry.free_lengths)) if entry.free_lengths else None
    calls = [
        entry.ask(rng, int(rows), length) for rows in rng.integers(1, 4, int(rng.integers(2, 7)))
    ]
    alone = [reference.run(call) for call in calls]
    whole = merge(calls)
    rows = [len(next(iter(call.values()))) for call in calls]
    try:
        parts = split(reference.run(whole.inputs), rows, whole)
    except ServingError:
        return True  # it does not even have a row for each
    return not all(map(same, alone, parts))
