"""What commands print comes out letter for letter."""

from __future__ import annotations

import pytest

from servingd.cli.output import print_error, print_line, print_table

NAMES = ("a:b:c", ":fire:", "[red]x[/red]", "\\[/x]", "[/x]", "\\", "a\\", "[", "[link=x]y[/link]")


@pytest.mark.parametrize("name", NAMES)
def test_names_come_out_letter_for_letter(capsys: pytest.CaptureFixture[str], name: str) -> None:
    print_line(name, style="green")
    assert capsys.readouterr().out == f"{name}\n"
    print_error(name, name)
    assert capsys.readouterr().err == f"Error: {name}\n{name}\n"
    print_table((f"column {name}",), [(f"cell {name}",)], title=f"title {name}")
    lines = {line.strip() for line in capsys.readouterr().out.splitlines()}
    assert {f"column {name}", f"cell {name}", f"title {name}"} <= lines


def test_a_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\x1b[31m\rb\udc80\nc")
    assert capsys.readouterr().out == "a\\x1b[31m\\rb\\udc80\nc\n"
    print_table(("\x07",), [("\x1b]0;x",)], title="\x08")
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("\\x07", "\\x1b]0;x", "\\x08"))
