"""Rows as callers send them: short and long, small and large, empty, repeated, not English."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.ordinary.entry import Inputs

WORDS = (
    *("the", "a", "of", "good", "bad", "movie", "film", "actor", "plot", "never", "ever", "watch"),
    *("again", "love", "hate", "boring", "great", "fun", "slow", "fast", "Straße", "naïve", "映画"),
    *("кино", "🎬", "don't", "it's", "10/10", "UPPER", "MiXeD", "<br/>", "co-op", "unknownword"),
)

Maker = Callable[[np.random.Generator, int], np.ndarray]


def numbers(*shape: int) -> Maker:
    """Floats whose scale differs from row to row between 1e-3 and 1e3; some rows are skewed."""

    def make(rng: np.random.Generator, rows: int) -> np.ndarray:
        values = rng.standard_normal((rows, *shape))
        skewed = rng.random(rows) < 0.3
        values[skewed] = np.abs(values[skewed]) ** 3
        scale = 10.0 ** rng.uniform(-3, 3, (rows, *(1 for _ in shape)))
        values = values * scale
        values[rng.random(rows) < 0.05] = 0.0
        return values.astype(np.float32)

    return make


def pictures(*shape: int, most: float = 255.0) -> Maker:
    """Pictures of 0 to `most`: dark, bright, plain and noisy ones."""

    def make(rng: np.random.Generator, rows: int) -> np.ndarray:
        ones = (1 for _ in shape)
        light = rng.choice([0.01, 0.1, 0.5, 1.0], (rows, *ones))
        values = rng.random((rows, *shape)) * light * most
        for row in np.flatnonzero(rng.random(rows) < 0.1):
            values[row] = values[row].flat[0]
        return values.astype(np.float32)

    return make


def ids(count: int, *shape: int, first: int = 0, dtype: type = np.int32) -> Maker:
    """Ids over the whole range; in some rows only few different ones."""

    def make(rng: np.random.Generator, rows: int) -> np.ndarray:
        values = rng.integers(first, count, (rows, *shape))
        for row in np.flatnonzero(rng.random(rows) < 0.3):
            values[row] = rng.choice([first, count - 1, (first + count) // 2], shape)
        return values.astype(dtype)

    return make


def padded_ids(count: int, length: int, dtype: type = np.int32) -> Maker:
    """Ids from 1, padded with 0 at the end, by a length of each row's own: also none at all."""

    def make(rng: np.random.Generator, rows: int) -> np.ndarray:
        values = rng.integers(1, count, (rows, length))
        own = rng.integers(0, length + 1, (rows, 1))
        return np.where(np.arange(length) < own, values, 0).astype(dtype)

    return make


def sentence(rng: np.random.Generator, most: int = 12) -> str:
    """Some words; often few, sometimes many or none."""
    count = int(rng.choice([0, 1, 2, rng.integers(1, most + 1), most]))
    return " ".join(rng.choice(WORDS, count)) if count else ""


def sentences(*shape: int, most: int = 12) -> Maker:
    """Texts of varied word counts, empty and not English among them, as UTF-8."""

    def make(rng: np.random.Generator, rows: int) -> np.ndarray:
        whole = np.empty((rows, *shape), object)
        for place in np.ndindex(whole.shape):
            whole[place] = sentence(rng, most).encode()
        return whole

    return make


def choices(values: Sequence[str], *shape: int) -> Maker:
    """Texts of a list, as UTF-8."""
    known = [value.encode() for value in values]

    def make(rng: np.random.Generator, rows: int) -> np.ndarray:
        whole = np.empty((rows, *shape), object)
        for place in np.ndindex(whole.shape):
            whole[place] = known[int(rng.integers(len(known)))]
        return whole

    return make


def named(**makers: Maker) -> Callable[[np.random.Generator, int], Inputs]:
    """Inputs of a signature, by name."""
    return lambda rng, rows: {name: make(rng, rows) for name, make in makers.items()}
