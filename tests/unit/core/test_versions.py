"""Which children of a base path are versions, and which are wanted."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from servingd.core.lifecycle.versions import (
    MAX_VERSION,
    All,
    Latest,
    Specific,
    aspired,
    parse_version,
    versions_in,
)

# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("0", 0),
        ("3", 3),
        ("42", 42),
        ("02", 2),
        ("00017", 17),
        ("20170111173521", 20170111173521),
        ("9223372036854775807", MAX_VERSION),
        ("0" * 40 + "9223372036854775807", MAX_VERSION),
    ],
)
def test_decimal_digits_are_a_version(name, version):
    assert parse_version(name) == version


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-5",
        "+7",
        " 7 ",
        "7\n",
        "1.5",
        "1e3",
        "1_000",
        "0x10",
        "2.denied",
        "non_numerical_child",
        "9223372036854775808",
        "9" * 5000,
        "0" * 5000 + "1",
        "\u0663",  # an Arabic three
        "\u00b2",  # a superscript two
        "\uff17",  # a full-width seven
        "1\u0663",
        "\udcff",  # a byte that is no UTF-8, as the file system gives it
    ],
)
def test_anything_else_is_none(name):
    assert parse_version(name) is None


@given(st.integers(0, MAX_VERSION), st.integers(0, 30))
def test_every_version_reads_back_whatever_its_leading_zeros(version, zeros):
    assert parse_version("0" * zeros + str(version)) == version


@given(st.text(st.sampled_from("0123456789+-. x\u0663a"), max_size=22) | st.text(max_size=5))
def test_a_name_is_a_version_iff_it_is_ascii_digits_of_64_bits(name):
    digits = re.fullmatch(r"[0-9]+", name) is not None and int(name) <= MAX_VERSION
    assert parse_version(name) == (int(name) if digits else None)


def test_of_two_spellings_the_last_in_order_wins():
    assert versions_in(["1", "001", "01", "x", "2"]) == {1: "1", 2: "2"}
    assert versions_in(["007", "07"]) == {7: "07"}


@given(st.lists(st.text("01a", max_size=3), max_size=12))
def test_which_spelling_wins_does_not_depend_on_the_order_of_the_listing(names):
    found = versions_in(names)
    assert found == versions_in(reversed(names))
    assert all(parse_version(name) == version for version, name in found.items())
    assert found.keys() == {parse_version(name) for name in names} - {None}


# Policies: invariant 25 -------------------------------------------------------------------------

present = st.lists(st.integers(0, 30), max_size=12)


@given(present, st.integers(-1, 8))
def test_latest_are_the_greatest_newest_first(versions, number):
    wanted = aspired(versions, Latest(number))
    assert list(wanted) == sorted(set(versions), reverse=True)[: max(1, number)]
    if wanted:
        assert all(v in wanted or v < min(wanted) for v in versions)


@given(present)
def test_all_is_every_version_once_newest_first(versions):
    assert list(aspired(versions, All())) == sorted(set(versions), reverse=True)


@given(present, st.lists(st.integers(0, 30), max_size=5))
def test_specific_are_those_asked_for_that_are_there_newest_first(versions, asked):
    wanted = aspired(versions, Specific(tuple(asked)))
    assert set(wanted) == set(versions) & set(asked)
    assert list(wanted) == sorted(set(wanted), reverse=True)


def test_latest_without_a_number_is_one():
    assert aspired([17, 42, 33], Latest()) == (42,)
    assert aspired([17, 42, 33], Latest(0)) == (42,)
