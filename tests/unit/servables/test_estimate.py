"""What a SavedModel will take, told from the sizes of its files."""

from pathlib import Path

import pytest

from servingd.config.saved_model import MAP_FROM_BYTES, SavedModelOptions
from servingd.core.resources.footprints import NOTHING
from servingd.servables.saved_model.files import estimate as estimates
from servingd.servables.saved_model.files.estimate import child_bytes, estimate
from servingd.servables.saved_model.files.weights import MAX_WEIGHT_BYTES

MB = 1 << 20


@pytest.fixture
def version(tmp_path: Path):
    """`version(file=bytes)`, with files that take no place on the disk."""

    def make(**sizes):
        for name, size in sizes.items():
            file = (
                tmp_path
                / {
                    "graph": "saved_model.pb",
                    "weights": "variables/variables.data-00000-of-00002",
                    "more_weights": "variables/variables.data-00001-of-00002",
                    "table": "assets/deep/table.txt",
                    "warm_up": "assets.extra/tf_serving_warmup_requests",
                }[name]
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                out.truncate(size)
        return str(tmp_path)

    return make


def mode(name):
    return SavedModelOptions(optimize_models=name)


def test_shards_tables_and_the_graph_count_and_recorded_requests_do_not(version):
    plain = mode("off")
    base = estimate(version(graph=0), plain).steady.replica
    assert base == 0
    sizes = [
        estimate(version(weights=10 * MB), plain).steady.replica,
        estimate(version(more_weights=10 * MB), plain).steady.replica,
        estimate(version(table=MB), plain).steady.replica,
        estimate(version(graph=MB), plain).steady.replica,
    ]
    assert sizes == [11 * MB, 22 * MB, 26 * MB, 74 * MB]
    assert estimate(version(warm_up=99 * MB), plain).steady.replica == 74 * MB


def test_constants_count_like_weights_and_not_like_nodes(version):
    path = Path(version(graph=0))
    size = 20 * MB
    node = b"\x2a" + _length(size) + bytes(size)
    graph = b"\x0a" + _length(len(node)) + node
    meta_graph = b"\x12" + _length(len(graph)) + graph
    (path / "saved_model.pb").write_bytes(b"\x12" + _length(len(meta_graph)) + meta_graph)
    found = estimate(str(path), mode("off"))
    assert 7 * size <= found.steady.replica < 7 * size + MB
    assert 14 * size <= found.peak.replica < 14 * size + MB


def _length(size: int) -> bytes:
    groups = []
    while size > 127:
        groups.append(size & 127 | 128)
        size >>= 7
    return bytes((*groups, size))


def test_a_plain_model_holds_its_weights_and_does_not_grow(version):
    found = estimate(version(weights=100 * MB), mode("off"))
    assert found.least.replica < found.steady.replica < found.peak.replica
    assert (found.growth, found.grown) == (NOTHING, NOTHING)
    assert found.on_devices
    assert found.measurable


def test_one_that_is_optimised_later_grows(version):
    found = estimate(version(weights=100 * MB), mode("background"))
    assert found.steady == estimate(version(), mode("off")).steady
    assert found.steady.replica < found.grown.replica < found.growth.replica


def test_one_that_waits_for_its_optimised_graph_takes_no_more(version):
    later = estimate(version(weights=100 * MB), mode("background"))
    assert estimate(version(), mode("wait")) == later


@pytest.mark.parametrize("sizes", [{"graph": MB}, {"weights": 200 * MB}, {"graph": 4 * MB}])
def test_what_the_child_may_take_is_reserved(version, sizes):
    path = version(**sizes)
    needed = child_bytes(path)
    assert needed <= estimate(path, mode("background")).growth.replica
    assert needed > 500 * MB + 21 * sizes.get("weights", 0)


@pytest.mark.parametrize("name", ["background", "wait"])
def test_one_that_is_too_large_for_it_stays_plain(version, name):
    path = version(weights=MAX_WEIGHT_BYTES + 1)
    assert estimate(path, mode(name)) == estimate(path, mode("off"))


@pytest.mark.parametrize(
    ("maps", "child", "shared", "replica"), [(0, 4, 0, 1.1), (MAP_FROM_BYTES, 2.5, 1, 0)]
)
def test_large_variables_that_stay_count_once(version, monkeypatch, maps, child, shared, replica):
    """Those that are mapped count once for all replicas."""
    weights, kept = 2 * MAX_WEIGHT_BYTES, 2 * MAX_WEIGHT_BYTES - 10 * MB
    options = SavedModelOptions(map_from_bytes=maps)
    monkeypatch.setattr(estimates, "kept_bytes", lambda path: kept)
    path = version(graph=MB, weights=weights)
    large, needed = estimate(path, options), child_bytes(path, maps > 0)
    monkeypatch.setattr(estimates, "kept_bytes", lambda path: 0)
    small = estimate(version(weights=weights - kept), options)
    assert large.growth.replica == needed == small.growth.replica + round(child * kept)
    assert large.grown.shared == small.grown.shared + shared * kept
    assert large.grown.replica == small.grown.replica + round(replica * kept)


def test_a_large_table_takes_no_more_once_it_is_mapped_than_its_load_does(version, monkeypatch):
    """So it may start on a kept graph without room for the child that makes one."""
    monkeypatch.setattr(estimates, "kept_bytes", lambda path: 1000 * MB)
    found = estimate(version(graph=MB, weights=1001 * MB), mode("background"))
    grown, peak = found.grown, found.peak
    assert grown.shared + grown.replica <= peak.shared + peak.replica


def test_what_is_not_there_takes_nothing(tmp_path):
    assert estimate(str(tmp_path / "gone"), mode("background")).growth == NOTHING


@pytest.mark.parametrize("name", ["off", "background", "wait"])
def test_an_accelerator_holds_the_plain_weights_and_nothing_of_the_graph(version, name):
    there = estimate(version(graph=MB, weights=10 * MB), mode(name))
    assert there.steady.on_accelerator == there.peak.on_accelerator == 75 * MB
    assert not there.growth.on_accelerator
    assert there.least.on_accelerator == 5 * MB
