"""What every servable type keeps: one contract, run on each type that is registered."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ServableId, Signature, Tensors, VersionData
from servingd.errors import Code, ServingError
from servingd.servables.registry import Platforms
from servingd.sources.listing import DiskListing

pytestmark = pytest.mark.tf

ID = ServableId("m", 3)


def options(**given: Any) -> SavedModelOptions:
    return SavedModelOptions(optimize_models="off", **given)


PLAIN = options()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One type: a version of it, and what the version answers."""

    make: Callable[[Path, Path], object]
    """Puts a version at a path; the other path is that of the exports."""

    needed: tuple[str, ...]
    """The files without which, whole, a version is not complete."""

    question: Callable[[int], tuple[Tensors, Tensors]]
    """Inputs of `serving_default`, different for each number, and the outputs they must give."""

    bad_question: Tensors | None
    """Inputs of the right names that cannot be computed; None if there are none."""

    damage: Mapping[str, Code]
    """Contents of the first needed file, by the way they are wrong, and what loading says then."""

    platform: str = ""
    """The type's name, if the case has another one: a second way to serve the same type."""

    options: SavedModelOptions = PLAIN

    exports: str = "models"
    """The fixture with the folder that `make` is given."""


def text(*values: str) -> np.ndarray:
    return np.array([value.encode() for value in values], object)


def half_plus_two(n: int) -> tuple[Tensors, Tensors]:
    x = np.arange(n, n + 3, dtype=np.float32)
    return {"x": x}, {"y": x / 2 + 2}


def look_up(n: int) -> tuple[Tensors, Tensors]:
    known = n % 3
    return {"keys": text(str(known), "none")}, {"values": text(("a", "b", "c")[known], "")}


def write_table(path: Path, exports: Path) -> None:
    path.mkdir(parents=True)
    (path / "table.csv").write_text("0,a\n1,b\n2,c\n")


CASES = {
    "tensorflow": Case(
        make=lambda path, exports: shutil.copytree(exports / "half_plus_two", path),
        needed=(
            "saved_model.pb",
            "variables/variables.index",
            "variables/variables.data-00000-of-00001",
        ),
        question=half_plus_two,
        bad_question={"x": np.array(["one"], object)},
        damage={"": Code.NOT_FOUND, "\xff\xff garbage": Code.DATA_LOSS},
    ),
    "TF Lite": Case(
        make=lambda path, exports: shutil.copytree(exports / "tflite", path),
        needed=("model.tflite",),
        question=half_plus_two,
        bad_question={"x": np.array(["one"], object)},
        damage={"": Code.DATA_LOSS, "\xff\xff garbage": Code.DATA_LOSS},
        platform="tensorflow",
        options=options(prefer_tflite_model=True, num_tflite_pools=2),
        exports="tflite_models",
    ),
    "lookup_table": Case(
        make=write_table,
        needed=("table.csv",),
        question=look_up,
        bad_question=None,
        damage={"one\n": Code.INVALID_ARGUMENT, '"a"b,c\n': Code.INVALID_ARGUMENT},
    ),
}


class Outcome:
    """A completion that counts."""

    deadline = None

    def __init__(self) -> None:
        self.answers: list[Tensors | ServingError] = []
        self.over = threading.Event()

    def alive(self) -> bool:
        return True

    def succeed(self, outputs: Tensors) -> None:
        self.answers.append(outputs)
        self.over.set()

    def fail(self, error: ServingError) -> None:
        self.answers.append(error)
        self.over.set()


@pytest.fixture
def platforms(case: Case):
    made = Platforms(case.options)
    yield made
    made.stop()


@pytest.fixture(params=sorted({*Platforms().names, *CASES}))
def case(request) -> Case:
    assert request.param in CASES, "a servable type has no case in this test"
    return dataclasses.replace(
        CASES[request.param], platform=CASES[request.param].platform or request.param
    )


@pytest.fixture
def name(case: Case) -> str:
    return case.platform


@pytest.fixture
def version(case: Case, request, tmp_path: Path) -> Path:
    case.make(tmp_path / "m" / "3", request.getfixturevalue(case.exports))
    return tmp_path / "m" / "3"


@pytest.fixture
def loader(platforms: Platforms, name: str, version: Path):
    return platforms[name].loader(ID, VersionData(str(version), name))


@pytest.fixture
def servable(loader):
    made = loader.load()
    yield made
    loader.unload(made)


def run(servable: Any, signature: Signature, inputs: Tensors) -> Tensors:
    outcome = Outcome()
    servable.run(signature, inputs, outcome)
    assert outcome.over.wait(10)
    (answer,) = outcome.answers
    assert not isinstance(answer, ServingError), answer
    return answer


def assert_right(answer: Tensors, wanted: Tensors) -> None:
    assert answer.keys() == wanted.keys()
    for alias, array in wanted.items():
        np.testing.assert_array_equal(answer[alias], array)


# On disk ----------------------------------------------------------------------------------------


def test_a_complete_version_is_recognised_and_lacks_nothing(platforms, name, version):
    listing = DiskListing(str(version))
    assert platforms.recognise(listing) == name
    assert platforms[name].missing(listing) is None


