"""Which scans of folders are abandoned, and which are reported: decisions about values."""

import math

import pytest

from servingd.sources.scans import Scan, ScanLimits, next_check, to_abandon, to_report

LIMITS = ScanLimits(replace_thread_s=1.0, unresponsive_s=30.0, max_abandoned=2)
WAITING = Scan()


def test_a_thread_is_replaced_only_while_another_scan_waits_for_one():
    slow, quick = Scan(begun=0.0), Scan(begun=4.5)
    assert to_abandon([slow, quick], 5.0, LIMITS) == []
    assert to_abandon([slow, quick, WAITING], 5.0, LIMITS) == [slow]
    slow.abandoned = True
    assert to_abandon([slow, quick, WAITING], 5.0, LIMITS) == []


def test_no_more_threads_are_replaced_than_may_be():
    scans = [Scan(begun=0.0) for _ in range(5)]
    assert to_abandon([*scans, WAITING], 5.0, LIMITS) == scans[:2]
    scans[0].abandoned = True
    assert to_abandon([*scans, WAITING], 5.0, LIMITS) == [scans[1]]


def test_an_unresponsive_scan_is_reported_once_and_one_that_waits_for_a_thread_never():
    overdue = Scan(begun=0.0)
    scans = [overdue, Scan(begun=10.0), WAITING]
    assert to_report(scans, 29.9, LIMITS) == []
    assert to_report(scans, 30.0, LIMITS) == [overdue]
    overdue.reported = True
    assert to_report(scans, 31.0, LIMITS) == []


@pytest.mark.parametrize(
    ("scans", "at"),
    [
        ([], math.inf),
        ([WAITING], 11.0),
        ([Scan(begun=9.5)], 10.5),
        ([Scan(begun=5.0)], 35.0),
        ([Scan(begun=5.0), Scan(begun=9.5)], 10.5),
        ([Scan(begun=-30.0, reported=True)], math.inf),
    ],
)
def test_the_source_looks_at_its_clock_when_an_answer_may_change(scans, at):
    assert next_check(scans, 10.0, LIMITS) == at
