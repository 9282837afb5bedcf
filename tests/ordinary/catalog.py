"""The list of ordinary models."""

from __future__ import annotations

from collections.abc import Sequence

from tests.ordinary import hub, jax_models, keras3, legacy_keras, modules, recommenders, tf1
from tests.ordinary.entry import Entry

ENTRIES: Sequence[Entry] = (
    *keras3.ENTRIES,
    *legacy_keras.ENTRIES,
    *hub.ENTRIES,
    *recommenders.ENTRIES,
    *jax_models.ENTRIES,
    *tf1.ENTRIES,
    *modules.ENTRIES,
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
