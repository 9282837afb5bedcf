"""The file of mapped weights: what is written is read, and nothing else is taken for it."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from servingd.servables.saved_model.files import mapped_weights
from servingd.servables.saved_model.files.mapped_weights import (
    ALIGNMENT,
    FILE,
    BadWeights,
    MappedWeights,
    check_weights,
    layout,
    open_weights,
    weights_from_json,
    write_weights,
)

FLOAT, INT64 = 1, 9
TABLE = np.arange(50_000, dtype=np.float32).reshape(5_000, 10)
NUMBERS = np.arange(7, dtype=np.int64)


def planned() -> MappedWeights:
    return layout([("table", FLOAT, (5_000, 10), TABLE.nbytes), ("numbers", INT64, (7,), 56)])


@pytest.fixture
def written(tmp_path: Path) -> MappedWeights:
    return write_weights(tmp_path, planned(), iter([TABLE, NUMBERS]))


def test_each_variable_lies_on_pages_of_its_own(tmp_path, written):
    table, numbers = written.tensors
    assert (table.offset, numbers.offset) == (ALIGNMENT, 5 * ALIGNMENT)
    assert ALIGNMENT % 4096 == 0
    content = (tmp_path / FILE).read_bytes()
    assert len(content) == written.size == 6 * ALIGNMENT
    for tensor, value in zip(written.tensors, (TABLE, NUMBERS), strict=True):
        assert content[tensor.offset : tensor.offset + tensor.size] == value.tobytes()
    assert written.checksum == zlib.crc32(content[ALIGNMENT:])


def test_the_file_is_private_and_leaves_no_other(tmp_path, written):
    assert (tmp_path / FILE).stat().st_mode & 0o7777 == 0o400
    assert os.listdir(tmp_path) == [FILE]


def test_its_layout_survives_the_report(written):
    assert weights_from_json(written.as_json()) == written


def test_it_is_synced_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "rename", lambda *paths: (done.append("rename"), rename(*paths)))
    write_weights(tmp_path, planned(), [TABLE, NUMBERS])
    assert done == ["fsync", "rename", "fsync"], "the file, and then the folder"


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(BadWeights, match="table is float32"):
        write_weights(tmp_path, planned(), [TABLE[1:], NUMBERS])
    assert os.listdir(tmp_path) == []


def test_without_room_nothing_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        write_weights(tmp_path, planned(), [TABLE, NUMBERS])
    assert os.listdir(tmp_path) == []


def test_a_whole_file_is_opened_and_checked(tmp_path, written):
    os.close(open_weights(tmp_path, written))
    check_weights(tmp_path, written)


def chmod(path: Path) -> None:
    path.chmod(0o600)


def cut_off(path: Path) -> None:
    changed(path, path.read_bytes()[:-1])


def longer(path: Path) -> None:
    changed(path, path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    changed(path, b"")


def other_header(path: Path) -> None:
    content = path.read_bytes()
    changed(path, content.replace(content[20:28], b"00000000", 1))


def gone(path: Path) -> None:
    path.unlink()


def linked(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def changed(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o400)


@pytest.mark.parametrize(
    "damage", [chmod, cut_off, longer, empty, other_header, gone, linked, folder]
)
def test_a_file_that_is_not_what_was_written_is_not_opened(tmp_path, written, damage):
    damage(tmp_path / FILE)
    before = os.listdir("/proc/self/fd")
    with pytest.raises((BadWeights, OSError)):
        open_weights(tmp_path, written)
    assert os.listdir("/proc/self/fd") == before, "a descriptor is left"


def test_the_file_of_another_graph_is_not_opened(tmp_path, written):
    (tmp_path / "other").mkdir()
    other = write_weights(tmp_path / "other", planned(), [TABLE + 1, NUMBERS])
    assert other.size == written.size
    with pytest.raises(BadWeights, match="another header"):
        open_weights(tmp_path / "other", written)


def test_on_a_file_system_of_another_machine_it_is_not_opened(tmp_path, written, monkeypatch):
    monkeypatch.setattr(mapped_weights, "is_local", lambda folder: False)
    with pytest.raises(BadWeights, match="not on a file system of this machine"):
        open_weights(tmp_path, written)


def test_a_byte_that_changed_is_found_by_reading_all(tmp_path, written):
    content = bytearray((tmp_path / FILE).read_bytes())
    content[written.tensors[0].offset + 77] ^= 1
    changed(tmp_path / FILE, bytes(content))
    os.close(open_weights(tmp_path, written))
    with pytest.raises(BadWeights, match="not those that were written"):
        check_weights(tmp_path, written)
    check_weights(tmp_path, written, cancelled=lambda: True)


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": [{"name": "t"}]},
        {"tensors": None},
        {"size": "much"},
        {"size": 3 * ALIGNMENT},
        {"tensors": [{"name": "t", "data_type": 1, "shape": [1], "offset": 4096, "size": 4}]},
        {"tensors": [{"name": "t", "data_type": 1, "shape": [1], "offset": 0, "size": 4}]},
        {"tensors": [{"name": "t", "data_type": 1, "shape": [0], "offset": ALIGNMENT, "size": 0}]},
    ],
)
def test_a_report_that_makes_no_sense_is_refused(written, change):
    with pytest.raises(BadWeights):
        weights_from_json({**written.as_json(), **change})


def test_other_types_than_numpys_are_written_too(tmp_path):
    import ml_dtypes

    values = np.arange(8).astype(ml_dtypes.bfloat16)
    plan = layout([("b", 14, (8,), 16)])
    write_weights(tmp_path, plan, [values])
    assert (tmp_path / FILE).read_bytes()[ALIGNMENT : ALIGNMENT + 16] == values.tobytes()


def test_large_values_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped_weights, "_CHUNK", 1000)
    written = write_weights(tmp_path, planned(), [TABLE, NUMBERS])
    check_weights(tmp_path, written)
