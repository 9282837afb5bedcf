"""The site builds without warnings and without a network; links and the reference are right."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from servingd.frontends.oip.rest import _ROUTES
from servingd.frontends.tfs.rest.routes import route
from tests.docs.blocks import GUIDES, ROOT, pages

REFERENCE = GUIDES / "reference"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([\w-]+))?\)")


def test_the_site_builds(tmp_path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    result = subprocess.run(
        [
            *command,
            f"--config-file={ROOT / 'docs' / 'mkdocs.yml'}",
            f"--site-dir={tmp_path / 'site'}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)", page)
    assert fetched == [], "the site asks the network for nothing"


def test_every_page_is_in_the_contents() -> None:
    text = (ROOT / "docs" / "mkdocs.yml").read_text()
    named = set(re.findall(r"[\w/-]+\.md", text))
    assert named == {str(page.relative_to(GUIDES)) for page in GUIDES.rglob("*.md")}
    assert yaml.safe_load(text)["strict"]


@pytest.mark.parametrize(("link", "anchor"), LINK.findall((ROOT / "README.md").read_text()))
def test_readmes_links_lead_somewhere(link: str, anchor: str) -> None:
    if link.startswith("https://"):
        return
    page = ROOT / link
    assert page.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
        assert anchor in {
            re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings
        }


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["commands.md", "configuration.md", "routes.md", "metrics.md"])
def test_the_reference_is_fresh(name: str) -> None:
    assert (REFERENCE / name).read_text() == made()[name], "run python docs/generate.py"


def test_routes_of_the_reference_are_routes() -> None:
    oip = set(_ROUTES)
    for method, shown, _ in runpy.run_path(str(ROOT / "docs" / "generate.py"))["HTTP_ROUTES"]:
        path = shown.replace("/versions/N:", "/versions/7:")
        if path.startswith("/v1/"):
            assert route(method, path).error is None, path
        if path.startswith("/v2"):
            found = [r for r in _ROUTES if r.method == method and r.pattern.fullmatch(path[3:])]
            assert found, path
            oip -= set(found)
    assert not oip, "the reference has every route of the Open Inference Protocol"


def test_metrics_that_guides_name_are_there() -> None:
    known = set(re.findall(r"`([\w:]+)`", (REFERENCE / "metrics.md").read_text()))
    for page in pages():
        for name in set(re.findall(r"\b(servingd_[a-z_]+[a-z])\b", page.read_text())):
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            files = ("servingd_config_file", "servingd_cache")
            assert {name, family} & known or name in files, f"{page.name}: {name}"


_MADE: dict[str, str] = {}


def made() -> dict[str, str]:
    """The pages of the reference as they would be made now."""
    if not _MADE:
        _MADE.update(runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]())
    return _MADE


def test_paths_are_of_this_project() -> None:
    assert Path(ROOT, "docs", "mkdocs.yml").exists()
