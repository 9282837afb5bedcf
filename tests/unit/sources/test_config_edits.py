"""A configuration file is changed and applied, or neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from servingd.errors import FailedPrecondition, InvalidConfig, NotFound
from servingd.sources.config_edits import edit_file


class Server:
    """Reads a file's text as its models, and takes them."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.refuses: Exception | None = None

    def read(self, path: str) -> str:
        text = Path(path).read_text()
        if "wrong" in text:
            raise InvalidConfig(f"{path}:1: wrong")
        return text

    def apply(self, models: str) -> None:
        if self.refuses is not None and models != "old":
            raise self.refuses
        self.applied.append(models)

    def edit(self, path: Path, text: str) -> None:
        edit_file(str(path), lambda old: text, self.read, self.apply)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "servingd.yaml").write_text("old")
    (tmp_path / "servingd.yaml").chmod(0o640)
    return tmp_path / "servingd.yaml"


def test_it_is_replaced_once_it_was_applied(file: Path) -> None:
    server = Server()
    server.edit(file, "new")
    assert server.applied == ["new"]
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(file.parent) == ["servingd.yaml"]


def test_a_link_goes_on_pointing_to_the_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    Server().edit(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert file.read_text() == "new"


@pytest.mark.parametrize("text", ["wrong", "refused"])
def test_what_cannot_be_read_or_applied_changes_nothing(file: Path, text: str) -> None:
    server = Server()
    server.refuses = NotFound("no such version")
    with pytest.raises((InvalidConfig, NotFound)) as caught:
        server.edit(file, text)
    assert file.read_text() == "old"
    assert os.listdir(file.parent) == ["servingd.yaml"]
    assert ".servingd.yaml." not in str(caught.value), "the file is called by its own name"


def test_a_file_that_cannot_be_replaced_is_told_and_undone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*names: str) -> None:
        raise OSError(30, "Read-only file system")

    server = Server()
    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(FailedPrecondition, match="cannot be changed from here: Read-only"):
        server.edit(file, "new")
    assert server.applied == ["new", "old"]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        Server().edit(tmp_path / "nothing", "new")


def test_lines_end_as_they_did(file: Path) -> None:
    file.write_bytes("# \u00e9\r\nold\r\n".encode())
    server = Server()
    edit_file(str(file), lambda old: old.replace("old", "new"), server.read, server.apply)  # type: ignore[arg-type]
    assert file.read_bytes() == "# \u00e9\r\nnew\r\n".encode()
