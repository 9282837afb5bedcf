"""Up to how many rows larger batches pay, by the costs that are measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.servables.rows_worth import MAX_ROWS, rows_worth_merging

US = 1e-6


class Model:
    """Runs that cost a fixed part and a part per row; says which sizes were measured."""

    def __init__(self, fixed: float, per_row: float, most: int = MAX_ROWS) -> None:
        self.fixed, self.per_row, self.most = fixed, per_row, most
        self.measured: list[int] = []

    def __call__(self, rows: int) -> float | None:
        self.measured.append(rows)
        return self.fixed + self.per_row * rows if rows <= self.most else None


@pytest.mark.parametrize(
    ("model", "worth", "last"),
    [
        (Model(0, 5e-3), 1, 16),
        (Model(20 * US, 10 * US), 64, 64),
        (Model(500 * US, 1 * US), 512, 512),
        (Model(500 * US, 1 * US, most=4), 4, 8),
        (Model(0.2, 0), 1, 1),
    ],
    ids=["as dear per row", "cheap", "a hundred inputs", "no larger run", "slow"],
)
def test_measuring_ends_where_larger_runs_gain_little(model, worth, last):
    assert rows_worth_merging(model, MAX_ROWS) == worth
    assert model.measured[-1] == last


def test_no_more_rows_than_allowed_are_measured():
    model = Model(500 * US, 1 * US)
    assert rows_worth_merging(model, max_rows=64) == 64
    assert model.measured[-1] == 64


@given(fixed=st.floats(0, 0.01), per_row=st.floats(1e-7, 0.01), max_rows=st.integers(64, MAX_ROWS))
def test_no_measured_run_is_long(fixed, per_row, max_rows):
    model = Model(fixed, per_row)
    assert 1 <= rows_worth_merging(model, max_rows) <= max_rows
    for rows in model.measured[1:]:
        assert rows <= max_rows
        assert fixed + per_row * rows <= 0.15 + fixed
