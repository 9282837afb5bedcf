"""TFRecord files, written and read by us; tests/tensorflow compares with TensorFlow."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingd.errors import DataLoss
from servingd.wire.records.tf_records import frame, read_records

RECORDS = [b"", b"one", b"\x00" * 1000, b"last"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "records"


def test_a_record_is_what_tensorflow_writes():
    assert frame(b"abc").hex() == "0300000000000000b099490e6162636e57f121"


def test_what_is_written_is_read(file):
    file.write_bytes(b"".join(map(frame, RECORDS)))
    assert list(read_records(str(file))) == RECORDS


def test_an_empty_file_has_no_records(file):
    file.write_bytes(b"")
    assert list(read_records(str(file))) == []


def test_a_file_that_is_not_there_is_the_file_systems_error(file):
    with pytest.raises(FileNotFoundError):
        list(read_records(str(file)))


def test_whatever_is_cut_off_is_told_from_its_place_on(file):
    whole = b"".join(map(frame, RECORDS))
    ends = [0]
    for record in RECORDS:
        ends.append(ends[-1] + len(frame(record)))
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        if length in ends:
            assert list(read_records(str(file))) == RECORDS[: ends.index(length)]
            continue
        begin = max(end for end in ends if end < length)
        with pytest.raises(DataLoss, match=f"^truncated record at {begin}$"):
            list(read_records(str(file)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(file, place, bit):
    whole = bytearray(b"".join(map(frame, RECORDS)))
    whole[place % len(whole)] ^= 1 << bit
    file.write_bytes(whole)
    with pytest.raises(DataLoss, match=r"^corrupted record at \d+$"):
        list(read_records(str(file)))


def test_a_length_that_lies_takes_no_memory(file):
    huge = struct.pack("<Q", 1 << 62)
    # The checksum behind data that is this length is also the one that the length itself needs.
    file.write_bytes(huge + frame(huge)[-4:] + b"some")
    with pytest.raises(DataLoss, match=r"^truncated record at 0$"):
        list(read_records(str(file)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=60))
def test_garbage_is_data_loss(file, content):
    file.write_bytes(content)
    with pytest.raises(DataLoss, match=r"^(truncated|corrupted) record at 0$"):
        list(read_records(str(file)))
