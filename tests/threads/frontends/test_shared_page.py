"""A page is made by a worker, once for all who wait for it."""

from __future__ import annotations

from servingd.frontends.http.shared_page import SharedPage


class Jobs:
    """Workers that work when they are told."""

    def __init__(self):
        self.waiting = []

    def submit(self, job):
        self.waiting.append(job)

    def work(self):
        jobs, self.waiting = self.waiting, []
        for job in jobs:
            job()
        return len(jobs)


def test_who_asks_while_the_job_waits_shares_the_page():
    jobs, made, got = Jobs(), [], []
    page = SharedPage(lambda: made.append(1) or b"%d" % len(made), jobs)
    for _ in range(3):
        page.ask(got.append)
    assert not got
    assert jobs.work() == 1
    assert got == [b"1"] * 3
    page.ask(got.append)
    assert jobs.work() == 1
    assert got[3:] == [b"2"]


def test_who_asks_while_it_is_made_gets_a_newer_one():
    jobs, got = Jobs(), []

    def make():
        if not got:
            page.ask(got.append)
        return b"page"

    page = SharedPage(make, jobs)
    page.ask(got.append)
    assert jobs.work() == 1
    assert got == [b"page"]
    assert jobs.work() == 1
    assert got == [b"page"] * 2


def test_everybody_is_answered_if_it_cannot_be_made():
    jobs, got = Jobs(), []
    page = SharedPage(lambda: b"%d" % (1 // 0), jobs)
    page.ask(got.append)
    page.ask(got.append)
    jobs.work()
    assert got == [None, None]
