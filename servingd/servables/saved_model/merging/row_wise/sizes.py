"""Sizes that need not be known to be compared: whole numbers, and polynomials over named ones.

`ROWS` is the number of rows that are merged. Every other name stands for a size that is the same
for all calls that may be merged, such as a sentence's length: calls of different lengths are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

_Monomial: TypeAlias = tuple[str, ...]
"""Names in order, one for each time it is a factor; empty: the constant."""

_ROWS = "rows"


class Size:
    """An immutable polynomial with integer coefficients; equal ones are always of one size."""

    __slots__ = ("_key", "_terms")

    def __init__(self, terms: Mapping[_Monomial, int]) -> None:
        self._terms = {names: factor for names, factor in terms.items() if factor}
        self._key = frozenset(self._terms.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        parts = [
            "*".join([str(factor), *names] if factor != 1 or not names else names)
            for names, factor in sorted(self._terms.items())
        ]
        return " + ".join(parts) or "0"

    def __add__(self, other: Size) -> Size:
        terms = dict(self._terms)
        for names, factor in other._terms.items():
            terms[names] = terms.get(names, 0) + factor
        return Size(terms)

    def __sub__(self, other: Size) -> Size:
        return self + other * size(-1)

    def __mul__(self, other: Size) -> Size:
        terms: dict[_Monomial, int] = {}
        for mine, factor in self._terms.items():
            for names, by in other._terms.items():
                both = tuple(sorted(mine + names))
                terms[both] = terms.get(both, 0) + factor * by
        return Size(terms)

    @property
    def known(self) -> int | None:
        """The number, if the size names nothing."""
        if not self._terms:
            return 0
        return self._terms.get(()) if len(self._terms) == 1 else None

    @property
    def counts_rows(self) -> bool:
        """Whether the size depends on the number of rows."""
        return any(_ROWS in names for names in self._terms)

    @property
    def is_positive(self) -> bool:
        """Whether the size cannot be negative, whatever it names."""
        return all(factor > 0 for factor in self._terms.values())

    @property
    def names(self) -> set[str]:
        """The names in it."""
        return {name for names in self._terms for name in names}

    def per_row(self) -> Size | None:
        """Return the size per row, if the number of rows divides it; else None."""
        if not self._terms or any(names.count(_ROWS) != 1 for names in self._terms):
            return None
        return self.divided_by(ROWS)

    def divided_by(self, other: Size) -> Size | None:
        """Return the quotient, if `other` is one product that divides every term; else None."""
        if len(other._terms) != 1:
            return size(1) if self == other and other._terms else None
        ((divisor, by),) = other._terms.items()
        terms: dict[_Monomial, int] = {}
        for names, factor in self._terms.items():
            rest = list(names)
            for name in divisor:
                if name not in rest:
                    return None
                rest.remove(name)
            if factor % by:
                return None
            terms[tuple(rest)] = factor // by
        return Size(terms)


def size(number: int) -> Size:
    """Return a number as a size."""
    return Size({(): int(number)})


def named(name: str) -> Size:
    """Return a size that is only known by a name; one name is one size."""
    return Size({(name,): 1})


def product(sizes: Iterable[Size]) -> Size:
    """Return the product of sizes; 1 for none."""
    whole = ONE
    for each in sizes:
        whole = whole * each
    return whole


ROWS = named(_ROWS)
ONE = size(1)
