"""Lookup tables: the file's formats, when a file is complete, and what a call gives."""

import numpy as np
import pytest

from servingd.core.types import ServableId, VersionData
from servingd.errors import InvalidArgument, NotFound
from servingd.servables.files.source import Bytes
from servingd.servables.lookup_table.platform import LookupTablePlatform, open_table
from servingd.servables.lookup_table.schema import PLAIN
from servingd.servables.lookup_table.servable import LookupTable
from servingd.servables.lookup_table.store import Table
from servingd.servables.lookup_table.strings import strings_of

SIGNATURE = PLAIN.signature()


class Files(dict):
    """A listing: contents by name."""

    @property
    def sizes(self):
        return {name: len(content) for name, content in self.items()}

    def read(self, name):
        return self[name]

    def read_part(self, name, offset, size):
        return self[name][offset : offset + size]


class Outcome:
    deadline = None

    def alive(self):
        return True

    def succeed(self, outputs):
        self.outputs = outputs

    def fail(self, error):
        raise error


def missing(content, name="table.csv"):
    return LookupTablePlatform().missing(Files({name: content}))


def parse(content):
    """Each key of a plain table with the value that a call gets for it."""
    schema, batches = open_table(Bytes(content), None)
    batches = list(batches)
    keys = [batch["keys"][i] for batch in batches for i in range(len(batch["keys"]))]
    done = Outcome()
    LookupTable(schema, Table(schema, batches)).run(
        SIGNATURE, {"keys": np.array(keys, object)}, done
    )
    return dict(zip(keys, done.outputs["values"], strict=True))


def look_up(table, keys):
    done = Outcome()
    batch = {"keys": strings_of(list(table)), "values": strings_of(list(table.values()))}
    LookupTable(PLAIN, Table(PLAIN, [batch])).run(SIGNATURE, {"keys": keys}, done)
    return done.outputs["values"]


# The formats ------------------------------------------------------------------------------------


def test_csv_has_two_columns_and_no_header():
    assert parse(b"0,zero\n1,one\n") == {b"0": b"zero", b"1": b"one"}
    assert parse("k\u00e4se,\u30c1\u30fc\u30ba\r\n".encode()) == {
        "k\u00e4se".encode(): "\u30c1\u30fc\u30ba".encode()
    }
    assert parse(b"") == {}


def test_csv_quotes_hold_commas_quotes_and_line_feeds():
    assert parse(b'"a,b","say ""hi"""\n') == {b"a,b": b'say "hi"'}
    assert parse(b'a,"one\ntwo"\nb,c\n') == {b"a": b"one\ntwo", b"b": b"c"}


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_line_feeds_end_a_line_of_csv(separator):
    assert parse(f"a,b{separator}c\n".encode()) == {b"a": f"b{separator}c".encode()}


def test_a_very_long_value_of_csv_is_kept_whole_or_refused_with_its_line():
    value = b"x" * 200_000
    try:
        outcome = parse(b"a," + value + b"\n")
    except InvalidArgument as error:
        outcome = error.message[:6]
    assert outcome in ({b"a": value}, "line 1")


def test_of_two_lines_with_one_key_the_first_counts():
    assert parse(b"a,1\na,2\n") == {b"a": b"1"}


def test_json_is_one_object_of_strings():
    assert parse(b' {"0": "zero", "1": "\\u00e9"}\n') == {b"0": b"zero", b"1": "\u00e9".encode()}
    assert parse(b"{}") == {}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a,b\nc\n", "line 2: expected two columns, got 1"),
        (b"a,b\nc,d\n1,2,3\n", "line 3: expected two columns, got 3"),
        (b"a,b\n\nc,d\n", "line 2: expected two columns, got 0"),
        (b'a,"one\ntwo"\nb\n', "line 3: expected two columns, got 1"),
        (b'a,b\n"c"d,e\n', "line 2"),
        (b'a,b\n"c,d\n', "line 2"),
        (b'{"a": "b",\n"c": }', "line 2"),
        (b'{"a": "b", "c": 4}', "entry 'c': expected a string, got int"),
        (b'{"a": null}', "entry 'a': expected a string, got NoneType"),
        (b'{"a": "b"', "JSON"),
        (b"a,\xff\n", "UTF-8"),
        (b'{"a": "\\ud800"}', "entry 'a'"),
    ],
)
def test_what_does_not_parse_is_told_with_its_place(content, text):
    with pytest.raises(InvalidArgument) as caught:
        parse(content)
    assert text in caught.value.message


# Completeness -----------------------------------------------------------------------------------

