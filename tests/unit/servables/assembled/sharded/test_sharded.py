"""Sharded servables: where keys lie, the file, and one call: scatter, gather, failures."""

from __future__ import annotations

from bisect import bisect_right
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.types import DataType, ModelSpec, ServableId, TensorSpec, VersionData
from servingd.errors import (
    Code,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    InvalidConfig,
    ServingError,
    Unavailable,
)
from servingd.servables.assembled.parts import Parts
from servingd.servables.assembled.sharded.layout import Layout, Replica, parse
from servingd.servables.assembled.sharded.servable import ShardedPlatform
from servingd.servables.assembled.splitting import rows_of_shards, shards_by_hash, shards_by_range
from tests.unit.servables.assembled.composite.fakes import FakeModels, FakePart, Told

TEXTS = st.lists(st.binary(max_size=12), max_size=30)
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)


def objects(texts) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


@given(TEXTS, st.integers(1, 9))
def test_a_text_lies_where_its_checksum_says(texts, count):
    assert shards_by_hash(objects(texts), count).tolist() == [crc32(t) % count for t in texts]


@given(NUMBERS, st.integers(1, 9))
def test_a_number_lies_where_the_checksum_of_its_bytes_says(numbers, count):
    keys = np.array(numbers, np.int64)
    wanted = [crc32(n.to_bytes(8, "little", signed=True)) % count for n in numbers]
    assert shards_by_hash(keys, count).tolist() == wanted


@given(NUMBERS, st.lists(st.integers(-100, 100), unique=True, max_size=5).map(sorted))
def test_ranges(numbers, bounds):
    keys = np.array(numbers, np.int64)
    assert shards_by_range(keys, bounds).tolist() == [bisect_right(bounds, n) for n in numbers]


@given(st.lists(st.integers(0, 4), max_size=40))
def test_each_row_goes_to_its_shard_once_and_in_order(shards):
    rows = rows_of_shards(np.array(shards, np.int64), 5)
    assert [r.tolist() for r in rows] == [
        [place for place, shard in enumerate(shards) if shard == number] for number in range(5)
    ]


def test_keys_of_other_types_are_refused():
    with pytest.raises(InvalidArgument, match="expected integers or strings, got float32"):
        shards_by_hash(np.zeros(1, np.float32), 2)


# The file -----------------------------------------------------------------------------------------

WHOLE = b"""
key: keys
range: [100, 200]
on_failure: defaults
shards:
- [{model: a}, {model: a, server: "other:8500", label: stable}]
- [{model: b, version: 3}]
- [{model: c, signature: f}]
...
"""


def test_a_file_is_read():
    a = ModelSpec("a", None, None, "serving_default")
    assert parse(WHOLE) == Layout(
        key="keys",
        bounds=[100, 200],
        fails=False,
        shards=(
            (Replica(a), Replica(a._replace(label="stable"), "other:8500")),
            (Replica(ModelSpec("b", 3, None, "serving_default")),),
            (Replica(ModelSpec("c", None, None, "f")),),
        ),
    )


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_that_is_cut_short_is_not_taken_for_whole(length):
    with pytest.raises(InvalidConfig):
        parse(WHOLE[:length])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("by: hash\nshards: [[{model: a}]]", "an entry `key`"),
        ("key: k\nby: hash\nshards: []", "1 to 1024 shards"),
        ("key: k\nby: hash\nshards: [[]]", "at least one replica"),
        ("key: k\nshards: [[{model: a}]]", "`by: hash` or `range: [...]`"),
        ("key: k\nby: hash\nrange: []\nshards: [[{model: a}]]", "`by: hash` or `range: [...]`"),
        ("key: k\nby: luck\nshards: [[{model: a}]]", "one of hash, got 'luck'"),
        ("key: k\nrange: [1]\nshards: [[{model: a}]]", "0 bounds that ascend"),
        ("key: k\nrange: [2, 1]\nshards: [[{model: a}], [{model: a}], [{model: a}]]", "2 bounds"),
        ("key: k\nrange: [a]\nshards: [[{model: a, server: x}], [{model: a}]]", "HOST:PORT"),
        ("key: k\nrange: [1.5]\nshards: [[{model: a}], [{model: a}]]", "whole numbers, or texts"),
        ("key: k\nby: hash\non_failure: no\nshards: [[{model: a}]]", "shards.yaml:3: on_failure"),
    ],
)
def test_what_is_wrong_is_named(text, said):
    with pytest.raises(InvalidConfig) as caught:
        parse(f"{text}\n...\n".encode())
    assert said in caught.value.message


