"""A reload: what it changes, and when who asked for it is told."""

import threading

import pytest

from servingd.config.models import ModelConfig
from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ServableId
from servingd.errors import Cancelled, ResourceExhausted
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.manager.reloader import Reloader
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.runtime.versions.serving_map import ServingMap
from tests.threads.fakes import TIMEOUT, FakePlatform, FakePlatforms

FOR_EVER = 3600.0


class Told:
    """Who asked; remembers the answer."""

    def __init__(self):
        self.answers = []
        self._came = threading.Event()

    def __call__(self, error):
        self.answers.append(error and error.message)
        self._came.set()

    @property
    def answer(self):
        assert self._came.wait(TIMEOUT), "nobody was told"
        assert len(self.answers) == 1
        return self.answers[0]


class Office:
    """A reloader whose changes take effect as `on_replace` says, at once."""

    def __init__(self):
        self.monitor = StateMonitor()
        self.on_replace = lambda: None
        models = ServingMap(self.monitor, Dispatcher())
        self.reloader = Reloader(
            models.label, self.monitor, FakePlatforms(FakePlatform("tensorflow")), self._replace
        )

    def _replace(self, models):
        self.monitor.configure([model.name for model in models])
        self.on_replace()

    def reload(self, *names, timeout_s=FOR_EVER):
        told = Told()
        models = tuple(ModelConfig(name=name, base_path=f"/{name}") for name in names)
        self.reloader.reload(models, timeout_s, told)
        return told

    def announce(self, which, error=None, version=1):
        self.monitor.announce(ServableState(ServableId("m", version), PublicState[which], error))

    @property
    def waiters(self):
        return len(self.monitor._history._waiters)


@pytest.fixture
def office():
    return Office()


def test_a_reload_without_new_models_is_over_at_once(office):
    assert office.reload().answer is None


def test_a_reload_is_told_when_its_new_model_is_available(office):
    told = office.reload("m")
    assert told.answers == []
    office.announce("AVAILABLE")
    assert told.answer is None
    assert office.waiters == 0


def test_what_a_reload_causes_before_it_begins_to_wait_is_seen(office):
    office.on_replace = lambda: office.announce("END", ResourceExhausted("too big"))
    assert "too big" in office.reload("m").answer
    office = Office()
    office.on_replace = lambda: office.monitor.report_absent("m", "no versions")
    assert "no versions" in office.reload("m").answer
    office = Office()
    office.on_replace = lambda: office.announce("AVAILABLE")
    assert office.reload("m").answer is None
    assert office.waiters == 0


def test_a_version_that_gives_way_to_another_fails_no_reload(office):
    told = office.reload("m")
    office.announce("END", Cancelled("not wanted"))
    assert told.answers == []
    office.announce("AVAILABLE", version=2)
    assert told.answer is None


def test_a_reload_whose_model_a_later_one_removes_is_over(office):
    first = office.reload("m")
    assert office.reload("n", timeout_s=0.01).answer is not None
    assert "1 model(s) did not become available" in first.answer


def test_a_reload_whose_time_is_up_leaves_nobody_waiting(office):
    for number in range(3):
        told = office.reload(f"m{number}", timeout_s=-0.001)
        assert "did not become available" in told.answer
    assert office.waiters == 0


def test_a_reload_that_cannot_be_applied_leaves_nobody_waiting(office):
    def fail():
        raise OSError("no such folder")

    office.on_replace = fail
    told = Told()
    with pytest.raises(OSError, match="no such folder"):
        office.reloader.reload((ModelConfig(name="m", base_path="/m"),), FOR_EVER, told)
    assert told.answers == []
    assert office.waiters == 0
