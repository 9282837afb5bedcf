"""The file-system source over real folders and fake platforms.

Most tests look by hand (`scan`); those of the threads have no poll in reach, so that only events
of the file system can have woken them.
"""

import os
import queue
import shutil
import threading
import time

import pytest

from servingd.config.models import ModelConfig
from servingd.core.lifecycle.versions import All, Latest, Specific
from servingd.core.types import AspiredVersions, ServableId
from servingd.runtime.threads import WorkerPool
from servingd.sources.catalogs import ConfiguredCatalog, RepositoryCatalog
from servingd.sources.file_system import FileSystemSource, SourceOptions
from servingd.sources.listing import DiskListing
from servingd.sources.polling import MODELS_PER_SCAN
from servingd.sources.scans import ScanLimits
from tests.threads.fakes import TIMEOUT, FakePlatform, FakePlatforms, InlineThreads, opened

FOR_EVER = 3600.0
SOON = 5.0

# watchdog's own thread says so when a folder is made and renamed in quick succession, and does the
# right thing. As an error it would end that thread, and with it all events.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")


class Watch:
    """A source and all that it has said."""

    def __init__(self, catalog, platforms=None, poll_wait_s=FOR_EVER, **how):
        self.absent = queue.SimpleQueue()
        self.fake = FakePlatform()
        self.stated = []
        self.configured = []
        self.on_statement = lambda statement: None
        self._queue = queue.SimpleQueue()
        platforms = platforms or FakePlatforms(self.fake)
        how.setdefault("threads", InlineThreads())
        self.source = FileSystemSource(
            catalog, platforms, self, SourceOptions(poll_wait_s=poll_wait_s, **how)
        )

    def models_configured(self, models):
        self.configured.append(sorted(models))

    def set_aspired_versions(self, aspired):
        self.stated.append(aspired)
        self._queue.put(aspired)
        self.on_statement(aspired)

    def no_version_found(self, name, reason):
        self.absent.put((name, reason))

    def scan(self):
        """Look once; what is said of each model, by name: versions and incomplete ones."""
        before = len(self.stated)
        self.source.scan()
        new = self.stated[before:]
        assert len({s.name for s in new}) == len(new), "two statements about one model"
        return {s.name: (versions_of(s), dict(s.incomplete)) for s in new}

    def next(self, timeout=SOON):
        """The next statement that a running source makes, or None if there is none in time."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def wait_for(self, name, *versions):
        """The first statement from now on that aspires exactly these versions."""
        deadline = time.monotonic() + SOON
        while (statement := self.next(max(0.01, deadline - time.monotonic()))) is not None:
            if statement.name == name and versions_of(statement) == list(versions):
                return statement
        raise AssertionError(f"{name} {versions} was not stated: {self.stated}")


def versions_of(statement):
    return [v.version for v in statement.versions]


def write_version(folder, complete=True, content="x"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").write_text(content)
    if complete:
        (folder / "done").touch()
    return folder


def model(base_path, name="m", platform="fake", policy=None):
    return ModelConfig(
        name=name,
        base_path=str(base_path),
        platform=platform,
        version_policy=policy or Latest(),
    )


@pytest.fixture
def base(tmp_path):
    """The base path of the model `m`."""
    path = tmp_path / "m"
    path.mkdir()
    return path


@pytest.fixture
def watch(base):
    return Watch(ConfiguredCatalog((model(base),)))


def watch_all(base):
    return Watch(ConfiguredCatalog((model(base, policy=All()),)))


# What is there ----------------------------------------------------------------------------------


def test_a_complete_version_is_stated_with_its_place_and_type(watch, base):
    write_version(base / "1")
    assert watch.scan() == {"m": ([1], {})}
    (version,) = watch.stated[0].versions
    assert version.error is None
    assert version.data.path == str(base / "1")
    assert version.data.platform == "fake"
    assert version.data.fingerprint


def test_what_has_not_changed_is_not_stated_again_nor_read_again(watch, base):
    write_version(base / "1")
    watch.scan()
    assert watch.scan() == {}
    assert watch.fake.looks == 1


def test_a_folder_keeps_its_spelling(watch, base):
    write_version(base / "00017")
    assert watch.scan() == {"m": ([17], {})}
    assert watch.stated[0].versions[0].data.path == str(base / "00017")


def test_children_that_are_no_versions_are_passed_over(watch, base):
    for name in ("-5", "+7", "1.5", "tmp.3", "0x10", ".4"):
        write_version(base / name)
    write_version(base / "2")
    (base / "README").write_text("3")
    assert watch.scan() == {"m": ([2], {})}


def test_a_version_may_be_a_plain_file(watch, base):
    (base / "7").write_text("a,b\n")
    assert watch.scan() == {"m": ([7], {})}
    assert watch.stated[0].versions[0].data.path == str(base / "7")


def test_a_version_may_be_a_link(watch, base, tmp_path):
    write_version(tmp_path / "elsewhere")
    (base / "7").symlink_to(tmp_path / "elsewhere")
    assert watch.scan() == {"m": ([7], {})}


def test_a_dangling_link_is_an_incomplete_version(watch, base, tmp_path):
    (base / "7").symlink_to(tmp_path / "nowhere")
    said = watch.scan()["m"]
    assert said[0] == []
    assert said[1].keys() == {7}
    write_version(tmp_path / "nowhere")
    assert watch.scan() == {"m": ([7], {})}


def test_files_in_subfolders_count(watch, base):
    write_version(base / "1")
    (base / "1" / "variables").mkdir()
    (base / "1" / "variables" / "data").write_text("x")
    watch.scan()
    (base / "1" / "variables" / "data").write_text("xy")
    assert watch.scan() == {"m": ([1], {})}


def test_a_file_whose_name_is_not_utf8_does_no_harm(watch, base):
    write_version(base / "1")
    (base / "1" / os.fsdecode(b"\xff")).touch()
    assert watch.scan() == {"m": ([1], {})}


# Policies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        (Latest(), [42]),
        (Latest(0), [42]),
        (Latest(3), [42, 33, 30]),
        (Latest(99), [42, 33, 30, 17]),
        (All(), [42, 33, 30, 17]),
        (Specific((17, 33)), [33, 17]),
        (Specific((17, 99)), [17]),
        (Specific((99,)), []),
        (Specific(()), []),
    ],
)
def test_the_policy_decides_which_versions_are_stated(base, policy, versions):
    for version in (17, 30, 33, 42):
        write_version(base / str(version))
    watch = Watch(ConfiguredCatalog((model(base, policy=policy),)))
    assert watch.scan() == {"m": (versions, {})}


def test_the_latest_version_replaces_the_one_before_and_is_replaced_when_it_goes(watch, base):
    write_version(base / "1")
    watch.scan()
    write_version(base / "2")
    assert watch.scan() == {"m": ([2], {})}
    shutil.rmtree(base / "2")
    assert watch.scan() == {"m": ([1], {})}


def test_an_incomplete_newest_version_leaves_the_latest_complete_one(watch, base):
    write_version(base / "1")
    write_version(base / "2", complete=False)
    assert watch.scan() == {"m": ([1], {2: "done is not there"})}
    (base / "2" / "done").touch()
    assert watch.scan() == {"m": ([2], {})}


def test_versions_older_than_those_wanted_are_not_looked_at(watch, base):
    for version in range(1, 8):
        write_version(base / str(version))
    watch.scan()
    assert watch.fake.looks == 1


# Incomplete and changing versions ---------------------------------------------------------------


def test_an_incomplete_version_is_reported_with_its_reason_and_not_aspired(base):
    write_version(base / "1", complete=False)
    write_version(base / "2")
    (base / "3").mkdir()
    watch = watch_all(base)
    assert watch.scan() == {"m": ([2], {1: "done is not there", 3: "done is not there"})}


def test_a_copy_that_goes_on_is_looked_at_whenever_it_changes_and_only_then(watch, base):
    folder = write_version(base / "1", complete=False)
    watch.scan()
    assert watch.scan() == {}
    assert watch.fake.looks == 1
    (folder / "more").touch()
    assert watch.scan() == {}  # the same reason: nothing new to say
    assert watch.fake.looks == 2
    (folder / "done").touch()
    assert watch.scan() == {"m": ([1], {})}


def test_a_published_version_that_is_deleted_file_by_file_stays_until_its_folder_is_gone(
    watch, base
):
    folder = write_version(base / "1")
    watch.scan()
    for name in ("done", "model"):
        (folder / name).unlink()
        assert watch.scan() == {}
    folder.rmdir()
    assert watch.scan() == {"m": ([], {})}


def test_a_version_that_was_removed_is_judged_anew_when_it_comes_back(watch, base):
    folder = write_version(base / "1")
    watch.scan()
    shutil.rmtree(folder)
    watch.scan()
    write_version(folder, complete=False)
    assert watch.scan() == {"m": ([], {1: "done is not there"})}
    (folder / "done").touch()
    assert watch.scan() == {"m": ([1], {})}


def test_a_version_that_could_not_be_read_before_it_was_removed_is_judged_anew_too(watch, base):
    folder = write_version(base / "1")
    watch.scan()
    (folder / "done").unlink()
    watch.fake.trouble = FileNotFoundError("a file vanished between the listing and the look")
    assert watch.scan() == {}
    watch.fake.trouble = None
    shutil.rmtree(folder)
    assert watch.scan() == {"m": ([], {})}
    write_version(folder, complete=False)
    assert watch.scan() == {"m": ([], {1: "done is not there"})}


def test_a_changed_version_gets_a_new_fingerprint_only_when_it_is_complete_again(watch, base):
    folder = write_version(base / "1")
    watch.scan()
    (folder / "done").unlink()
    (folder / "model").write_text("something longer")
    assert watch.scan() == {}
    (folder / "done").touch()
    assert watch.scan() == {"m": ([1], {})}
    first, second = (s.versions[0].data.fingerprint for s in watch.stated)
    assert first != second


def test_a_version_that_cannot_be_read_is_incomplete_and_concerns_no_other(base):
    write_version(base / "1")
    write_version(base / "2")
    (base / "2" / "loop").symlink_to("loop")
    watch = watch_all(base)
    said = watch.scan()["m"]
    assert said[0] == [1]
    assert said[1].keys() == {2}
    (base / "2" / "loop").unlink()
    assert watch.scan() == {"m": ([2, 1], {})}


def test_a_type_that_crashes_on_one_version_hides_no_other_model(base, tmp_path):
    bad = FakePlatform("bad")
    bad.trouble = ValueError("boom")
    write_version(base / "1")
    write_version(tmp_path / "n" / "1")
    watch = Watch(
        ConfiguredCatalog((model(base, platform="bad"), model(tmp_path / "n", "n"))),
        FakePlatforms(bad, FakePlatform()),
    )
    assert watch.scan()["n"] == ([1], {})


def test_a_type_that_crashes_on_one_version_hides_no_other_version(base):
    write_version(base / "1")
    watch = watch_all(base)
    watch.scan()
    write_version(base / "2")
    watch.fake.trouble = ValueError("boom")
    said = watch.scan()["m"]
    assert said[0] == [1]
    assert said[1].keys() == {2}


# Base paths: invariant 23 -----------------------------------------------------------------------


def test_a_missing_base_path_is_no_statement_and_others_are_not_affected(tmp_path):
    write_version(tmp_path / "here" / "1")
    models = (model(tmp_path / "missing", "a"), model(tmp_path / "here", "b"))
    watch = Watch(ConfiguredCatalog(models))
    assert watch.scan() == {"b": ([1], {})}
    write_version(tmp_path / "missing" / "3")
    assert watch.scan() == {"a": ([3], {})}


def test_a_base_path_that_goes_missing_unloads_nothing(watch, base, tmp_path):
    write_version(base / "1")
    watch.scan()
    base.rename(tmp_path / "away")
    assert watch.scan() == {}
    (tmp_path / "away").rename(base)
    assert watch.scan() == {}


def test_a_base_path_that_exists_and_is_empty_is_a_statement_without_versions(watch):
    assert watch.scan() == {"m": ([], {})}
    assert watch.scan() == {}


def test_a_base_path_that_becomes_empty_is_a_statement_without_versions(watch, base):
    write_version(base / "1")
    watch.scan()
    shutil.rmtree(base / "1")
    assert watch.scan() == {"m": ([], {})}


@pytest.mark.parametrize("kind", ["file", "dangling", "loop"])
def test_a_base_path_that_cannot_be_listed_concerns_its_model_only(tmp_path, kind):
    bad = tmp_path / "bad"
    if kind == "file":
        bad.touch()
    else:
        bad.symlink_to(bad if kind == "loop" else tmp_path / "nowhere")
    write_version(tmp_path / "good" / "1")
    models = (model(bad, "a"), model(tmp_path / "good", "b"))
    assert Watch(ConfiguredCatalog(models)).scan() == {"b": ([1], {})}


def test_trouble_with_a_base_path_is_logged_once(tmp_path, caplog):
    watch = Watch(ConfiguredCatalog((model(tmp_path / "missing"),)))
    for _ in range(3):
        watch.scan()
    texts = [r.getMessage() for r in caplog.records]
    assert len([t for t in texts if t.startswith("Could not find base path")]) == 1


def test_a_base_path_without_versions_is_logged_with_a_hint(watch, base, caplog):
    write_version(base / "not_a_number")
    watch.scan()
    assert "Did you forget to name your leaf directory as a number" in caplog.text


# The servable type ------------------------------------------------------------------------------


@pytest.fixture
def two_types():
    return FakePlatforms(FakePlatform("first", "first.txt"), FakePlatform("second", "model"))


def platform_of(watch):
    (version,) = watch.stated[-1].versions
    return version.data.platform


def test_the_contents_tell_the_type_where_the_configuration_does_not(base, two_types):
    write_version(base / "1")
    watch = Watch(ConfiguredCatalog((model(base, platform=""),)), two_types)
    assert watch.scan() == {"m": ([1], {})}
    assert platform_of(watch) == "second"


def test_a_platform_file_beside_the_versions_overrules_the_contents(base, two_types):
    write_version(base / "1")
    (base / "platform").write_text("first\n")
    watch = Watch(ConfiguredCatalog((model(base, platform=""),)), two_types)
    watch.scan()
    assert platform_of(watch) == "first"


def test_the_configuration_overrules_a_platform_file(base, two_types):
    write_version(base / "1")
    (base / "platform").write_text("first\n")
    watch = Watch(ConfiguredCatalog((model(base, platform="second"),)), two_types)
    watch.scan()
    assert platform_of(watch) == "second"


def test_contents_of_no_known_type_are_incomplete(base, two_types):
    (base / "1").mkdir()
    watch = Watch(ConfiguredCatalog((model(base, platform=""),)), two_types)
    assert watch.scan() == {"m": ([], {1: "its contents are of no known servable type"})}
    write_version(base / "1")
    assert watch.scan() == {"m": ([1], {})}


def test_a_platform_file_with_an_unknown_name_is_told_as_the_reason(base, two_types):
    write_version(base / "1")
    (base / "platform").write_text("third")
    watch = Watch(ConfiguredCatalog((model(base, platform=""),)), two_types)
    assert watch.scan() == {"m": ([], {1: "unsupported platform 'third'"})}


def test_a_platform_file_that_is_corrected_or_added_later_takes_effect(base, two_types):
    (base / "1").mkdir()
    (base / "1" / "done").touch()
    watch = Watch(ConfiguredCatalog((model(base, platform=""),)), two_types)
    assert watch.scan() == {"m": ([], {1: "its contents are of no known servable type"})}
    (base / "platform").write_text("third")
    assert watch.scan() == {"m": ([], {1: "unsupported platform 'third'"})}
    (base / "platform").write_text("first")
    assert watch.scan() == {"m": ([1], {})}
    assert platform_of(watch) == "first"


def test_a_platform_file_that_cannot_be_read_is_told_as_the_reason(base, two_types):
    write_version(base / "1")
    (base / "platform").mkdir()
    watch = Watch(ConfiguredCatalog((model(base, platform=""),)), two_types)
    versions, incomplete = watch.scan()["m"]
    assert versions == []
    assert incomplete.keys() == {1}


def test_a_platform_file_that_is_not_text_is_told_as_the_reason(base, two_types):
    write_version(base / "1")
    (base / "platform").write_bytes(b"\xff\xfe\x00")
    watch = Watch(ConfiguredCatalog((model(base, platform=""),)), two_types)
    versions, incomplete = watch.scan()["m"]
    assert versions == []
    assert incomplete.keys() == {1}


# Which models there are: invariant 24 -----------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    """A model repository with the models `a` and `b`."""
    for name in "ab":
        write_version(tmp_path / "repository" / name / "1")
    return tmp_path / "repository"


@pytest.fixture
def watch_repository(repository):
    return Watch(RepositoryCatalog(str(repository)))


def test_every_subfolder_of_a_repository_is_a_model(watch_repository, repository):
    write_version(repository / ".git" / "1")
    write_version(repository / "_old" / "1")
    (repository / "README").touch()
    assert watch_repository.scan() == {"a": ([1], {}), "b": ([1], {})}
    assert watch_repository.configured == [["a", "b"]]
    assert {v.data.platform for s in watch_repository.stated for v in s.versions} == {"fake"}


def test_a_new_folder_in_a_repository_is_a_new_model_and_others_get_nothing(
    watch_repository, repository
):
    watch_repository.scan()
    write_version(repository / "c" / "1")
    assert watch_repository.scan() == {"c": ([1], {})}
    assert watch_repository.configured == [["a", "b"], ["a", "b", "c"]]


def test_a_model_whose_folder_is_removed_gets_exactly_one_empty_statement(
    watch_repository, repository
):
    watch_repository.scan()
    shutil.rmtree(repository / "a")
    assert watch_repository.scan() == {"a": ([], {})}
    assert watch_repository.scan() == {}
    assert watch_repository.configured[-1] == ["b"]


def test_a_model_that_comes_back_is_stated_as_a_new_one(watch_repository, repository):
    watch_repository.scan()
    shutil.rmtree(repository / "a")
    watch_repository.scan()
    write_version(repository / "a" / "1", complete=False)
    assert watch_repository.scan() == {"a": ([], {1: "done is not there"})}
    write_version(repository / "a" / "1")
    assert watch_repository.scan() == {"a": ([1], {})}


def test_a_repository_that_cannot_be_listed_keeps_its_models(watch_repository, repository):
    watch_repository.scan()
    away = repository.with_name("away")
    repository.rename(away)
    assert watch_repository.scan() == {}
    away.rename(repository)
    write_version(repository / "c" / "1")
    assert watch_repository.scan() == {"c": ([1], {})}


def test_models_are_told_of_before_anything_is_stated_about_them(repository):
    watch = Watch(RepositoryCatalog(str(repository)))
    known = []
    watch.on_statement = lambda statement: known.append(statement.name in watch.configured[-1])
    watch.scan()
    write_version(repository / "c" / "1")
    watch.scan()
    assert known == [True, True, True]


class ChangingRoster:
    """Models that a test replaces, as a reload of the configuration does."""

    def __init__(self, *models):
        self.now = models

    def models(self):
        return self.now

    def watched(self):
        return None


def test_models_kept_across_a_reload_get_nothing_and_one_whose_policy_changed_its_due(tmp_path):
    for version in (1, 2):
        for name in "abc":
            write_version(tmp_path / name / str(version))
    a, b, c = (model(tmp_path / name, name) for name in "abc")
    catalog = ChangingRoster(a, b)
    watch = Watch(catalog)
    assert watch.scan() == {"a": ([2], {}), "b": ([2], {})}
    catalog.now = (a, model(tmp_path / "b", "b", policy=All()), c)
    assert watch.scan() == {"b": ([2, 1], {}), "c": ([2], {})}
    catalog.now = (c,)
    assert watch.scan() == {"a": ([], {}), "b": ([], {})}
    assert watch.scan() == {}
    assert watch.configured == [["a", "b"], ["a", "b", "c"], ["c"]]


def test_a_fixed_roster_has_its_models_and_watches_nothing(tmp_path):
    models = (model(tmp_path / "a", "a"), model(tmp_path / "b", "b"))
    catalog = ConfiguredCatalog(models)
    assert catalog.models() == models
    assert catalog.watched() is None
    watch = Watch(catalog)
    watch.scan()
    watch.scan()
    assert watch.configured == [["a", "b"]]


def test_no_models_at_all_are_told_too():
    watch = Watch(ConfiguredCatalog(()))
    assert watch.scan() == {}
    assert watch.configured == [[]]


# The source's own threads -----------------------------------------------------------------------


@pytest.fixture
def run():
    """Start a watch's source, and stop it in the end."""
    started = []

    def begin(watch):
        watch.source.start()
        started.append(watch)
        return watch

    yield begin
    for watch in started:
        watch.source.stop()


