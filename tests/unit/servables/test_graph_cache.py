"""The folder for optimised graphs goes and comes back, and keeps nothing of servers that died."""

import os
import subprocess
import sys
import threading
import time

import pytest

from servingd.servables.saved_model.optimise.attempts import Attempts
from servingd.servables.saved_model.optimise.graph_cache import GraphCache

DIES = """
import os, sys
from servingd.servables.saved_model.optimise.graph_cache import GraphCache
GraphCache(sys.argv[1]).make_work_folder()
os._exit(1)
"""
DAY_S = 24 * 3600


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def kept(cache, key="key"):
    """Keep a graph; whether it can be found."""
    work_folder = cache.make_work_folder()
    (work_folder / "graph.pb").write_bytes(b"x")
    place = cache.store(work_folder, key)
    found = cache.find(key)
    cache.discard(place)
    return found is not None and os.listdir(found) == ["graph.pb"]


def aged(path, days):
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))


def test_a_folder_that_was_removed_is_made_anew(folder):
    cache = GraphCache(str(folder))
    assert kept(cache)
    for path in folder.iterdir():
        cache.remove(path)
    folder.rmdir()
    assert kept(cache)


def test_a_folder_that_cannot_be_used_for_a_while_is_used_afterwards(folder, caplog):
    folder.write_text("in the way")
    cache = GraphCache(str(folder))
    assert cache.folder is None
    assert not kept(cache)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    folder.unlink()
    assert kept(cache)


def test_a_folder_that_others_write_to_keeps_nothing_until_they_cannot(folder):
    folder.mkdir()
    folder.chmod(0o777)
    cache = GraphCache(str(folder))
    assert not kept(cache)
    folder.chmod(0o700)
    assert kept(cache)


def test_a_workplace_of_a_server_that_died_goes_at_the_next_start(folder):
    subprocess.run([sys.executable, "-c", DIES, folder], check=False)
    assert [path.name[:5] for path in folder.iterdir()] == [".new-"]
    GraphCache(str(folder))
    assert list(folder.iterdir()) == []


def test_a_workplace_that_somebody_works_in_stays(folder):
    cache = GraphCache(str(folder))
    work_folder = cache.make_work_folder()
    aged(work_folder, 60)
    GraphCache(str(folder))
    assert work_folder.exists()
    cache.discard(work_folder)
    assert list(folder.iterdir()) == []


def test_a_workplace_without_an_owner_goes_after_a_day(folder):
    (folder / ".new-old").mkdir(parents=True)
    (folder / ".new-new").mkdir()
    folder.chmod(0o700)
    aged(folder / ".new-old", 2)
    GraphCache(str(folder))
    assert [path.name for path in folder.iterdir()] == [".new-new"]


def test_what_was_tried_is_forgotten_after_a_month_unless_it_is_being_tried(folder):
    GraphCache(str(folder))
    for name, days in ((".trying-a-1", 40), (".trying-b-1", 20)):
        (folder / name).touch()
        aged(folder / name, days)
    with Attempts(folder).during("c", "/m/1"):
        (mine,) = folder.glob(".trying-c-*")
        aged(mine, 40)
        GraphCache(str(folder))
        assert {path.name for path in folder.iterdir()} == {".trying-b-1", mine.name}


def test_graphs_are_made_one_at_a_time_by_all_who_share_a_folder(tmp_path):
    tmp_path.chmod(0o700)
    mine, theirs = GraphCache(str(tmp_path)), GraphCache(str(tmp_path))
    nobody = threading.Event()
    impatient = threading.Event()
    impatient.set()
    with mine.one_at_a_time(nobody) as first, theirs.one_at_a_time(impatient) as second:
        assert first is False
        assert second is True  # it does not go on waiting: its version is being unloaded
    with theirs.one_at_a_time(nobody) as third:
        assert third is False


def test_without_a_folder_nobody_waits(tmp_path):
    cache = GraphCache("")
    with cache.one_at_a_time(threading.Event()) as one, cache.one_at_a_time(threading.Event()):
        assert one is False
