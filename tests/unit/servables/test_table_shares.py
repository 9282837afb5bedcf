"""A lookup table of which each shard loads its share: together they have each row once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.types import ServableId, VersionData
from servingd.errors import InvalidArgument
from servingd.servables.lookup_table.platform import LookupTablePlatform
from servingd.testing.contract import run

COUNT = 3


def shares(path, count=COUNT, **options):
    for index in range(count):
        data = VersionData(
            str(path), "", "", {**options, "shard": {"index": index, "count": count}}
        )
        yield LookupTablePlatform().loader(ServableId("t", 1), data).load()


@given(keys=st.lists(st.integers(-(10**6), 10**6), unique=True, min_size=1, max_size=40))
def test_each_row_is_in_one_share(tmp_path_factory, keys):
    path = tmp_path_factory.mktemp("table")
    rows = "".join(f"{key},name {key},{key * 2}\n" for key in keys)
    (path / "table.csv").write_text(f"id,name,twice\n{rows}")
    found = np.zeros(len(keys), int)
    for table in shares(
        path, columns={"id": "int64", "name": "string", "twice": "int64"}, found=True
    ):
        signature = table.signatures["serving_default"]
        answer = run(table, signature, {"id": np.array(keys, np.int64)})
        there = answer["found"]
        found += there
        wanted = np.array(keys)[there]
        assert answer["twice"][there].tolist() == (wanted * 2).tolist()
        assert answer["name"][there].tolist() == [b"name %d" % key for key in wanted]
    assert found.tolist() == [1] * len(keys)


def test_a_plain_table_is_shared_out_and_stays_plain(tmp_path):
    (tmp_path / "table.csv").write_text("".join(f"k{n},v{n}\n" for n in range(30)))
    keys = np.array([f"k{n}".encode() for n in range(30)], object)
    answers = [
        run(table, table.signatures["serving_default"], {"keys": keys})["values"]
        for table in shares(tmp_path)
    ]
    assert sorted(b"".join(row) for row in zip(*answers, strict=True)) == sorted(
        f"v{n}".encode() for n in range(30)
    )


def test_a_share_that_there_is_not_is_refused(tmp_path):
    data = VersionData(str(tmp_path), "", "", {"shard": {"index": 3, "count": 3}})
    with pytest.raises(InvalidArgument, match="shard: expected an index from 0 to 2: 3"):
        LookupTablePlatform().loader(ServableId("t", 1), data)