# Calls --------------------------------------------------------------------------------------------

KEYS = {"keys": TensorSpec(DataType.INT64, None)}
VALUES = {"values": TensorSpec(DataType.INT64, None)}
COUNT = 3


def shard(function=None) -> FakePart:
    return FakePart(function, KEYS, VALUES)


def sharded(tmp_path, *rows: str, on_failure="fail", remote=None, **parts: FakePart):
    lines = "\n".join(f"- [{row}]" for row in rows)
    (tmp_path / "shards.yaml").write_text(
        f"key: keys\nby: hash\non_failure: {on_failure}\nshards:\n{lines}\n...\n"
    )
    known = Parts()
    known.models = FakeModels(**parts)
    known.remote = remote
    loader = ShardedPlatform(known).loader(ServableId("s", 1), VersionData(str(tmp_path), ""))
    return loader.load()


def ask(made, *arrays, **others) -> Told:
    told = Told()
    made.run(made.signatures["serving_default"], {"keys": arrays[0], **others}, told)
    return told


@given(keys=NUMBERS)
def test_answers_come_back_in_the_order_of_the_keys(tmp_path_factory, keys):
    asked: list[list[int]] = [[], [], []]

    def answers(number):
        def answer(keys):
            asked[number] += keys.tolist()
            return {"values": keys // 2}

        return answer

    parts = {f"m{n}": shard(answers(n)) for n in range(COUNT)}
    made = sharded(
        tmp_path_factory.mktemp("s"), *(f"{{model: m{n}}}" for n in range(COUNT)), **parts
    )
    array = np.array(keys, np.int64)
    (answer,) = ask(made, array).outcomes
    np.testing.assert_array_equal(answer["values"], array // 2)
    wanted = shards_by_hash(array, COUNT).tolist()
    for number in range(COUNT):
        assert asked[number] == [k for k, s in zip(keys, wanted, strict=True) if s == number]
    assert [part.held for part in parts.values()] == [0] * COUNT


def test_keys_of_any_shape_are_answered_in_it(tmp_path):
    made = sharded(
        tmp_path,
        "{model: a}",
        "{model: b}",
        a=shard(lambda keys: {"values": np.stack([keys, keys + 1], 1)}),
        b=shard(lambda keys: {"values": np.stack([keys, keys + 1], 1)}),
    )
    keys = np.arange(6, dtype=np.int64).reshape(2, 3)
    (answer,) = ask(made, keys).outcomes
    np.testing.assert_array_equal(answer["values"], np.stack([keys, keys + 1], 2))


def keys_of(number: int, count: int, how_many: int = 2) -> list[int]:
    found = [k for k in range(100) if shards_by_hash(np.array([k]), count)[0] == number]
    return found[:how_many]


def test_a_failure_names_its_shard_and_ends_the_call_when_others_still_run(tmp_path):
    a, b = shard(), shard()
    made = sharded(tmp_path, "{model: a}", "{model: b}", a=a, b=b)
    told = ask(made, np.array(keys_of(0, 2) + keys_of(1, 2)))
    b.answer(Internal("broken"))
    (error,) = told.outcomes
    assert isinstance(error, ServingError)
    assert (error.code, error.message) == (Code.INTERNAL, "shard 1 (model b): broken")
    assert (a.held, b.held) == (1, 1)
    a.answer({"values": np.zeros(2, np.int64)})
    assert (a.held, b.held, len(told.outcomes)) == (0, 0, 1)


def test_by_rule_a_failed_shard_gives_defaults_and_a_flag(tmp_path):
    a, b = shard(), shard()
    made = sharded(tmp_path, "{model: a}", "{model: b}", on_failure="defaults", a=a, b=b)
    told = ask(made, np.array([keys_of(1, 2)[0], keys_of(0, 2)[0]]))
    b.answer(Unavailable("gone"))
    a.answer({"values": np.array([7])})
    (answer,) = told.outcomes
    assert answer["values"].tolist() == [0, 7]
    assert answer["answered"].tolist() == [False, True]


def test_no_rule_hides_that_a_request_is_wrong(tmp_path):
    a = shard()
    made = sharded(tmp_path, "{model: a}", on_failure="defaults", a=a)
    told = ask(made, np.array([1]))
    a.answer(InvalidArgument("no such key"))
    (error,) = told.outcomes
    assert isinstance(error, ServingError)
    assert error.code is Code.INVALID_ARGUMENT


def test_another_replica_is_asked_where_one_is_not_available(tmp_path):
    a, b = shard(), shard()
    made = sharded(tmp_path, "{model: a}, {model: b}", a=a, b=b)
    told = ask(made, np.array([1]))
    first, second = (a, b) if a.calls else (b, a)
    first.answer(Unavailable("gone"))
    second.answer({"values": np.array([5])})
    assert told.outcomes[0]["values"].tolist() == [5]
    for _ in range(4):  # it is asked last for a while
        ask(made, np.array([1]))
    assert (len(first.calls), len(second.calls)) == (0, 4)


def test_replicas_take_turns(tmp_path):
    a, b = shard(), shard()
    made = sharded(tmp_path, "{model: a}, {model: b}", a=a, b=b)
    for _ in range(6):
        ask(made, np.array([1]))
    assert (len(a.calls), len(b.calls)) == (3, 3)


def test_inputs_with_other_rows_are_refused_and_leave_no_handle(tmp_path):
    both = KEYS | {"weights": TensorSpec(DataType.INT64, None)}
    a = FakePart(None, both, VALUES)
    made = sharded(tmp_path, "{model: a}", a=a)
    with pytest.raises(InvalidArgument, match="input weights: expected 2 rows, as keys has"):
        ask(made, np.array([1, 2]), weights=np.array([1, 2, 3]))
    assert a.held == 0


def test_answers_that_do_not_fit_are_an_error(tmp_path):
    a, b = shard(), shard()
    made = sharded(tmp_path, "{model: a}", "{model: b}", a=a, b=b)
    told = ask(made, np.array(keys_of(0, 2) + keys_of(1, 2)))
    a.answer({"values": np.zeros((2, 3), np.int64)})
    b.answer({"values": np.zeros((2, 4), np.int64)})
    (error,) = told.outcomes
    assert isinstance(error, Internal)
    assert "shard 1: its answer does not fit the others'" in error.message


def test_no_rows_give_no_rows(tmp_path):
    made = sharded(tmp_path, "{model: a}", a=shard(lambda keys: {"values": keys}))
    (answer,) = ask(made, np.zeros(0, np.int64)).outcomes
    assert answer["values"].shape == (0,)


def test_each_shard_gets_its_inputs_in_the_order_of_its_own_signature(tmp_path):
    weights = {"weights": TensorSpec(DataType.INT64, None)}
    a, b = FakePart(None, KEYS | weights, VALUES), FakePart(None, weights | KEYS, VALUES)
    made = sharded(tmp_path, "{model: a}", "{model: b}", a=a, b=b)
    ask(made, np.array(keys_of(0, 2) + keys_of(1, 2)), weights=np.arange(4))
    assert [*a.calls[0][0]] == ["keys", "weights"]
    assert [*b.calls[0][0]] == ["weights", "keys"]


def test_a_shard_whose_inputs_have_changed_says_so(tmp_path):
    a = shard()
    made = sharded(tmp_path, "{model: a}", a=a)
    a.signature = FakePart(None, {"others": KEYS["keys"]}, VALUES).signature
    (error,) = ask(made, np.array([1])).outcomes
    assert error.message == "shard 0 (model a): there is no input keys any more"
    assert a.held == 0


def test_answers_of_another_type_are_an_error_not_a_conversion(tmp_path):
    a, b = shard(), shard()
    made = sharded(tmp_path, "{model: a}", "{model: b}", a=a, b=b)
    told = ask(made, np.array(keys_of(0, 2) + keys_of(1, 2)))
    a.answer({"values": np.zeros(2, np.int64)})
    b.answer({"values": np.array([0.5, 1.5])})
    (error,) = told.outcomes
    assert isinstance(error, Internal)
    assert "output values: expected int64, got float64" in error.message


def test_large_unsigned_keys_lie_on_their_side_of_a_bound():
    keys = np.array([2**60 - 1, 2**60, 2**64 - 1], np.uint64)
    assert shards_by_range(keys, [2**60]).tolist() == [0, 1, 1]
    assert shards_by_range(keys, [-1, 2**60]).tolist() == [1, 2, 2]


class OneIsSilent:
    """Other servers, the first of which does not answer."""

    def signature(self, server, spec, timeout_s):
        if server == "silent:1":
            raise DeadlineExceeded("Deadline Exceeded")
        return shard().signature


def test_a_server_that_does_not_answer_leaves_the_signature_to_the_others(tmp_path):
    rows = '{model: a, server: "silent:1"}, {model: a, server: "other:1"}'
    made = sharded(tmp_path, rows, remote=OneIsSilent())
    assert made.signatures["serving_default"].inputs == KEYS
