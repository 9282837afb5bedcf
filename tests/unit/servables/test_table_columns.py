"""Lookup tables of many columns: types, defaults, missing keys, and the three kinds of files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.types import DataType, ServableId, VersionData
from servingd.errors import InvalidArgument, NotFound, ServingError
from servingd.servables.files import source
from servingd.servables.files.source import Bytes
from servingd.servables.lookup_table import csv_file, store
from servingd.servables.lookup_table.platform import (
    LookupTableLoader,
    LookupTablePlatform,
    open_table,
)
from servingd.servables.lookup_table.schema import TableOptions, make_schema, parse_options
from servingd.servables.lookup_table.servable import LookupTable
from servingd.servables.lookup_table.store import Table
from servingd.servables.lookup_table.strings import joined, strings_of
from servingd.sources.listing import DiskListing

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COLUMNS = {
    "id": "int64",
    "age": "int16",
    "name": "string",
    "score": "float32",
    "ok": "bool",
    "v": "float32[2]",
}
OPTIONS = TableOptions(key="id", columns=COLUMNS)
CSV = """id,unused,age,name,score,ok,v
7,x,30,Ann,0.5,true,1 2
-1,,,,,,
9,y,-4,Bé,1e3,0,3 4
""".encode()
RECORDS = [
    {"id": 7, "age": 30, "name": "Ann", "score": 0.5, "ok": True, "v": [1, 2.0]},
    {"id": -1, "age": None},
    {"id": 9, "age": -4, "name": "Bé", "score": 1000, "ok": False, "v": [3, 4], "more": {}},
]


def table_of(content: bytes, options: TableOptions | None) -> LookupTable:
    schema, batches = open_table(Bytes(content), options)
    return LookupTable(schema, Table(schema, batches))


def parquet_file(tmp_path) -> bytes:
    kinds = [
        ("id", pyarrow.int64()),
        ("age", pyarrow.int16()),
        ("name", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
        ("score", pyarrow.float32()),
        ("ok", pyarrow.bool_()),
        ("v", pyarrow.list_(pyarrow.float32(), 2)),
        ("unserved", pyarrow.date32()),
    ]
    table = pyarrow.Table.from_pylist(RECORDS, schema=pyarrow.schema(kinds))
    parquet.write_table(table, tmp_path / "t.parquet")
    return (tmp_path / "t.parquet").read_bytes()


def ask(table: LookupTable, keys) -> dict:
    answers = []

    class Done:
        def succeed(self, outputs):
            answers.append(outputs)

    signature = table.signatures["serving_default"]
    (name,) = signature.inputs
    table.run(signature, {name: np.asarray(keys)}, Done())
    (outputs,) = answers
    assert outputs.keys() == signature.outputs.keys()
    return outputs


@pytest.fixture(params=["csv", "json", "parquet"])
def content(request, tmp_path) -> bytes:
    if request.param == "csv":
        return CSV
    return json.dumps(RECORDS).encode() if request.param == "json" else parquet_file(tmp_path)


def test_each_column_has_its_type_and_the_shape_of_the_keys(content):
    table = table_of(content, OPTIONS)
    signature = table.signatures["serving_default"]
    assert {n: s.data_type for n, s in signature.outputs.items()} == {
        "age": DataType.INT16,
        "name": DataType.STRING,
        "score": DataType.FLOAT,
        "ok": DataType.BOOL,
        "v": DataType.FLOAT,
    }
    found = ask(table, [[9, 7], [-1, 8]])
    assert found["age"].tolist() == [[-4, 30], [0, 0]]
    assert found["age"].dtype == np.int16
    assert found["name"].tolist() == [["Bé".encode(), b"Ann"], [b"", b""]]
    assert found["score"].tolist() == [[1000, 0.5], [0, 0]]
    assert found["ok"].tolist() == [[False, True], [False, False]]
    assert found["v"].tolist() == [[[3, 4], [1, 2]], [[0, 0], [0, 0]]]
    assert ask(table, np.int64(7))["v"].shape == (2,)
    assert ask(table, np.empty((0, 3), np.int64))["v"].shape == (0, 3, 2)


def test_empty_cells_and_missing_keys_have_the_given_defaults(content):
    defaults = {"age": -9, "name": "?", "score": 0.25, "ok": True, "v": [5, 6]}
    table = table_of(content, TableOptions(key="id", columns=COLUMNS, defaults=defaults))
    for key in (-1, 12345):  # one with empty cells, one that is not there
        found = ask(table, [key])
        assert {n: v.tolist() for n, v in found.items()} == {
            "age": [-9],
            "name": [b""] if key == -1 and content == CSV else [b"?"],
            "score": [0.25],
            "ok": [True],
            "v": [[5, 6]],
        }


def test_a_parquet_file_brings_its_columns_and_types(tmp_path):
    table = table_of(parquet_file(tmp_path), None)
    assert ask(table, [7])["name"].tolist() == [b"Ann"]
    assert table.signatures["serving_default"].outputs.keys() == COLUMNS.keys() - {"id"}
    wider = table_of(parquet_file(tmp_path), TableOptions(key="id", columns={"age": "int64"}))
    assert ask(wider, [7])["age"].dtype == np.int64
    with pytest.raises(InvalidArgument, match="column name: a key is null"):
        table_of(parquet_file(tmp_path), TableOptions(key="name"))


def test_a_missing_key_is_an_error_where_the_schema_says_so():
    options = TableOptions(key="id", columns=COLUMNS, missing="error", found=True)
    table = table_of(CSV, options)
    assert ask(table, [7, 9])["found"].tolist() == [True, True]
    with pytest.raises(NotFound, match=r"key 5 of input id at \[1, 0\] is not in the table"):
        ask(table, [[7, 9], [5, 6]])


def test_an_output_says_which_keys_were_found():
    table = table_of(CSV, TableOptions(key="id", columns=COLUMNS, found=True))
    assert ask(table, [[7], [8]])["found"].tolist() == [[True], [False]]


def test_of_equal_keys_the_first_counts():
    options = TableOptions(key="k", columns={"v": "int64"})
    assert ask(table_of(b"k,v\na,1\nb,2\na,3\n", options), np.array([b"a"], object))["v"] == 1
    numbers = TableOptions(columns={"k": "uint8", "v": "int64"}, header=False)
    assert ask(table_of(b"5,1\n5,2\n", numbers), np.array([5], np.uint8))["v"] == 1


def test_keys_whose_hashes_are_equal_are_told_apart():
    assert hash(b"a") != hash(b"b")
    schema = make_schema(TableOptions(key="k", columns={"v": "int64"}))
    keys = [b"a", b"b", b"c"]
    table = Table(schema, [{"k": strings_of(keys), "v": np.arange(3)}])
    same = hash(b"b")
    table._sorted[:] = same  # as if all three had one hash
    table._order[:] = [0, 1, 2]
    assert table.find(np.array([b"b"], object)).tolist() == [1]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"id,v\n1,x\n", "line 2: column v: 'x' is no int8"),
        (b"id,v\n1,2\n3,300\n", "line 3: column v: '300' is no int8"),
        (b"id,v\n1,2\n1_0,3\n", "line 3: column id: '1_0' is no int64"),
        (b"id,w\n1,2\n", "line 1: there is no column 'v'; it has id, w"),
        (b"id,v\n1,2\n3\n", "line 3: expected two columns, got 1"),
        (b'id,v\n"1",2\n3,y\n', "line 3: column v: 'y' is no int8"),
        (b'[{"id": 1, "v": 2}, {"id": 1, "v": "x"}]', "record 1: v: expected integers, got 'x'"),
        (b'[{"id": 1, "v": 1.5}]', "record 0: v: expected integers, got 1.5"),
        (b'[{"v": 1}]', "record 0: id: it has no key"),
        (b"[3]", "record 0"),
        (b'{"id": "v"}', "a list of records"),
        (b'[{"id": 1,', "JSON"),
    ],
)
def test_what_is_no_value_of_its_column_is_told_with_its_place(content, text):
    with pytest.raises(InvalidArgument) as caught:
        table_of(content, TableOptions(columns={"id": "int64", "v": "int8"}))
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"columns": {"a": "int65", "b": "string"}}, "column a: 'int65' is no type"),
        ({"columns": {"a": "float32", "b": "string"}}, "keys are strings or integers"),
        ({"columns": {"a": "string"}}, "none besides the key a"),
        ({"columns": {"a": "string", "b": "string[2]"}}, "lists of strings"),
        ({"columns": {"a": "string", "b": "int8"}, "defaults": {"b": "x"}}, "defaults: b"),
        ({"columns": {"a": "string", "b": "int8"}, "defaults": {"c": 1}}, "no column 'c'"),
        ({"columns": {"a": "string", "b": "int8"}, "missing": "zero"}, "missing"),
        ({"colums": {}}, "no field 'colums'"),
        ({}, "names its columns"),
    ],
)
def test_a_schema_that_is_wrong_is_told_by_its_field(schema, text):
    def parse():
        return make_schema(TableOptions(**parse_options(json.dumps(schema).encode())))

    with pytest.raises(InvalidArgument) as caught:
        parse()
    assert text in caught.value.message


def test_a_version_names_its_columns_and_the_server_may_say_more(tmp_path):
    (tmp_path / "table.csv").write_bytes(CSV)
    (tmp_path / "schema.json").write_text(json.dumps({"key": "id", "columns": COLUMNS}))
    loader = LookupTablePlatform().loader(ServableId("m", 1), VersionData(str(tmp_path), "x"))
    assert ask(loader.load(), [9])["age"].tolist() == [-4]
    loader = LookupTableLoader(str(tmp_path), {"columns": {"id": "int32", "age": "int64"}})
    found = ask(loader.load(), np.array([9], np.int32))
    assert {n: v.dtype for n, v in found.items()} == {"age": np.int64}


def test_a_file_with_a_schema_that_was_cut_off_within_a_line_is_incomplete(tmp_path, content):
    kind = "csv" if content == CSV else "json" if content[:1] == b"[" else "parquet"
    file = tmp_path / f"table.{kind}"
    if kind != "parquet":
        (tmp_path / "schema.json").write_text(json.dumps({"key": "id", "columns": COLUMNS}))
    platform = LookupTablePlatform()
    file.write_bytes(content)
    assert platform.recognises(DiskListing(str(tmp_path)))
    assert platform.missing(DiskListing(str(tmp_path))) is None
    line_ends = {i + 1 for i, byte in enumerate(content) if byte == 10 and kind == "csv"}
    for length in sorted(set(range(0, len(content), 1 + len(content) // 150)) - line_ends):
        file.write_bytes(content[:length])
        assert platform.missing(DiskListing(str(tmp_path))).startswith(file.name), length


def test_a_damaged_parquet_file_is_an_error_of_the_load(tmp_path):
    whole = parquet_file(tmp_path)
    with pytest.raises(ServingError, match="Parquet"):
        table_of(whole[:4] + b"\xff" * (len(whole) - 8) + whole[-4:], None)


# Both ways through a CSV file, and pieces of every size ------------------------------------------

CELL = st.text(st.characters(exclude_characters='\r\n,"', codec="utf-8"), max_size=6)


@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=12),
    piece=st.integers(1, 50),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_a_file_is_read_alike_at_once_and_row_by_row(rows, piece, ends):
    content = "".join(f"{','.join(row)}{ends}" for row in rows).encode()
    columns = {"a": "string", "b": "string", "c": "string"}
    schema = make_schema(TableOptions(columns=columns, header=False))
    before, source.PIECE = source.PIECE, piece
    try:
        assert not csv_file._is_quoted(Bytes(content))
        plain = list(csv_file.read_csv(Bytes(content), schema))
    finally:
        source.PIECE = before
    quoted = "".join(ends.join([",".join(f'"{c}"' for c in row), ""]) for row in rows).encode()
    assert not rows or csv_file._is_quoted(Bytes(quoted))
    for batches in (plain, list(csv_file.read_csv(Bytes(quoted), schema))):
        for place, name in enumerate(columns):
            cells = joined(batch[name] for batch in batches)
            assert [cells[i].decode() for i in range(len(cells))] == [r[place] for r in rows]


@given(
    st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.integers(0, 255), max_size=40), st.data()
)
def test_keys_of_any_size_and_order_are_found(rows, data):
    schema = make_schema(TableOptions(columns={"k": "int64", "v": "uint8"}))
    keys = np.array(list(rows), np.int64)
    table = Table(schema, [{"k": keys, "v": np.array(list(rows.values()), np.uint8)}])
    asked = data.draw(st.lists(st.sampled_from([*rows, 0, 5]), max_size=20))
    found = table.take(table.find(np.array(asked, np.int64)))["v"]
    assert found.tolist() == [rows.get(key, 0) for key in asked]


def test_many_rows_take_no_object_each():
    """By what the table says it holds, against what Python's allocator was asked for."""
    import gc
    import tracemalloc

    content = b"".join(b"key-%d,%d\n" % (i, i) for i in range(200_000))
    schema = make_schema(TableOptions(columns={"k": "string", "v": "int32"}, header=False))
    before = len(gc.get_objects())
    tracemalloc.start()
    table = store.Table(schema, csv_file.read_csv(Bytes(content), schema))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(gc.get_objects()) - before < 1000
    assert held < 1.1 * table.nbytes + 100_000
    assert table.nbytes < 32 * table.rows
    assert peak < 2 * table.nbytes + (24 << 20)
