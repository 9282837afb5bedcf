"""Questions to the other process: each is answered once."""

import threading

import pytest

from servingd.errors import DataLoss, Unavailable
from servingd.supervisor.link.messages import Answer, Ask, pack
from servingd.supervisor.link.questions import Questions
from servingd.supervisor.worker.remote_control import RemoteControl
from tests.threads.fakes import TIMEOUT

GONE = Unavailable("the other process is gone")


@pytest.fixture
def sent():
    return []


@pytest.fixture
def questions(sent):
    return Questions(sent.append)


def answering(reply):
    """Questions that another thread answers."""

    def send(ask):
        threading.Thread(target=lambda: questions.answer(reply(ask))).start()

    questions = Questions(send)
    return questions


def test_an_answer_finds_who_asked(questions, sent):
    found = []
    for what in ("a", "b"):
        questions.ask(what, b"", lambda answer, what=what: found.append((what, answer.body)))
    first, second = (ask.number for ask in sent)
    questions.answer(Answer(second, b"2"))
    questions.answer(Answer(first, b"1"))
    assert found == [("b", b"2"), ("a", b"1")]


def test_an_answer_is_taken_once(questions, sent):
    found = []
    questions.ask("a", b"", found.append)
    for _ in range(2):
        questions.answer(Answer(sent[0].number))
    questions.answer(Answer(99))
    assert len(found) == 1


def test_who_waits_gets_the_answer():
    questions = answering(lambda ask: Answer(ask.number, ask.body * 2))
    assert questions.ask_and_wait("a", b"x", TIMEOUT) == b"xx"


def test_who_waits_gets_the_error():
    questions = answering(lambda ask: Answer(ask.number, error=DataLoss("torn")))
    with pytest.raises(DataLoss, match="torn"):
        questions.ask_and_wait("a", timeout_s=TIMEOUT)


def test_who_waits_too_long_is_told_and_a_late_answer_dropped(questions, sent):
    with pytest.raises(Unavailable, match=r"did not answer within 0\.01 s"):
        questions.ask_and_wait("a", timeout_s=0.01)
    questions.answer(Answer(sent[0].number))
    assert not questions._waiting


def test_all_fail_with_the_process(questions, sent):
    found = []
    for _ in range(3):
        questions.ask("a", b"", found.append)
    questions.fail_all(GONE)
    questions.answer(Answer(sent[0].number))
    assert [answer.error for answer in found] == [GONE] * 3


def test_one_who_fails_does_not_keep_the_others_from_their_answers(questions):
    found = []

    def fault(answer):
        raise RuntimeError("a fault of ours")

    questions.ask("a", b"", fault)
    questions.ask("b", b"", found.append)
    questions.fail_all(GONE)
    assert len(found) == 1


def test_who_asks_after_the_end_is_answered_at_once(questions):
    questions.fail_all(GONE)
    found = []
    questions.ask("a", b"", found.append)
    assert [answer.error for answer in found] == [GONE]


def test_questions_from_many_threads():
    questions = answering(lambda ask: Answer(ask.number, ask.body))
    wrong = []

    def ask(name):
        for number in range(20):
            body = pack([name, number])
            if questions.ask_and_wait("a", body, TIMEOUT) != body:
                wrong.append(body)

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert not wrong


def test_a_workers_questions_to_the_supervisor():
    def reply(ask: Ask) -> Answer:
        bodies = {
            "metrics": b"a page",
            "page": pack(None if ask.body == pack("/no") else [200, b"{}", "json"]),
            "values": pack({"x": 1}),
        }
        return Answer(ask.number, bodies[ask.what])

    control = RemoteControl("all", answering(reply))
    assert control.metrics_page() == b"a page"
    assert control.status_page("/no") is None
    assert control.status_page("/") == (200, b"{}", "json")
    assert control.serving_values(["x"]) == {"x": 1}
