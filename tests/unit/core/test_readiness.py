"""When a server is ready, why it is not, and what health checks are told of it."""

import pytest

from servingd.core.readiness import (
    MODEL_SERVICES,
    PREDICTION_SERVICES,
    Readiness,
    usable,
    why_unusable,
)


def no_trouble(name):
    return ""


def of(rule, configured, available, **more):
    return Readiness(
        rule=rule, configured=frozenset(configured), available=frozenset(available), **more
    )


@pytest.mark.parametrize(
    ("rule", "configured", "available", "answer"),
    [
        ("all", {"a", "b"}, {"a", "b"}, True),
        ("all", {"a", "b"}, {"a"}, False),
        ("all", {"a"}, {"a", "leaving"}, True),
        ("all", set(), set(), True),
        ("any", {"a", "b"}, {"b"}, True),
        ("any", {"a", "b"}, set(), False),
        ("any", set(), set(), False),
        (["a"], {"a", "b"}, {"a"}, True),
        (["a", "c"], {"a", "b"}, {"a", "b"}, False),
        ([], {"a"}, set(), True),
    ],
)
def test_the_rule_decides(rule, configured, available, answer):
    readiness = of(rule, configured, available)
    assert readiness.ready is answer
    assert (readiness.why_not_ready(no_trouble) is None) is answer


@pytest.mark.parametrize("rule", ["all", "any", ["a"]])
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"models_known": False}, "starting: the models are not known yet"),
        ({"stopping": True}, "stopping"),
        ({"stopping": True, "models_known": False}, "stopping"),
    ],
)
def test_before_and_after_it_is_not_ready_whatever_the_rule(rule, more, reason):
    readiness = of(rule, "a", "a", **more)
    assert not readiness.ready
    assert readiness.why_not_ready(no_trouble) == reason


def test_the_reason_names_the_models_and_what_is_wrong_with_the_first_of_them():
    names = {f"m{i:02d}" for i in range(12)}
    readiness = of("all", {"up", *names}, {"up"})
    lines = readiness.why_not_ready(lambda n: "" if n == "m03" else f"{n} is bad").splitlines()
    assert lines[0] == f"not ready by rule all; not available: {', '.join(sorted(names))}"
    assert lines[1:] == [f"m{i:02d} is bad" for i in range(10) if i != 3]


def test_without_models_any_is_told_that_there_are_none():
    text = "not ready by rule any; not available: none is configured"
    assert of("any", (), ()).why_not_ready(no_trouble) == text


def test_started_is_told_apart_from_ready():
    assert of("all", "a", "").why_not_started() == "starting: not every model has come up yet"
    assert of("all", "a", "", started=True).why_not_started() is None


def test_health_has_the_server_its_services_and_every_model():
    health = of("any", "ab", "a").health()
    ready = {"": True, **dict.fromkeys(PREDICTION_SERVICES, True)}
    assert health == ready | dict.fromkeys(MODEL_SERVICES, True) | {"a": True, "b": False}


def test_a_server_that_stops_serves_nothing():
    assert not any(of("any", "ab", "a", stopping=True).health().values())


def test_the_model_service_answers_before_anything_is_ready():
    health = of("all", "a", "", models_known=False).health()
    assert {name for name, serving in health.items() if serving} == set(MODEL_SERVICES)


@pytest.mark.parametrize(
    ("available", "needs", "usable_ones"),
    [
        ("abc", {}, "abc"),
        ("abc", {"a": "bc"}, "abc"),
        ("ab", {"a": "bc"}, "b"),
        ("abc", {"a": "b", "b": "cd"}, "c"),
        ("b", {"a": "b"}, "b"),
    ],
)
def test_a_model_that_lacks_a_part_is_not_usable(available, needs, usable_ones):
    needs = {name: frozenset(parts) for name, parts in needs.items()}
    assert usable(available, needs) == frozenset(usable_ones)


def test_the_reason_names_the_parts_that_lack():
    needs = {"a": frozenset("bc")}
    assert why_unusable("a", {"b"}, needs) == "{name: a} lacks its parts: c"
    assert why_unusable("a", {"b", "c"}, needs) == ""
    assert why_unusable("b", {"b"}, needs) == ""
