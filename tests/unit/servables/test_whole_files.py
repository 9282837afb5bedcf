"""Zip archives and HDF5 files that were cut off are told from whole ones."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from servingd.servables.files.source import Bytes
from servingd.servables.files.whole_files import damage_of_hdf5, damage_of_zip

h5py = pytest.importorskip("h5py")


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, f"{name} " * 20)
    return file.getvalue()


def test_an_archive_is_whole_when_its_directory_is():
    content = archive("a", "b")
    assert damage_of_zip(Bytes(content), ("a", "b")) is None
    for length in range(len(content)):
        assert damage_of_zip(Bytes(content[:length]), ("a", "b")), length


def test_an_archive_must_have_its_members():
    assert damage_of_zip(Bytes(archive("a")), ("a", "b")) == "has no b in it"
    assert "archive" in damage_of_zip(Bytes(b"\0" * 500), ())


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_an_hdf5_file_is_whole_when_it_has_the_bytes_that_its_head_says(tmp_path, version):
    with h5py.File(tmp_path / "f.h5", "w", libver=version) as file:
        file["weights"] = np.arange(1000.0)
    content = (tmp_path / "f.h5").read_bytes()
    assert damage_of_hdf5(Bytes(content)) is None
    for length in [*range(200), len(content) // 2, len(content) - 1]:
        assert damage_of_hdf5(Bytes(content[:length])), length
    assert "begin" in damage_of_hdf5(Bytes(b"PK" + content))
