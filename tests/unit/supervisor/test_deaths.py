"""When a worker is begun anew, and which version is blamed."""

import signal

import pytest

from servingd.core.types import ServableId
from servingd.supervisor.processes.deaths import Backoff, Death, Strikes

A, B = ServableId("a", 1), ServableId("b", 1)


@pytest.mark.parametrize(
    ("death", "reason", "by_a_version"),
    [
        (Death(signal.SIGSEGV), "SIGSEGV", True),
        (Death(signal.SIGABRT), "SIGABRT", True),
        (Death(signal.SIGKILL), "SIGKILL", False),
        (Death(signal.SIGKILL, out_of_memory=True), "oom", True),
        (Death(signal.SIGTERM, out_of_memory=True), "SIGTERM", False),
        (Death(status=1), "exit", True),
        (Death(), "exit", False),
        (Death(40), "signal 40", False),
    ],
)
def test_what_a_death_is_called_and_whose_fault_it_may_be(death, reason, by_a_version):
    assert (death.reason, death.by_a_version) == (reason, by_a_version)


class TestStrikes:
    def test_the_third_death_is_too_many(self):
        strikes = Strikes()
        assert [strikes.count([A], now) for now in (0.0, 1.0, 2.0)] == [None, None, A]

    def test_after_that_it_is_counted_anew(self):
        strikes = Strikes()
        found = [strikes.count([A], float(now)) for now in range(6)]
        assert found == [None, None, A, None, None, A]

    def test_each_version_is_counted_by_itself(self):
        strikes = Strikes()
        assert [strikes.count([i], 0.0) for i in (A, B, A, B)] == [None] * 4
        assert strikes.count([B], 0.0) == B

    def test_deaths_of_long_ago_do_not_count(self):
        strikes = Strikes()
        assert [strikes.count([A], now) for now in (0.0, 1.0, 3602.0, 3603.0)] == [None] * 4
        assert strikes.count([A], 3604.0) == A

    def test_of_several_the_one_with_the_most_is_to_blame(self):
        """The other one ran beside it."""
        strikes = Strikes()
        assert strikes.count([B], 0.0) is None
        assert [strikes.count([A, B], now) for now in (1.0, 2.0)] == [None, B]
        assert strikes.count([A], 3.0) == A, "it had two, and was not the worst"

    def test_a_tie_is_broken_and_the_other_one_is_cleared(self):
        strikes = Strikes()
        found = [strikes.count([A, B], float(now)) for now in range(3)]
        assert found == [None, None, B]
        assert strikes.count([A], 4.0) is None

    def test_nobody_may_be_to_blame(self):
        assert Strikes().count([], 0.0) is None

    def test_what_is_forgotten_is_counted_anew(self):
        strikes = Strikes()
        strikes.count([A], 0.0)
        strikes.count([A], 0.0)
        strikes.forget(A)
        strikes.forget(B)
        assert strikes.count([A], 0.0) is None


class TestBackoff:
    def test_pauses_grow(self):
        backoff = Backoff()
        assert [backoff.pause(0.0) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 30, 30, 30]

    def test_after_a_quiet_minute_the_next_worker_is_begun_at_once(self):
        backoff = Backoff()
        assert [backoff.pause(now) for now in (0.0, 10.0, 70.0)] == [0, 1, 2]
        assert [backoff.pause(now) for now in (130.5, 131.0)] == [0, 1]
