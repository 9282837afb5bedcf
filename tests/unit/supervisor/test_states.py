"""A worker that starts knows what the others know, whatever has happened before."""

import hypothesis.strategies as st
from hypothesis import given, settings

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ServableId
from servingd.errors import Cancelled, DataLoss
from servingd.supervisor.link.messages import Announced
from servingd.supervisor.link.questions import Questions
from servingd.supervisor.states import ToldStates
from servingd.supervisor.worker.remote_control import RemoteControl

NAMES = ("a", "b", "c")
names = st.sampled_from(NAMES)
errors = st.sampled_from([None, DataLoss("torn"), Cancelled("gone")])
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("announce"), names, st.integers(1, 14), st.sampled_from(PublicState)),
        st.tuples(st.just("incomplete"), names, st.dictionaries(st.integers(1, 3), st.just("x"))),
        st.tuples(st.just("absent"), names, st.sampled_from(["", "nothing", "no answer"])),
        st.tuples(st.just("configure"), st.sets(names)),
    ),
    max_size=60,
)


def worker():
    return RemoteControl("all", Questions(lambda message: None))


def known_to(states):
    """All that a worker answers from."""
    return {
        "configured": states.configured(),
        "available": states.available(),
        "names": list(states.names()),
        "versions": {n: list(states.of_model(n)) for n in NAMES},
        "incomplete": {n: dict(states.incomplete(n)) for n in NAMES},
        "absent": {n: states.absent(n) for n in NAMES},
        "trouble": {n: states.trouble(n) for n in NAMES},
    }


def carry_out(states, happening, error):
    match happening:
        case "announce", name, version, state:
            live = [s for s in states.of_model(name) if s.state is not PublicState.END]
            if name in states.configured() or live:  # nobody speaks of a model that is gone
                reason = error if state is PublicState.END else None
                states.announce(ServableState(ServableId(name, version), state, reason))
        case "incomplete", name, incomplete:
            if name in states.configured():
                states.report_incomplete(name, incomplete)
        case "absent", name, reason:
            if name in states.configured():
                states.report_absent(name, reason)
        case "configure", wanted:
            states.configure(wanted)


@settings(max_examples=300, deadline=None)
@given(before=happenings, after=happenings, error=errors)
def test_a_new_worker_knows_what_the_others_know(before, after, error):
    workers = [worker()]

    def tell(message):
        states.told(message)
        for each in workers:
            assert each.news(message)

    states = ToldStates(tell, lambda name: None)
    for happening in before:
        carry_out(states, happening, error)
    new = worker()
    for message in states.snapshot():
        assert new.news(message)
    assert known_to(new.states) == known_to(workers[0].states) == known_to(states)
    workers.append(new)
    for happening in after:
        carry_out(states, happening, error)
    assert known_to(new.states) == known_to(workers[0].states) == known_to(states)


def test_what_is_on_its_way_to_the_others_is_no_part_of_it():
    """It follows, to all of them: a new worker must not hear of it twice, or before them."""
    on_its_way = []
    states = ToldStates(on_its_way.append, lambda name: None)
    states.configure(["a"])
    states.announce(ServableState(ServableId("a", 1), PublicState.AVAILABLE))
    new = worker()
    for message in states.snapshot():
        new.news(message)
    assert not new.states.available()
    for message in on_its_way:
        states.told(message)
        new.news(message)
    assert new.states.available() == {"a"}
    assert len([m for m in states.snapshot() if isinstance(m, Announced)]) == 1


def test_a_removed_model_is_forgotten_once():
    forgotten = []
    states = ToldStates(lambda message: None, forgotten.append)
    states.configure(["a", "b"])
    states.configure(["b"])
    states.configure(["b"])
    assert forgotten == ["a"]


def test_a_reason_is_told_when_it_changes():
    told = []
    states = ToldStates(told.append, lambda name: None)
    states.configure(["a"])
    for reason in ("nothing", "nothing", "", ""):
        states.report_absent("a", reason)
    assert [message.reason for message in told[1:]] == ["nothing", ""]
