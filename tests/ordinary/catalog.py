"""The list of ordinary models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.ordinary import hub, jax_models, keras3, legacy_keras, modules, recommenders, tf1
from tests.ordinary.entry import Entry

NOT_SEEN = {
    "keras3_preprocessing": "a bincount checks whether there is any row",
    "keras3_text_fixed": "words pass through a ragged tensor before they get a fixed length",
    "legacy_features": "a bincount checks whether there is any row",
    "jax_mlp": "the graph is one operation, with StableHLO inside",
    "jax_attention": "the graph is one operation, with StableHLO inside",
    "tf1_dynamic_rnn": "it runs as long as the longest of the batch",
    "tf1_linear": "feature columns number the rows of sparse tensors",
    "module_jpeg": "images are decoded in a loop over the rows",
}
"""Models whose rows may run together, and why the server does not see that."""

NOT_OPTIMISED = {
    "keras3_text_free": "the mean of no words is no number, and kernels differ in what follows",
}
"""Models that the server may decline to optimise, and why."""

ENTRIES: Sequence[Entry] = tuple(
    replace(
        entry,
        not_seen=NOT_SEEN.get(entry.name, ""),
        not_optimised=NOT_OPTIMISED.get(entry.name, ""),
    )
    for family in (keras3, legacy_keras, hub, recommenders, jax_models, tf1, modules)
    for entry in family.ENTRIES
)


def named(names: Sequence[str]) -> list[Entry]:
    """The entries of these names; all, if there are none.

    Raises ValueError for an unknown one.
    """
    known = {entry.name: entry for entry in ENTRIES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no ordinary model is called {', '.join(unknown)}")
    return [known[name] for name in names] if names else list(ENTRIES)
