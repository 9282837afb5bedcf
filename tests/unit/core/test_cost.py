"""What calls cost: a decaying minimum by size."""

import math

import hypothesis.strategies as st
from hypothesis import given

from servingd.core.batching.cost import DECAY, OUTLIER_CALLS, OUTLIER_S, CostMeter

CHEAP, DEAR = 50e-6, 20e-3
seconds = st.floats(1e-6, 1e-3)


def meter(*measurements, size=8):
    m = CostMeter()
    for measured in measurements:
        m.observe(size, measured)
    return m


def test_what_was_never_seen_costs_infinity():
    assert CostMeter().cost(8) == math.inf
    assert meter(CHEAP, size=8).cost(8_000_000) == math.inf


def test_the_first_measurement_is_the_estimate():
    assert meter(CHEAP).cost(8) == CHEAP


@given(st.lists(seconds, min_size=1))
def test_the_estimate_is_never_above_a_measurement_just_made_nor_below_the_least(measured):
    m = meter(*measured)
    assert min(measured) <= m.cost(8)
    assert meter(*measured, min(measured) / 2).cost(8) == min(measured) / 2


def test_a_minimum_rises_with_dearer_measurements_but_slowly():
    m = meter(CHEAP, 10 * CHEAP)
    assert m.cost(8) == CHEAP * DECAY
    for _ in range(69):
        m.observe(8, 10 * CHEAP)
    assert 3.9 < m.cost(8) / CHEAP < 4.1


def test_sizes_are_told_apart_by_powers_of_two():
    m = meter(CHEAP, size=1024)
    assert m.cost(2047) == CHEAP
    assert m.cost(2048) == m.cost(1023) == math.inf


def test_calls_without_bytes_are_a_size_of_their_own():
    m = meter(CHEAP, size=0)
    assert m.cost(0) == CHEAP
    assert m.cost(1) == math.inf


def test_after_one_very_dear_call_none_is_taken_for_a_cheap_one_for_a_while():
    m = meter(CHEAP, DEAR)
    for _ in range(OUTLIER_CALLS):
        assert m.cost(8) == math.inf
        m.observe(8, CHEAP)
    assert m.cost(8) < 2 * CHEAP


def test_a_second_very_dear_call_starts_the_while_again():
    m = meter(CHEAP, DEAR)
    for _ in range(OUTLIER_CALLS - 1):
        m.observe(8, CHEAP)
    m.observe(8, DEAR)
    for _ in range(OUTLIER_CALLS):
        assert m.cost(8) == math.inf
        m.observe(8, CHEAP)
    assert m.cost(8) < 2 * CHEAP


def test_a_very_dear_call_concerns_its_size_only():
    m = meter(CHEAP, DEAR, size=8)
    m.observe(1024, CHEAP)
    assert m.cost(1024) == CHEAP


def test_a_call_that_is_always_dear_is_no_outlier():
    assert meter(DEAR, DEAR).cost(8) == DEAR


@given(st.lists(st.tuples(st.integers(0, 2**40), st.floats(0, 1)), max_size=50))
def test_any_measurements_leave_an_estimate_that_is_no_less_than_nothing(measured):
    m = CostMeter()
    for size, cost in measured:
        m.observe(size, cost)
        assert m.cost(size) >= 0
        assert cost <= OUTLIER_S or m.cost(size) >= min(c for _, c in measured)
