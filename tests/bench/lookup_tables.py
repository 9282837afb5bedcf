"""Ten million rows of a lookup table: what they take, beside what a dict of the same takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Row

ROWS = 10_000_000
_TYPES = {"key": "string", "a": "int32", "b": "float32"}

_LOAD = """
import sys, time
from pathlib import Path
import numpy as np
import pyarrow.parquet
from servingd.servables.lookup_table.platform import LookupTableLoader

def memory(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024

before = memory("VmRSS")
loader = LookupTableLoader(sys.argv[1])
estimate = loader.estimate()
began = time.perf_counter()
table = loader.load()
seconds = time.perf_counter() - began
keys = np.array([b"user-%d" % (i * 7919 % 10_000_000) for i in range(1000)], object)

class Done:
    def succeed(self, outputs):
        self.outputs = outputs

done = Done()
took = []
for _ in range(20):
    began = time.perf_counter()
    table.run(table.signatures["serving_default"], {"key": keys}, done)
    took.append(time.perf_counter() - began)
assert [int(i) for i in done.outputs["a"]] == [i * 7919 % 10_000_000 for i in range(1000)]
print(seconds, memory("VmRSS") - before, memory("VmHWM") - before, table._table.nbytes,
      estimate.steady.shared, estimate.peak.shared, min(took) / 1000)
"""

_DICT = """
from pathlib import Path

def memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024

before = memory()
table = {b"user-%d" % i: (i, i / 7) for i in range(1_000_000)}
print((memory() - before) * 10)
"""


def run(folder: Path) -> Iterator[Row]:
    """Bytes over those of a dict; and what was held over what was estimated."""
    python_bytes = float(_answer(_DICT)[0])
    for kind, write in (("csv", _write_csv), ("parquet", _write_parquet)):
        version = folder / kind
        version.mkdir()
        write(version)
        found = map(float, _answer(_LOAD, str(version)))
        seconds, held, peak, told, steady, most, look_up = found
        print(
            f"{kind}: {ROWS:,} rows in {seconds:.1f} s; {told / ROWS:.0f} bytes a row, "
            f"{held / ROWS:.0f} as measured, {peak / ROWS:.0f} at the peak; estimated "
            f"{steady / ROWS:.0f} and {most / ROWS:.0f}; a key of a thousand {look_up * 1e6:.2f} us"
        )
        yield Row(f"{kind}: bytes of a table over a dict", held / python_bytes, at_most=0.35)
        yield Row(f"{kind}: bytes over those estimated", held / steady, at_most=1.05)
        yield Row(f"{kind}: bytes at the peak over those estimated", peak / most, at_most=1.05)


def _answer(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split()


def _write_csv(version: Path) -> None:
    (version / "schema.json").write_text(json.dumps({"key": "key", "columns": _TYPES}))
    with (version / "table.csv").open("w") as file:
        file.write("key,a,b\n")
        for start in range(0, ROWS, 100_000):
            lines = [f"user-{i},{i},{i / 7:.6g}\n" for i in range(start, start + 100_000)]
            file.write("".join(lines))


def _write_parquet(version: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = pa.schema([("key", pa.string()), ("a", pa.int32()), ("b", pa.float32())])
    with parquet.ParquetWriter(version / "table.parquet", kinds) as writer:
        for start in range(0, ROWS, 1_000_000):
            rows = range(start, start + 1_000_000)
            columns = [[f"user-{i}" for i in rows], rows, [i / 7 for i in rows]]
            arrays = [pa.array(c, k.type) for c, k in zip(columns, kinds, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=kinds))
