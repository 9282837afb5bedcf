"""The files in README are whole, and mean what it says."""

import re
from pathlib import Path

from servingd.servables.assembled.composite.graph import CascadeStep
from servingd.servables.assembled.composite.graph import parse as parse_composite
from servingd.servables.assembled.sharded.layout import parse as parse_shards

README = (Path(__file__).parents[4] / "README.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", README, re.S)


def block(first: str) -> bytes:
    (found,) = (each for each in BLOCKS if each.startswith(first))
    return found.encode()


def test_the_composite():
    graph = parse_composite(block("steps:"))
    assert graph.inputs == ("image",)
    assert isinstance(graph.steps["best"], CascadeStep)
    assert set(graph.outputs) == {"scores", "blend"}


def test_the_shards():
    layout = parse_shards(block("key:"))
    assert [len(shard) for shard in layout.shards] == [2, 1]
    assert layout.shards[0][1].server == "other:8500"
    assert layout.fails
