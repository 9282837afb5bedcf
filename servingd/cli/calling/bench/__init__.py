"""The command `bench`: load, its figures, and what they look like.

Here: closed and open loops (`load.py`), percentiles (`figures.py`), tables and plots (`show.py`),
and the command (`command.py`). Not here: the project's own benchmarks (`tests/bench`).
"""

from servingd.cli.calling.bench.command import bench

__all__ = ["bench"]
