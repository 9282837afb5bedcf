"""Who may take how much at once, and who waits."""

from __future__ import annotations

import pytest

from servingd.errors import Unavailable
from servingd.runtime.byte_budget import ByteBudget


def test_bytes_are_lent_in_order_of_arrival():
    budget, begun = ByteBudget(100), []

    def ask(name, size, held=0, alive=True):
        budget.ask(size, held, lambda: alive, lambda: begun.append(name))

    ask("a", 60)
    ask("b", 60)
    ask("c", 10)  # there would be room for it, but b came first
    assert begun == ["a"]
    budget.give_back(60)
    assert begun == ["a", "b", "c"]
    budget.give_back(60)
    budget.give_back(10)
    ask("all", 1000)
    ask("d", 1)
    assert begun[3:] == ["all"]
    budget.give_back(1000)
    assert begun[3:] == ["all", "d"]


def test_what_waits_is_bounded_in_number_and_bytes_and_the_dead_make_room():
    budget, living = ByteBudget(100, max_waiting=3), {"b": True, "c": True}

    def ask(name, held=0):
        budget.ask(100, held, lambda: living.get(name, True), lambda: None)

    ask("a")
    ask("b", held=60)
    with pytest.raises(Unavailable, match="1 large requests are waiting already") as refused:
        ask("large", held=41)
    assert refused.value.retry_after_s
    ask("c", held=40)
    ask("d")
    with pytest.raises(Unavailable, match="3 large requests"):
        ask("e")
    living["b"] = False
    ask("large", held=41)
