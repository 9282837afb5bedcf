"""Every block is run, or says why not; and what is not run is checked as far as that goes."""

from __future__ import annotations

import functools
import json
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml
from typer.main import get_command

from servingd.cli.commands import app
from servingd.config.flags.parser import FLAGS
from servingd.config.yaml.document import read_servingd_yaml
from servingd.servables.assembled.composite.graph import parse as parse_composite
from servingd.servables.assembled.sharded.layout import parse as parse_shards
from tests.docs.blocks import ROOT, SHELL, Block, blocks_of, pages

BLOCKS = [block for page in pages() for block in blocks_of(page)]
SHOWN = frozenset({"text", "json"})
"""Languages of what a command prints, or of a file with a title."""
TARGETS = ("make run\n", "make test\n")
"""The two commands that README names; the project's own checks run them."""
LANGUAGES = frozenset({"python", "yaml", "proto", *SHELL, *SHOWN})
COMMAND = re.compile(
    r"(?:^|(?<=[\s;|&(`\"']))(servingd|tensorflow_model_server)((?: +[^\n;|&`)#]+)?)", re.M
)

place = functools.partial(pytest.mark.parametrize, "block", ids=lambda block: block.place)


@place([b for b in BLOCKS if not b.title])
def test_a_block_is_run_or_compared_or_has_a_reason(block: Block) -> None:
    if block.text in TARGETS:
        return
    assert block.language in LANGUAGES, "a block needs a language that the tests know"
    if block.language in SHOWN:
        before = BLOCKS[BLOCKS.index(block) - 1]
        runs = before.language in (*SHELL, "python") and before.page == block.page
        assert runs or block.note == "messages" or block.reason_not_to_run


@place([b for b in BLOCKS if b.note.startswith("not run")])
def test_a_reason_says_something(block: Block) -> None:
    assert len(block.reason_not_to_run.split()) >= 2
    elsewhere = re.search(r"tests/\S+\.py", block.reason_not_to_run)
    assert block.language in (*SHELL, "yaml") or elsewhere, "what needs nothing is run"
    assert not elsewhere or (ROOT / elsewhere[0]).exists()


def test_few_are_not_run() -> None:
    commands = [b for b in BLOCKS if b.language in SHELL or b.language == "python"]
    assert len([b for b in commands if b.reason_not_to_run]) < len(commands) / 6


@place([b for b in BLOCKS if b.is_commands and b.reason_not_to_run])
def test_what_is_not_run_is_bash(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=10)


@place([b for b in BLOCKS if b.language == "json" and b.title])
def test_json_parses(block: Block) -> None:
    json.loads(block.text)


@place([b for b in BLOCKS if b.language == "yaml"])
def test_yaml_is_what_it_says(block: Block, tmp_path) -> None:
    if block.text.startswith("steps:"):
        assert parse_composite(block.text.encode()).outputs
        return
    if block.text.startswith("key:"):
        assert parse_shards(block.text.encode()).shards
        return
    documents = list(yaml.safe_load_all(block.text))
    if not block.reason_not_to_run:
        file = tmp_path / "servingd.yaml"
        file.write_text(block.text)
        assert read_servingd_yaml(str(file)).models
    for arguments in _arguments(documents):
        for flag in arguments:
            assert flag.removeprefix("--").partition("=")[0] in FLAGS


def _arguments(node: object) -> list[list[str]]:
    """The lists of flags in a Deployment or a Compose file."""
    if isinstance(node, dict):
        return [found for value in node.values() for found in _arguments(value)]
    if isinstance(node, list):
        flags = [text for text in node if isinstance(text, str) and text.startswith("--")]
        return [flags, *(found for value in node for found in _arguments(value))]
    return []


TAKE_FLAGS = ("validate", "doctor")
"""Commands that are given what `serve` is given."""


def test_extras_that_are_installed_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for page in pages():
        assert set(re.findall(r"servingd\[(\w+)\]", page.read_text())) <= extras.keys()


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """The options of a command of servingd's; all flags for what starts a server."""
    if command in ("tensorflow_model_server", "serve"):
        return frozenset(FLAGS) | {"help"}
    found = get_command(app)
    for word in command.split():
        assert word in found.commands, f"there is no command {command}"
        found = found.commands[word]
    names = (option for parameter in found.params for option in parameter.opts)
    options = {name.removeprefix("--") for name in names if name.startswith("--")} | {"help"}
    return frozenset(options | FLAGS.keys() if command in TAKE_FLAGS else options)


def _all_options(command: object) -> set[str]:
    """The options of a command and of those below it."""
    names = {option.removeprefix("--") for p in command.params for option in p.opts}
    below = getattr(command, "commands", {}).values()
    return names.union(*(_all_options(each) for each in below))


ALL_OPTIONS = _all_options(get_command(app))


def _commands() -> list[tuple[str, str]]:
    """Every command line of servingd's in blocks and in the text, with its place."""
    found = []
    for page in pages():
        spans = [
            (b.place, b.text.replace("\\\n", " ")) for b in blocks_of(page) if b.language in SHELL
        ]
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        spans += [(page.name, span) for span in re.findall(r"`([^`\n]+)`", text)]
        for where, span in spans:
            for program, rest in COMMAND.findall(span):
                if rest.lstrip()[:1].isalpha() or (rest and program != "servingd"):
                    found.append((where, f"{program}{rest}".strip()))
    return sorted(set(found))


@pytest.mark.parametrize(("where", "line"), _commands())
def test_a_command_exists_with_its_options(where: str, line: str) -> None:
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    options = {w.removeprefix("--").partition("=")[0] for w in words if w.startswith("--")}
    while words[0] == "servingd":  # a container's entry point, then the image's name
        words = words[1:]
    command = words[0] if words[0] == "tensorflow_model_server" else _command(words)
    assert options <= options_of(command), f"{where}: {line}"


GROUPS = ("models", "labels", "workers", "warmup", "import")


def _command(words: list[str]) -> str:
    grouped = words[0] in GROUPS and len(words) > 1 and words[1].isalpha()
    return " ".join(words[:2]) if grouped else words[0]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_flags_in_the_text_are_there(page) -> None:
    """A name with an underscore is one of ours."""
    named = set(re.findall(r"(?<![\w-])--([a-z]+_[a-z_]+)", page.read_text()))
    assert named <= FLAGS.keys() | ALL_OPTIONS
