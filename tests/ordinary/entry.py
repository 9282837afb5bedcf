"""What is known of an ordinary model: how it is exported, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

Inputs: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model. A new one that somebody reports is one more of these."""

    name: str
    family: str
    about: str
    """What the model is, in a line."""
    export: Callable[[Path], None]
    """Writes a version folder that does not exist yet."""
    inputs: Callable[..., Inputs]
    """`inputs(rng, rows)`: valid ones, as awkward as users' are; with `free_lengths`,
    `inputs(rng, rows, length)`."""
    signature: str = "serving_default"
    never_merged: str = ""
    """Why rows of several calls must not run together; empty where they may."""
    not_seen: str = ""
    """Why the server cannot see that rows may run together; empty where it must."""
    not_optimised: str = ""
    """Why the server may decline to optimise it; empty where it must."""
    free_lengths: Sequence[int] = ()
    """Sizes of another dimension that a caller may choose."""
    environment: Sequence[tuple[str, str]] = ()
    """What must be set before TensorFlow is imported, to export it."""

    @property
    def may_merge(self) -> bool:
        """Whether it is right to run rows of several calls together."""
        return not self.never_merged

    def ask(self, rng: np.random.Generator, rows: int, length: int | None = None) -> Inputs:
        """Inputs of so many rows; of one of the lengths, if none is given."""
        if not self.free_lengths:
            return self.inputs(rng, rows)
        return self.inputs(rng, rows, length or int(rng.choice(self.free_lengths)))
