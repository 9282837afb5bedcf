"""Inputs from files, told by their names' endings."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from servingd.cli.calling.input_files import read_file
from servingd.errors import InvalidArgument, NotFound


@pytest.mark.parametrize(
    ("name", "content", "value"),
    [
        ("a.json", b'{"x": [1]}', {"x": [1]}),
        ("a.jsonl", b'{"x": 1}\n\n{"x": 2}\n', [{"x": 1}, {"x": 2}]),
        ("a.csv", b"a,b\n1,x\n2.5,y\n", {"a": [1.0, 2.5], "b": ["x", "y"]}),
        ("a.csv", b"n\n1\n2\n", {"n": [1, 2]}),
        ("a.PNG", b"\x89PNG", [b"\x89PNG"]),
        ("a.txt", b"one\ntwo\n", ["one", "two"]),
    ],
)
def test_a_file_says_what_it_is(tmp_path: Path, name: str, content: bytes, value: object) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_file(f"@{tmp_path / name}") == value


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    np.savez(tmp_path / "a.npz", x=np.arange(2), y=np.ones(1))
    assert read_file(f"@{tmp_path}/a.npy").tolist() == [0, 1, 2]
    found = read_file(f"@{tmp_path}/a.npz")
    assert {name: array.tolist() for name, array in found.items()} == {"x": [0, 1], "y": [1.0]}


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.json", b"{", "a.json: Expecting"),
        ("a.csv", b"a,b\n1\n", "line 2: expected 2 values, got 1"),
        ("a.csv", b"", "expected a line of names, and lines of values"),
        ("a.npy", b"text", "a.npy: "),
        ("a.txt", b"\xff", "a.txt: "),
    ],
)
def test_what_is_wrong_is_told_with_the_file(
    tmp_path: Path, name: str, content: bytes, error: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument) as caught:
        read_file(f"@{tmp_path / name}")
    assert error in caught.value.message


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    """Loading them would run what the file says."""
    np.save(tmp_path / "a.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(InvalidArgument, match=r"a\.npy"):
        read_file(f"@{tmp_path}/a.npy")


def test_no_file_and_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="there is no file /nowhere"):
        read_file("@/nowhere")
    monkeypatch.setattr("sys.stdin", io.StringIO("[1]"))
    assert read_file("-") == [1]
