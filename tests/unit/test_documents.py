"""Every file and folder that the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml|sh|yaml))`")
DOCUMENTS = ("servingd/DESIGN.md", "README.md", ".github/CONTRIBUTING.md")
OF_USERS = re.compile(
    r"^(application/|tensorflow/serving$|/|models?/\d|DIR/|my_|model\.py$|export\.py$|composite\.yaml$|shards\.yaml$|servingd\.yaml$|batching_params)|^\w+_params|^v1/"
)
"""What documents name that lies on a user's machine."""
ALL = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts}


def named_in(document: str) -> list[str]:
    text = (ROOT / document).read_text()
    return sorted({name for name in PATHS.findall(text) if not OF_USERS.search(name)})


@pytest.mark.parametrize(("document", "name"), [(d, n) for d in DOCUMENTS for n in named_in(d)])
def test_what_is_named_exists(document: str, name: str) -> None:
    if "/" not in name:
        assert name in ALL
        return
    places = [ROOT / name, ROOT / "servingd" / name, *ROOT.glob(f"servingd/**/{name}")]
    assert any(place.exists() for place in places)


@pytest.mark.parametrize("module", sorted(ROOT.glob("servingd/**/*.py")), ids=lambda p: p.stem)
def test_modules_that_docstrings_name_exist(module: Path) -> None:
    for name in re.findall(r"`((?:[\w-]+/)*[\w-]+\.py)`", module.read_text()):
        near = [*module.parent.rglob(name.rpartition("/")[2]), *ROOT.glob(f"servingd/**/{name}")]
        assert near or (ROOT / name).exists(), f"{module.relative_to(ROOT)} names {name}"


def test_paths_are_found() -> None:
    assert len(named_in("servingd/DESIGN.md")) > 50
