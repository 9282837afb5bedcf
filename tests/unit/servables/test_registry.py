"""Servable types are imported when they are needed, and not before."""

import subprocess
import sys

import pytest

from servingd.core.servable import Platform
from servingd.errors import InvalidArgument
from servingd.servables.lookup_table.platform import LookupTablePlatform
from servingd.servables.registry import TYPES, Platforms

USE_LOOKUP_TABLES = """
import sys
import servingd.server
from servingd.servables.lookup_table.platform import LookupTablePlatform
from servingd.servables.registry import Platforms

platforms = Platforms()
platforms.prepare()
assert platforms["lookup_table"].name == "lookup_table"
assert platforms.devices.known == () and platforms.devices.in_use() == {}
platforms.stop()
OTHERS = ("saved_model", "onnx", "keras", "sklearn")
print([m for m in sys.modules if m.startswith(tuple(f"servingd.servables.{o}" for o in OTHERS))])
HEAVY = "tensorflow keras onnxruntime onnx sklearn skops joblib pandas pyarrow h5py"
print([m for m in HEAVY.split() if m in sys.modules])
from servingd.sources.listing import DiskListing
assert platforms.recognise(DiskListing("/nowhere")) is None  # all types are asked
print([m for m in HEAVY.split() if m in sys.modules])
"""


def test_a_server_of_lookup_tables_imports_nothing_of_other_types():
    done = subprocess.run(
        [sys.executable, "-c", USE_LOOKUP_TABLES], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n[]\n[]\n"


@pytest.mark.parametrize("name", TYPES)
def test_each_type_is_called_as_the_table_says_and_made_once(name):
    platforms = Platforms()
    platform: Platform = platforms[name]
    assert platform.name == name
    assert platforms[name] is platform
    platforms.stop()


def test_a_type_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(InvalidArgument, match=r"'none'; known: .*lookup_table.*tensorflow"):
        Platforms()["none"]


def test_a_type_that_is_first_needed_after_the_end_is_stopped_at_once(monkeypatch):
    platforms, stopped = Platforms(), []

    def stop(platform: LookupTablePlatform) -> None:
        stopped.append(platform)

    monkeypatch.setattr(LookupTablePlatform, "stop", stop)
    platforms.stop()
    assert stopped == []
    late = platforms["lookup_table"]
    assert stopped == [late]
