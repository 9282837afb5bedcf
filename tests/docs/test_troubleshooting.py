"""Every error of a start, a load or a configuration leads to a paragraph of the page."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import GUIDES, blocks_of
from tests.docs.messages import Message, messages, own_letters
from tests.docs.places import line_agrees

PATTERNS = tuple(
    line
    for block in blocks_of(GUIDES / "troubleshooting.md")
    if block.note == "messages"
    for line in block.text.splitlines()
)
MESSAGES = messages()


def leads_to(pattern: str, message: Message) -> bool:
    """Whether a pattern is a message's, and does not fit by its `...` alone."""
    enough = own_letters(pattern) >= own_letters(message.template) / 2
    return enough and line_agrees(pattern, message.template)


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 200


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: f"{m.file}:{m.line}")
def test_a_message_leads_to_a_paragraph(message: Message) -> None:
    assert any(leads_to(pattern, message) for pattern in PATTERNS), (
        f"no paragraph of troubleshooting.md has {message}"
    )


@pytest.mark.parametrize("pattern", sorted(set(PATTERNS)))
def test_a_pattern_is_of_a_message(pattern: str) -> None:
    """Nothing is explained that the program does not say any more."""
    assert re.search(r"[a-z]{2,}", pattern)
    assert any(leads_to(pattern, message) for message in MESSAGES)
