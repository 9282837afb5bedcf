"""Each page does what it says: its blocks run in order, and print what it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.blocks import pages, used_page
from tests.docs.running import Page

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

AT_A_TIME = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
"""Pages that run beside each other; beside other tests there is one."""


def in_order() -> list[Path]:
    """All pages, those first whose files others use."""
    used = {used_page(page) for page in pages()} - {None}
    return sorted(pages(), key=lambda page: page not in used)


PAGES = in_order()


@pytest.fixture(scope="module")
def run(request, tmp_path_factory) -> Iterator[Callable[[Path], Path]]:
    """Begin all pages that are asked for; `run(page)` waits for one, and raises what it raised."""
    root = tmp_path_factory.mktemp("pages")
    wanted = {
        item.callspec.params["page"]
        for item in request.session.items
        if item.path == Path(__file__)
    }
    begun: dict[Path, Future[Path]] = {}

    def go(page: Path) -> Path:
        before = used_page(page)
        files = begun[before].result() if before else None
        return Page(page, root / page.stem, root / "cache", files).run()

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        needed = wanted | {before for page in wanted if (before := used_page(page))}
        for page in PAGES:
            if page in needed:
                begun[page] = pool.submit(go, page)
        yield lambda page: begun[page].result()
        for future in begun.values():
            future.cancel()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(run, page):
    run(page)
