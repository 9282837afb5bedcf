"""Which looks at folders are given up, and which are told: decisions about values."""

import math

import pytest

from servingd.sources.scans import Look, Patience, next_check, to_give_up, to_tell

PATIENCE = Patience(stand_in_s=1.0, told_s=30.0, most_given_up=2)
WAITING = Look()


def test_a_thread_is_given_up_only_while_another_look_waits_for_one():
    slow, quick = Look(begun=0.0), Look(begun=4.5)
    assert to_give_up([slow, quick], 5.0, PATIENCE) == []
    assert to_give_up([slow, quick, WAITING], 5.0, PATIENCE) == [slow]
    slow.given_up = True
    assert to_give_up([slow, quick, WAITING], 5.0, PATIENCE) == []


def test_no_more_threads_are_given_up_than_may_be():
    looks = [Look(begun=0.0) for _ in range(5)]
    assert to_give_up([*looks, WAITING], 5.0, PATIENCE) == looks[:2]
    looks[0].given_up = True
    assert to_give_up([*looks, WAITING], 5.0, PATIENCE) == [looks[1]]


def test_an_overdue_look_is_told_once_and_one_that_waits_for_a_thread_never():
    overdue = Look(begun=0.0)
    looks = [overdue, Look(begun=10.0), WAITING]
    assert to_tell(looks, 29.9, PATIENCE) == []
    assert to_tell(looks, 30.0, PATIENCE) == [overdue]
    overdue.told = True
    assert to_tell(looks, 31.0, PATIENCE) == []


@pytest.mark.parametrize(
    ("looks", "at"),
    [
        ([], math.inf),
        ([WAITING], 11.0),
        ([Look(begun=9.5)], 10.5),
        ([Look(begun=5.0)], 35.0),
        ([Look(begun=5.0), Look(begun=9.5)], 10.5),
        ([Look(begun=-30.0, told=True)], math.inf),
    ],
)
def test_the_source_looks_at_its_clock_when_an_answer_may_change(looks, at):
    assert next_check(looks, 10.0, PATIENCE) == at
