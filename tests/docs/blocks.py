"""What stands in a page: its fenced blocks in order, each with the comment before it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
GENERATED = GUIDES / "reference"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_COMMENT = re.compile(r"^ *<!-- *(?P<text>.*?) *-->$")
_TITLE = re.compile(r'title="([^"]+)"')
_CONTINUED = re.compile(r"\\$")

SHELL = frozenset({"bash", "console"})
SERVERS = re.compile(r"^(?:servingd serve|tensorflow_model_server)\b")
"""Commands that run until they are ended: a reader gives them a terminal of their own."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `line` is that of its fence, `note` the comment before it."""

    page: Path
    line: int
    language: str
    title: str
    text: str
    note: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def reason_not_to_run(self) -> str:
        """Why the block is only checked; empty if it is run."""
        return (
            self.note.removeprefix("not run:").strip() if self.note.startswith("not run:") else ""
        )

    @property
    def exit_status(self) -> int:
        """With what its last command ends: `<!-- ends with 255 -->`."""
        found = re.fullmatch(r"ends with (\d+)", self.note)
        return int(found[1]) if found else 0

    @property
    def is_commands(self) -> bool:
        return self.language in SHELL and not self.title


@dataclass(slots=True)
class Command:
    """What one types, and the lines that are shown below it (None: nothing is said of them)."""

    text: str
    shown: list[str] | None = None

    @property
    def installs(self) -> bool:
        """What a page installs is there when its blocks are run."""
        return self.text.startswith("pip install ")

    @property
    def is_server(self) -> bool:
        return bool(SERVERS.match(self.text)) and not self.text.rstrip().endswith("&")


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order. Raises ValueError where a fence is not closed."""
    found: list[Block] = []
    note, opened = "", None
    body: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, body = (number, fence["indent"], fence["info"]), []
        elif opened is not None and fence and not fence["info"]:
            at, indent, info = opened
            text = "".join(f"{row.removeprefix(indent)}\n" for row in body)
            title = _TITLE.search(info)
            language = info.split()[0] if info.split() else ""
            found.append(Block(page, at, language, title[1] if title else "", text, note))
            opened, note = None, ""
        elif opened is not None:
            body.append(line)
        elif comment := _COMMENT.match(line):
            note = comment["text"]
        elif line.strip():
            note = ""
    if opened is not None:
        raise ValueError(f"{page.name}:{opened[0]}: the block has no end")
    return found


def used_page(page: Path) -> Path | None:
    """The page whose files this one goes on with: `<!-- uses: quick-start.md -->`."""
    found = re.search(r"<!-- uses: (\S+) -->", page.read_text())
    return page.parent / found[1] if found else None


def commands_of(block: Block) -> list[Command]:
    """The commands of a block: all of it, or what follows each `$ ` of a console."""
    if block.language == "bash":
        return [Command(text) for text in _whole_commands(block.text.splitlines())]
    commands: list[Command] = []
    continued = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:], []))
        elif continued or line.startswith("> "):
            commands[-1].text += "\n" + line.removeprefix("> ")
        elif commands and commands[-1].shown is not None:
            commands[-1].shown.append(line)
        else:
            raise ValueError(f"{block.place}: a console begins with '$ '")
        continued = bool(_CONTINUED.search(line)) and not (commands[-1].shown or [])
    return commands


def _whole_commands(lines: list[str]) -> list[str]:
    """Lines put together where a backslash, a quote or a here-document goes on."""
    whole: list[str] = []
    rest: list[str] = []
    until = ""
    for line in lines:
        rest.append(line)
        if until:
            until = "" if line == until else until
        elif found := re.search(r"<<-?'?(\w+)'?", line):
            until = found[1]
        text = "\n".join(rest)
        if until or _CONTINUED.search(line) or text.count("'") % 2:
            continue
        if text.strip() and not text.lstrip().startswith("#"):
            whole.append(text)
        rest = []
    if rest:
        whole.append("\n".join(rest))
    return whole


def pages() -> list[Path]:
    """All pages whose blocks are run: README, and the guides that people wrote."""
    guides = sorted(page for page in GUIDES.rglob("*.md") if GENERATED not in page.parents)
    return [ROOT / "README.md", *guides]