CSV = 'a,b\nc,"d\ne"\nf\u00e9,g\n'.encode()
JSON = '{"a": "b", "c": "d", "f\u00e9": "g"}'.encode()


def test_a_whole_table_is_complete():
    for content in (CSV, JSON, JSON + b"\n"):
        assert missing(content) is None
        assert missing(content, "") is None
    assert missing(JSON, "table.json") is None


# Cut off between two lines it looks like a whole one: that cannot be told.
WITHIN_A_LINE = [n for n in range(len(CSV)) if n not in (4, 12)]


@pytest.mark.parametrize("length", WITHIN_A_LINE)
def test_a_csv_that_was_cut_off_within_a_line_is_incomplete(length):
    reason = missing(CSV[:length])
    assert isinstance(reason, str)
    assert reason.startswith("table.csv")


@pytest.mark.parametrize("length", range(len(JSON)))
def test_a_json_that_was_cut_off_is_incomplete(length):
    reason = missing(JSON[:length], "table.json")
    assert isinstance(reason, str)
    assert reason.startswith("table.json")


def test_an_incomplete_version_that_is_a_file_is_told_so():
    assert missing(b"a,b", "") == "the file does not end with a line feed"


def test_a_folder_without_a_table_is_incomplete():
    assert missing(b"a,b\n", "other.txt") == "there is no table.csv, table.json or table.parquet"
    assert (
        LookupTablePlatform().missing(Files())
        == "there is no table.csv, table.json or table.parquet"
    )


def test_tables_are_recognised_complete_or_not():
    platform = LookupTablePlatform()
    for name in ("table.csv", "table.json", ""):
        assert platform.recognises(Files({name: b"a,"}))
    assert not platform.recognises(Files({"saved_model.pb": b"", "assets/table.csv": b""}))


# Calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (0,), (4,), (2, 3), (2, 0), (1, 2, 2)])
def test_values_have_the_shape_of_the_keys(shape):
    keys = np.full(shape, b"a", object)
    values = look_up({b"a": b"1"}, keys)
    assert values.shape == shape
    assert values.dtype == object
    assert all(value == b"1" for value in values.ravel())


def test_each_key_gets_its_own_value_and_an_unknown_one_an_empty_string():
    keys = np.array([[b"a", b"?"], [b"b", b"a"]], object)
    values = look_up({b"a": b"1", b"b": b"2"}, keys)
    assert values.tolist() == [[b"1", b""], [b"2", b"1"]]


def test_keys_that_do_not_lie_in_order_are_answered_in_theirs():
    keys = np.array([[b"a", b"b", b"c"], [b"d", b"e", b"f"]], object).T
    values = look_up({k: k.upper() for k in b"a b c d e f".split()}, keys)
    assert values.tolist() == [[b"A", b"D"], [b"B", b"E"], [b"C", b"F"]]


def test_values_keep_zero_bytes_at_their_end():
    values = look_up({b"a\0": b"1\0\0"}, np.array([b"a\0", b"a"], object))
    assert values.tolist() == [b"1\0\0", b""]


# Loading ----------------------------------------------------------------------------------------


def load(path):
    loader = LookupTablePlatform().loader(ServableId("m", 1), VersionData(str(path), "lookup"))
    return loader, loader.load()


@pytest.mark.parametrize(
    ("name", "content"), [("table.csv", b"a,1\n"), ("table.json", b'{"a": "1"}')]
)
def test_a_folder_and_a_file_load_alike(tmp_path, name, content):
    (tmp_path / "1").mkdir()
    for path, version in ((tmp_path / "1" / name, tmp_path / "1"), (tmp_path / "2",) * 2):
        path.write_bytes(content)
        loader, table = load(version)
        done = Outcome()
        table.run(SIGNATURE, {"keys": np.array([b"a"], object)}, done)
        assert done.outputs["values"].tolist() == [b"1"]
        loader.unload(table)


def test_a_folder_without_a_table_does_not_load(tmp_path):
    with pytest.raises(NotFound, match=r"table\.csv, table\.json or"):
        load(tmp_path)


def test_a_table_that_does_not_parse_does_not_load(tmp_path):
    (tmp_path / "table.csv").write_text("a\n")
    with pytest.raises(InvalidArgument, match="line 1"):
        load(tmp_path)


def test_what_a_table_takes_is_told_from_its_file(tmp_path):
    file = tmp_path / "table.csv"
    file.write_bytes(b"a,1\n" * 100)
    loader = LookupTablePlatform().loader(ServableId("m", 1), VersionData(str(tmp_path), "x"))
    estimate = loader.estimate()
    assert 400 < estimate.steady.shared < estimate.peak.shared
    assert not estimate.on_devices
