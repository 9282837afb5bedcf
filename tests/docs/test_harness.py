"""The harness itself: what it takes for right, and that it finds what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of, commands_of
from tests.docs.places import Places, agrees, occur_in_order
from tests.docs.running import NotAsShown, Page


def run(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text)
    return Page(page, tmp_path / "folder", tmp_path / "cache").run()


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
        (["a ... c"], ["a b c"], True),
        (["a ... c"], ["a b d"], False),
        (["...", "b"], ["x", "y", "b"], True),
        (["...", "b"], ["x", "y"], False),
        (["a", "..."], ["a"], True),
        (["1.5..."], ["1x5"], False),
    ],
)
def test_three_dots_stand_for_what_varies(shown, printed, same):
    assert agrees(shown, printed) is same


def test_lines_of_a_log_come_in_order():
    log = ["one", "noise", "two"]
    assert occur_in_order(["one", "two"], log)
    assert not occur_in_order(["two", "one"], log)


def test_ports_and_folders_are_a_pages_own(tmp_path):
    places = Places(tmp_path, iter([20_001, 20_002]).__next__)
    here = places.here("curl localhost:8501/v1/models/m --port=8500 /models/m 8501")
    assert here == f"curl localhost:20001/v1/models/m --port=20002 {tmp_path}/models/m 8501"
    assert places.as_on_the_page(f"at 20001 in {tmp_path}/models/m") == "at 8501 in /models/m"


def test_a_console_is_commands_with_what_they_print(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ one \\\n    more\n1\n$ two\n```\n")
    (block,) = blocks_of(page)
    first, second = commands_of(block)
    assert (first.text, first.shown) == ("one \\\n    more", ["1"])
    assert (second.text, second.shown) == ("two", [])


def test_a_block_without_an_end_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\nls\n")
    with pytest.raises(ValueError, match=r"page\.md:1"):
        blocks_of(page)


def test_blocks_run_in_order_in_one_folder(tmp_path):
    folder = run(
        tmp_path,
        '```text title="/models/m/1/table.csv"\na,b\n```\n'
        "```bash\ncat /models/m/1/table.csv > copy\n```\n"
        "```python\nprint(open('copy').read().strip())\n```\n```text\na,b\n```\n"
        "<!-- ends with 3 -->\n```bash\nexit 3\n```\n"
        "<!-- not run: it would fail -->\n```bash\nfalse\n```\n",
    )
    assert (folder / "copy").read_text() == "a,b\n"


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ echo one\ntwo\n```\n",
        "```bash\necho one\n```\n```text\ntwo\n```\n",
        "```bash\nfalse\ntrue\n```\n",
        "<!-- ends with 3 -->\n```bash\ntrue\n```\n",
        "```python\nprint(1)\n```\n```text\n2\n```\n",
        "```python\nraise ValueError\n```\n",
    ],
)
def test_what_is_not_as_shown_fails(tmp_path, text):
    with pytest.raises(NotAsShown, match=r"page\.md:\d"):
        run(tmp_path, text)
