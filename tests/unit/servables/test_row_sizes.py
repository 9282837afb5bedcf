"""Sizes that name what they do not know: arithmetic that holds whatever the names stand for."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from servingd.servables.saved_model.merging.row_wise.sizes import (
    ONE,
    ROWS,
    Size,
    named,
    product,
    size,
)
from servingd.servables.saved_model.merging.row_wise.values import (
    Tensor,
    Unknown,
    content_of,
    join,
    listed,
    taken,
)

NAMES = ("rows", "a", "b")
sizes = st.dictionaries(
    st.lists(st.sampled_from(NAMES), max_size=2).map(lambda names: tuple(sorted(names))),
    st.integers(-3, 5),
    max_size=3,
).map(Size)
known = st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(0, 7)))


def value(of: Size, numbers: dict[str, int]) -> int:
    terms = of._terms.items()
    return sum(factor * math.prod(numbers[name] for name in names) for names, factor in terms)


@given(sizes, sizes, known)
def test_arithmetic_is_that_of_the_numbers(one, other, numbers):
    assert value(one + other, numbers) == value(one, numbers) + value(other, numbers)
    assert value(one - other, numbers) == value(one, numbers) - value(other, numbers)
    assert value(one * other, numbers) == value(one, numbers) * value(other, numbers)


@given(sizes, sizes)
def test_equal_sizes_are_equal_however_they_were_made(one, other):
    assert one + other == other + one
    assert one * other == other * one
    assert hash(one * other) == hash(other * one)
    assert one - one == size(0)


@given(sizes, sizes)
def test_a_quotient_is_exact_or_none(one, other):
    quotient = one.divided_by(other)
    assert quotient is None or quotient * other == one


@given(sizes)
def test_what_each_row_has_makes_the_whole_with_the_rows(one):
    each = one.per_row()
    assert each is None or (each * ROWS == one and not each.counts_rows)


@given(sizes, known)
def test_a_positive_size_is_not_negative(one, numbers):
    if one.is_positive:
        assert value(one, numbers) >= 0


def test_what_is_known_and_what_counts_rows():
    assert size(3).known == 3
    assert size(0).known == 0
    assert named("a").known is None
    assert (ROWS * size(4)).counts_rows
    assert not (named("a") + ONE).counts_rows
    assert (ROWS + ONE).per_row() is None  # one more than there are rows
    assert (ROWS * ROWS).per_row() is None
    assert product([]) == ONE


# What holds for both of two values ---------------------------------------------------------------

ROW = Tensor((ROWS, size(3)), 0)


def test_rows_of_two_lengths_have_some_length():
    both = join(ROW, Tensor((ROWS, size(4)), 0), "here")
    assert both == Tensor((ROWS, named("~here.1")), 0)
    assert join(both, ROW, "here") == both  # it does not grow again


def test_rows_and_what_is_not_are_unknown():
    for other in (Tensor((size(1), size(3))), Tensor((size(3), ROWS), 1), Tensor((ROWS,), 0)):
        assert isinstance(join(ROW, other, "here"), Unknown)
    assert isinstance(join(ROW, Tensor((ROWS * size(2), size(3)), 0), "here"), Unknown)


def test_what_is_the_same_stays_so_and_forgets_what_differs():
    one, two = (Tensor((), None, content_of(number)) for number in (1, 2))
    assert join(one, two, "here") == Tensor(())
    assert join(Tensor((size(2),)), Tensor((size(2), size(2))), "here") == Tensor(None)


def test_counts_that_differ_are_unknown():
    one, two = (Tensor((), None, content_of(count)) for count in (ROWS, ROWS * size(2)))
    assert isinstance(join(one, two, "here"), Unknown)


def test_elements_of_a_list_may_differ_in_sizes_that_were_made():
    element = listed(Tensor((ROWS, named("~x.0"), named("length")), 0))
    assert element is not None
    first, second = (taken(element, name) for name in ("one", "other"))
    assert first.dims[1] != second.dims[1]
    assert first.dims[0] == ROWS
    assert first.dims[2] == named("length")
    assert listed(Tensor((ROWS * named("~x.0"),), 0)) is None