def publish(base, version):
    """Write a version beside the others and rename it into place."""
    write_version(base / f"tmp.{version}").rename(base / str(version))


def wait_until_watched(watch, base):
    """Return when an event in a model's folder has made a running source look."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        (base / "999").mkdir()  # incomplete, and newer than all
        statement = watch.next(0.1)
        (base / "999").rmdir()
        if statement is not None and 999 in statement.incomplete:
            while 999 in statement.incomplete:
                statement = watch.next()
                assert statement is not None, "its end was not noticed"
            return
    raise AssertionError(f"no event of {base} arrived: {watch.stated}")


def test_a_rename_into_place_and_a_removal_are_stated_long_before_the_next_poll(watch, base, run):
    write_version(base / "1")
    run(watch).wait_for("m", 1)
    wait_until_watched(watch, base)
    publish(base, 2)
    watch.wait_for("m", 2)
    shutil.rmtree(base / "2")
    watch.wait_for("m", 1)
    shutil.rmtree(base / "1")
    watch.wait_for("m")


def test_a_file_deep_in_a_version_is_noticed(watch, base, run):
    folder = write_version(base / "1", complete=False)
    (folder / "variables").mkdir()
    run(watch).wait_for("m")
    wait_until_watched(watch, base)
    (folder / "variables" / "data").touch()
    (folder / "done").touch()
    watch.wait_for("m", 1)


def test_a_model_that_is_put_into_or_taken_out_of_a_repository_is_noticed(
    watch_repository, repository, run, tmp_path
):
    watch = run(watch_repository)
    watch.wait_for("b", 1)
    wait_until_watched(watch, repository / "a")
    write_version(tmp_path / "c" / "1")
    (tmp_path / "c").rename(repository / "c")
    watch.wait_for("c", 1)
    publish(repository / "c", 2)
    watch.wait_for("c", 2)
    shutil.rmtree(repository / "c")
    watch.wait_for("c")


def test_a_model_that_is_removed_and_made_anew_is_still_watched(watch_repository, repository, run):
    watch = run(watch_repository)
    watch.wait_for("b", 1)
    wait_until_watched(watch, repository / "a")
    shutil.rmtree(repository / "a")
    watch.wait_for("a")
    publish_into = repository / "a"
    publish_into.mkdir()
    watch.wait_for("a")
    publish(publish_into, 2)
    watch.wait_for("a", 2)


def test_a_base_path_that_is_removed_and_made_anew_is_watched_again(tmp_path, run):
    for name in "ab":
        (tmp_path / name).mkdir()
    watch = run(Watch(ConfiguredCatalog(tuple(model(tmp_path / name, name) for name in "ab"))))
    watch.wait_for("b")
    wait_until_watched(watch, tmp_path / "a")
    (tmp_path / "a").rmdir()
    write_version(tmp_path / "a" / "1")
    publish(tmp_path / "b", 1)  # if nothing else, this makes it look
    watch.wait_for("a", 1)
    wait_until_watched(watch, tmp_path / "a")
    publish(tmp_path / "a", 2)
    watch.wait_for("a", 2)


def test_a_version_that_appears_during_the_first_look_is_not_overlooked(watch, base, run):
    """Watching must begin before looking, else what happens in between waits for the next poll."""
    write_version(base / "1")

    def react(statement):
        if versions_of(statement) == [1]:
            publish(base, 2)

    watch.on_statement = react
    run(watch).wait_for("m", 1)
    watch.wait_for("m", 2)


def test_polling_finds_what_no_event_told(tmp_path, run):
    """A base path that is not there cannot be watched."""
    watch = run(Watch(ConfiguredCatalog((model(tmp_path / "m"),)), poll_wait_s=0.05))
    write_version(tmp_path / "later" / "1")
    (tmp_path / "later").rename(tmp_path / "m")
    watch.wait_for("m", 1)


def test_a_poll_wait_of_zero_looks_once(watch, base, run):
    write_version(base / "1")
    once = Watch(ConfiguredCatalog((model(base),)), poll_wait_s=0)
    run(once).wait_for("m", 1)
    run(watch).wait_for("m", 1)
    wait_until_watched(watch, base)
    publish(base, 2)
    watch.wait_for("m", 2)  # another source has seen it
    assert once.next(0) is None
    assert len(once.stated) == 1


def test_a_poll_wait_below_zero_looks_upon_events_only(base, run):
    watch = Watch(ConfiguredCatalog((model(base),)), poll_wait_s=-1)
    run(watch).wait_for("m")
    wait_until_watched(watch, base)
    publish(base, 1)
    watch.wait_for("m", 1)


def test_of_many_models_an_event_scans_its_own_and_polls_have_all_their_turn(tmp_path, run):
    bases = [tmp_path / f"m{i}" for i in range(2 * MODELS_PER_SCAN + 1)]
    for base in bases:
        write_version(base / "1")
    catalog = ConfiguredCatalog(tuple(model(base, base.name) for base in bases))
    watch = run(Watch(catalog))
    for base in bases:
        watch.wait_for(base.name, 1)
    wait_until_watched(watch, bases[-1])
    publish(bases[-1], 2)
    watch.wait_for(bases[-1].name, 2)
    polling = Watch(catalog)  # by hand, without events
    polling.scan()
    publish(bases[0], 2)
    publish(bases[-1], 3)
    stated = [polling.scan() for _ in range(3)]
    assert {name for found in stated for name in found} == {"m0", bases[-1].name}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_making_a_source_opens_nothing(base):
    """A user has 128 inotify instances: one may not be had, and then polling has to do."""
    before = set(os.listdir("/proc/self/fd"))
    watch = Watch(ConfiguredCatalog((model(base),)))
    assert set(os.listdir("/proc/self/fd")) == before
    assert watch.scan() == {"m": ([], {})}


def test_start_returns_at_once_though_a_look_takes_long(watch, base, run):
    write_version(base / "1")
    go_on = threading.Event()
    watch.on_statement = lambda statement: go_on.wait(TIMEOUT)
    run(watch)
    go_on.set()
    watch.wait_for("m", 1)


def test_nothing_is_stated_after_stop(base, tmp_path):
    """Invariant 27, with a look under way and changes to come."""
    models = tuple(model(tmp_path / name, name) for name in "abc")
    for name in "abc":
        write_version(tmp_path / name / "1")
    watch = Watch(ConfiguredCatalog(models), poll_wait_s=0.001)
    inside, go_on = threading.Event(), threading.Event()

    def hold(statement):
        inside.set()
        go_on.wait(TIMEOUT)

    watch.on_statement = hold
    watch.source.start()
    assert inside.wait(TIMEOUT)
    stopper = threading.Thread(target=watch.source.stop)
    stopper.start()
    assert stopper.is_alive()  # it waits for the statement that is on its way
    go_on.set()
    stopper.join(TIMEOUT)
    assert not stopper.is_alive()
    said = list(watch.stated)
    for name in "abc":
        publish(tmp_path / name, 2)
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"file-system-source", "watchdog"}
    assert watch.stated == said


def test_stop_ends_all_threads_and_a_wait_for_the_next_poll(watch, base):
    before = set(threading.enumerate())
    write_version(base / "1")
    watch.source.start()
    watch.wait_for("m", 1)
    wait_until_watched(watch, base)
    started = time.monotonic()
    watch.source.stop()
    assert time.monotonic() - started < SOON
    assert set(threading.enumerate()) <= before


def test_an_unchanged_statement_equals_the_one_before(watch, base):
    """What keeps a source silent is that statements compare by value."""
    write_version(base / "1")
    watch.scan()
    statement = watch.stated[0]
    again = AspiredVersions(statement.name, tuple(statement.versions), dict(statement.incomplete))
    assert again == statement


def no_path(base):
    """A model as no configuration accepts it."""
    made = model(base, "n")
    object.__setattr__(made, "base_path", "/no\0path")
    return made


class Exits(ConfiguredCatalog):
    """A catalog that exits at its first look."""

    looks = 0

    def models(self):
        self.looks += 1
        if self.looks == 1:
            raise SystemExit(1)
        return super().models()


def test_neither_a_path_that_is_none_nor_code_that_exits_ends_the_watch(base):
    write_version(base / "1")
    catalog = Exits([no_path(base), model(base)])
    watch = Watch(catalog, poll_wait_s=0.01)
    watch.source.start()
    try:
        watch.wait_for("m", 1)
        assert catalog.looks > 1
    finally:
        watch.source.stop()


# What does not answer, and what is no file ------------------------------------------------------


class HangingPlatform(FakePlatform):
    """Its looks at files hang until they may go on, where the files say so."""

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()
        self.hanging = queue.SimpleQueue()

    def missing(self, listing):
        if "hang" in listing.sizes:
            self.hanging.put(threading.current_thread())
            self.may_go_on.wait(TIMEOUT)
        return super().missing(listing)


@pytest.fixture
def hanging(tmp_path, run):
    """Models `bad-0` to `bad-5`, whose folders do not answer, and `good`, of a running source."""
    platform = HangingPlatform()
    names = [f"bad-{i}" for i in range(6)] + ["good"]
    for name in names:
        write_version(tmp_path / name / "1")
        if name != "good":
            (tmp_path / name / "1" / "hang").touch()
    watch = Watch(
        ConfiguredCatalog(tuple(model(tmp_path / name, name) for name in names)),
        FakePlatforms(platform),
        poll_wait_s=0.1,
        threads=WorkerPool("scan", 2),
        limits=ScanLimits(replace_thread_s=0.05, unresponsive_s=0.4),
    )
    watch.fake = platform
    yield run(watch)
    platform.may_go_on.set()


def test_folders_that_hang_hold_up_their_own_models_only(hanging, tmp_path):
    hanging.wait_for("good", 1)
    publish(tmp_path / "good", 2)
    hanging.wait_for("good", 2)
    assert {s.name for s in hanging.stated} == {"good"}


def test_a_folder_that_hangs_is_told_once_and_counts_again_when_it_answers(hanging, caplog):
    told = {hanging.absent.get(timeout=SOON) for _ in range(6)}
    assert {name for name, _ in told} == {f"bad-{i}" for i in range(6)}
    assert all("does not answer" in reason for _, reason in told)
    hanging.fake.may_go_on.set()
    hanging.wait_for("bad-3", 1)
    again = {hanging.absent.get(timeout=SOON) for _ in range(6)}
    assert again == {(f"bad-{i}", "") for i in range(6)}
    assert hanging.absent.empty()
    texts = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len([t for t in texts if "does not answer" in t]) == 6


def test_each_folder_holds_one_thread_at_most(hanging):
    for _ in range(6):
        hanging.absent.get(timeout=SOON)
    threads = {hanging.fake.hanging.get(timeout=SOON) for _ in range(6)}
    assert len(threads) == 6
    hanging.wait_for("good", 1)
    assert hanging.fake.hanging.empty(), "it was looked at again meanwhile"


def test_a_repository_that_hangs_keeps_its_models_and_what_they_do(repository, run):
    class ModelCatalog(RepositoryCatalog):
        may_answer = opened()

        def models(self):
            assert self.may_answer.wait(TIMEOUT)
            return super().models()

    catalog = ModelCatalog(str(repository))
    pool = WorkerPool("scan", 1)
    watch = Watch(catalog, None, 0.05, threads=pool, limits=ScanLimits(0.05, 0.2))
    run(watch).wait_for("b", 1)
    catalog.may_answer.clear()
    try:
        publish(repository / "b", 2)
        watch.wait_for("b", 2)
    finally:
        catalog.may_answer.set()


@pytest.mark.parametrize("where", ["1/model", "1/done", "platform", "1/variables"])
def test_a_fifo_where_a_file_ought_to_be_hangs_nobody(base, where):
    write_version(base / "1")
    (base / where).unlink(missing_ok=True)
    os.mkfifo(base / where)
    write_version(base.parent / "n" / "1")
    watch = Watch(ConfiguredCatalog((model(base, platform=""), model(base.parent / "n", "n"))))
    assert watch.scan()["n"] == ([1], {})


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "saved_model.pb")
    (tmp_path / "variables").symlink_to("/dev/zero")
    listing = DiskListing(str(tmp_path))
    assert listing.sizes == {}
    with pytest.raises(OSError, match="is not a regular file"):
        listing.read("saved_model.pb")
    with pytest.raises(OSError, match="is not a regular file"):
        DiskListing("/dev/zero").read("")


def test_a_folder_whose_name_is_no_models_name_is_passed_over_with_one_line(repository, caplog):
    write_version(repository / "new\nline" / "1")
    write_version(repository / os.fsdecode(b"\xff") / "1")
    (repository / "loop").symlink_to("loop")
    watch = Watch(RepositoryCatalog(str(repository)))
    assert watch.scan() == {"a": ([1], {}), "b": ([1], {})}
    watch.scan()
    passed = [r.getMessage() for r in caplog.records if "is passed over" in r.getMessage()]
    assert len(passed) == 3


def test_a_base_path_that_is_no_path_concerns_its_model_only(base):
    write_version(base / "1")
    watch = Watch(ConfiguredCatalog((no_path(base), model(base))))
    assert watch.scan() == {"m": ([1], {})}


# Versions that processes die of -------------------------------------------------------------------


def quarantine(watch, version, statement=None):
    """Quarantine a version with the files that it was last stated with."""
    statement = statement or watch.stated[-1]
    [data] = [v.data for v in statement.versions if v.version == version]
    watch.source.quarantine(ServableId(statement.name, version), data.fingerprint)
    watch.source._take_results()


def test_the_version_before_a_quarantined_one_is_stated(watch, base):
    for version in (1, 2, 3):
        write_version(base / str(version))
    assert watch.scan() == {"m": ([3], {})}
    quarantine(watch, 3)
    assert watch.scan() == {"m": ([2], {})}
    quarantine(watch, 2)
    assert watch.scan() == {"m": ([1], {})}


def test_a_quarantined_version_comes_back_when_its_files_change(watch, base):
    write_version(base / "1")
    write_version(base / "2")
    watch.scan()
    quarantine(watch, 2)
    assert watch.scan() == {"m": ([1], {})}
    write_version(base / "2", content="a mended version")
    assert watch.scan() == {"m": ([2], {})}


def test_a_quarantine_of_files_that_have_changed_meanwhile_has_no_effect(watch, base):
    write_version(base / "1")
    watch.scan()
    first = watch.stated[-1]
    write_version(base / "1", content="a mended version")
    watch.scan()
    quarantine(watch, 1, first)
    assert watch.scan() == {}


def test_without_another_version_the_quarantine_is_the_reason(watch, base):
    write_version(base / "1")
    watch.scan()
    quarantine(watch, 1)
    assert watch.scan() == {"m": ([], {})}
    name, reason = watch.absent.get(timeout=TIMEOUT)
    assert name == "m"
    assert "version 1 of model m is quarantined" in reason


def test_a_newer_version_follows_a_quarantined_one(watch, base):
    write_version(base / "1")
    watch.scan()
    quarantine(watch, 1)
    write_version(base / "2")
    assert watch.scan() == {"m": ([2], {})}


def test_a_removed_model_is_judged_anew_when_it_comes_back(base):
    catalog = ConfiguredCatalog((model(base),))
    watch = Watch(catalog)
    write_version(base / "1")
    watch.scan()
    before = watch.stated[-1]
    quarantine(watch, 1)
    catalog.replace(())
    watch.scan()
    quarantine(watch, 1, before)  # on its way when the model was removed
    catalog.replace((model(base),))
    assert watch.scan() == {"m": ([1], {})}


def test_a_model_whose_settings_change_stays_quarantined(base):
    catalog = ConfiguredCatalog((model(base),))
    watch = Watch(catalog)
    write_version(base / "1")
    write_version(base / "2")
    watch.scan()
    quarantine(watch, 2)
    catalog.replace((model(base, policy=Latest(2)),))
    assert watch.scan() == {"m": ([1], {})}


def test_a_quarantine_wakes_a_source_that_runs(base):
    watch = Watch(ConfiguredCatalog((model(base),)))
    write_version(base / "1")
    write_version(base / "2")
    watch.source.start()
    try:
        statement = watch.next()
        assert versions_of(statement) == [2]
        [version] = statement.versions
        watch.source.quarantine(ServableId("m", 2), version.data.fingerprint)
        watch.wait_for("m", 1)
    finally:
        watch.source.stop()