def test_a_version_without_one_of_its_files_is_incomplete(platforms, name, case, version):
    for file in case.needed:
        whole = (version / file).read_bytes()
        (version / file).unlink()
        assert platforms[name].missing(DiskListing(str(version))), file
        (version / file).write_bytes(whole)
    assert platforms[name].missing(DiskListing(str(version))) is None


def test_a_version_with_a_file_cut_short_is_incomplete(platforms, name, case, version):
    for file in case.needed:
        whole = (version / file).read_bytes()
        for length in {0, 1, len(whole) // 2, len(whole) - 1}:
            (version / file).write_bytes(whole[:length])
            assert platforms[name].missing(DiskListing(str(version))), (file, length)
        (version / file).write_bytes(whole)


# Loaded -----------------------------------------------------------------------------------------


def test_signatures_are_constant_and_shown(servable, case):
    signatures, metadata = servable.signatures, servable.metadata
    before = dict(signatures)
    run(servable, signatures["serving_default"], case.question(1)[0])
    assert servable.signatures is signatures
    assert dict(signatures) == before
    assert all(metadata[name] is signature for name, signature in signatures.items())
    assert all(name == signature.name for name, signature in signatures.items())


def test_a_run_completes_once_with_all_outputs(servable, case):
    signature = servable.signatures["serving_default"]
    inputs, wanted = case.question(5)
    assert inputs.keys() == signature.inputs.keys()
    answer = run(servable, signature, inputs)
    assert answer.keys() == signature.outputs.keys()
    assert_right(answer, wanted)


def test_many_threads_at_once_each_get_their_own_answer(servable, case):
    signature = servable.signatures["serving_default"]
    together = threading.Barrier(8)

    def ask(thread: int) -> None:
        together.wait(10)
        for n in range(thread, 800, 8):
            inputs, wanted = case.question(n)
            assert_right(run(servable, signature, inputs), wanted)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


def test_what_cannot_be_computed_is_a_serving_error_and_harms_nobody(servable, case):
    signature = servable.signatures["serving_default"]
    if case.bad_question is not None:
        outcome = Outcome()
        try:
            servable.run(signature, case.bad_question, outcome)
        except ServingError as error:
            assert not outcome.answers
            outcome.fail(error)
        assert outcome.over.wait(10)
        (error,) = outcome.answers
        assert isinstance(error, ServingError)
        assert error.code is Code.INVALID_ARGUMENT
        assert "[[" not in error.message, "TensorFlow's own words for its developers"
    inputs, wanted = case.question(2)
    assert_right(run(servable, signature, inputs), wanted)


def test_outputs_outlive_the_servable(loader, case):
    servable = loader.load()
    inputs, wanted = case.question(7)
    answer = run(servable, servable.signatures["serving_default"], inputs)
    loader.unload(servable)
    del servable
    gc.collect()
    assert_right(answer, wanted)


# Unloaded ---------------------------------------------------------------------------------------


def test_nothing_is_left_of_what_was_unloaded(platforms, name, case, version):
    def cycle() -> weakref.ref:
        loader = platforms[name].loader(ID, VersionData(str(version), name))
        servable = loader.load()
        run(servable, servable.signatures["serving_default"], case.question(1)[0])
        loader.unload(servable)
        return weakref.ref(servable)

    cycle()  # what a first load makes for all is made
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    gone = [cycle() for _ in range(3)]
    assert [ref() for ref in gone] == [None] * 3
    assert len(os.listdir("/proc/self/fd")) <= files
    assert threading.active_count() <= threads


def test_a_version_whose_files_went_after_the_load_still_answers(servable, case, version):
    shutil.rmtree(version)
    inputs, wanted = case.question(4)
    assert_right(run(servable, servable.signatures["serving_default"], inputs), wanted)


# Failing ----------------------------------------------------------------------------------------


def test_a_damaged_version_fails_with_its_code_and_loads_once_it_is_mended(loader, case, version):
    file = version / case.needed[0]
    whole = file.read_bytes()
    for content, code in case.damage.items():
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(ServingError) as caught:
            loader.load()
        assert (caught.value.code, bool(caught.value.message)) == (code, True)
    file.write_bytes(whole)
    servable = loader.load()
    inputs, wanted = case.question(4)
    assert_right(run(servable, servable.signatures["serving_default"], inputs), wanted)
    loader.unload(servable)


def test_a_version_that_went_before_the_load_is_not_found(loader, version):
    shutil.rmtree(version)
    with pytest.raises(ServingError) as caught:
        loader.load()
    assert caught.value.code is Code.NOT_FOUND
    assert str(version) in caught.value.message


def test_a_loader_works_on_after_its_platform_is_gone(name, case, version):
    platforms = Platforms(case.options)
    platform = platforms[name]
    loader = platform.loader(ID, VersionData(str(version), name))
    gone = weakref.ref(platform)
    del platforms, platform
    gc.collect()
    assert gone() is None
    servable = loader.load()
    inputs, wanted = case.question(6)
    assert_right(run(servable, servable.signatures["serving_default"], inputs), wanted)
    loader.unload(servable)
