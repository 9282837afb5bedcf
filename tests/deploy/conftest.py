"""The models of servers that are started here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import exports


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """A lookup table, a SavedModel, a table that cannot be loaded, and half a SavedModel."""
    root = tmp_path_factory.mktemp("repository")
    for name, text in (("names", "1,one\n2,two\n"), ("broken", "one column\n")):
        version = root / name / "1"
        version.mkdir(parents=True)
        (version / "table.csv").write_text(text)
    exports.half_plus_two(root / "half_plus_two" / "1")
    shutil.copytree(root / "half_plus_two" / "1", root / "half_plus_two" / "2")
    index = root / "half_plus_two" / "2" / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:20])
    return root
