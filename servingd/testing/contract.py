"""The contract of servable types, as tests: subclass `ServableContract` and give it a case.

    from servingd.testing.contract import Case, ServableContract

    class TestUpper(ServableContract):
        @pytest.fixture
        def case(self):
            return Case(
                name="upper",
                platforms=lambda: Platforms(plugins=["my_package:UpperPlatform"]),
                make=write_version,
                needed=("upper.txt",),
                question=lambda n: ({"text": ...}, {"upper": ...}),
            )

A type that fails one of these tests can lose calls, serve half-copied versions, or leak.
"""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servingd.core.types import ServableId, Signature, Tensors, VersionData
from servingd.errors import Code, ServingError
from servingd.servables.registry import Platforms
from servingd.sources.listing import DiskListing

ID = ServableId("m", 3)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One type: a version of it, and what the version answers."""

    name: str
    """The type's name."""

    make: Callable[[Path], object]
    """Puts a version at a path."""

    needed: tuple[str, ...]
    """The files without which, whole, a version is not complete."""

    question: Callable[[int], tuple[Tensors, Tensors]]
    """Inputs of `signature`, different for each number, and the outputs they must give."""

    signature: str = "serving_default"
    """The signature that is called."""

    bad_question: Tensors | None = None
    """Inputs of the right names that cannot be computed; None if there are none."""

    damage: Mapping[bytes, Code] = field(default_factory=dict)
    """Contents of the first needed file, by the way they are wrong, and what loading says then."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The model's `platform_options`."""

    platforms: Callable[[], Platforms] = Platforms
    """Makes the table of types that has this one; for a type of one's own:
    `lambda: Platforms(plugins=["module:Class"])`."""

    tolerance: float = 0.0
    """The relative difference of numbers that is still equal."""

    cuts: Callable[[int], set[int]] = lambda length: {0, 1, length // 2, length - 1}
    """The lengths to which files are cut short, for a file's length."""


class Outcome:
    """A completion that keeps what it was given."""

    deadline = None

    def __init__(self) -> None:
        self.answers: list[Tensors | ServingError] = []
        self.over = threading.Event()

    def alive(self) -> bool:
        """Return True: somebody waits."""
        return True

    def succeed(self, outputs: Tensors) -> None:
        """Keep the outputs."""
        self.answers.append(outputs)
        self.over.set()

    def fail(self, error: ServingError) -> None:
        """Keep the error."""
        self.answers.append(error)
        self.over.set()


def run(servable: Any, signature: Signature, inputs: Tensors) -> Tensors:
    """Return the answer of one run; it must succeed within ten seconds."""
    outcome = Outcome()
    servable.run(signature, inputs, outcome)
    assert outcome.over.wait(10)
    (answer,) = outcome.answers
    assert not isinstance(answer, ServingError), answer
    return answer


class ServableContract:
    """What every servable type keeps. Subclasses have a fixture `case`, a `Case`."""

    @pytest.fixture
    def platforms(self, case: Case) -> Iterator[Platforms]:
        """The types that there are."""
        made = case.platforms()
        yield made
        made.stop()

    @pytest.fixture
    def version(self, case: Case, tmp_path: Path) -> Path:
        """A complete version."""
        path = tmp_path / "m" / "3"
        case.make(path)
        return path

    @pytest.fixture
    def data(self, case: Case, version: Path) -> VersionData:
        """The version as the server's source describes it."""
        return VersionData(str(version), case.name, "", case.options)

    @pytest.fixture
    def loader(self, platforms: Platforms, data: VersionData) -> Any:
        """A loader of the version."""
        return platforms.loader(ID, data)

    @pytest.fixture
    def servable(self, loader: Any) -> Iterator[Any]:
        """The version, loaded."""
        made = loader.load()
        yield made
        loader.unload(made)

    def assert_right(self, case: Case, answer: Tensors, wanted: Tensors) -> None:
        """Compare an answer with what it must be."""
        assert answer.keys() == wanted.keys()
        for alias, array in wanted.items():
            if case.tolerance and array.dtype.kind in "fc":
                np.testing.assert_allclose(answer[alias], array, rtol=case.tolerance)
            else:
                np.testing.assert_array_equal(answer[alias], array)

    # On disk --------------------------------------------------------------------------------------

    def test_a_complete_version_is_recognised_and_lacks_nothing(
        self, platforms: Platforms, case: Case, version: Path
    ) -> None:
        listing = DiskListing(str(version))
        assert platforms.recognise(listing) == case.name
        assert platforms[case.name].missing(listing) is None

    def test_a_version_without_one_of_its_files_is_incomplete(
        self, platforms: Platforms, case: Case, version: Path
    ) -> None:
        for file in case.needed:
            whole = (version / file).read_bytes()
            (version / file).unlink()
            assert platforms[case.name].missing(DiskListing(str(version))), file
            (version / file).write_bytes(whole)
        assert platforms[case.name].missing(DiskListing(str(version))) is None

    def test_a_version_with_a_file_cut_short_is_incomplete(
        self, platforms: Platforms, case: Case, version: Path
    ) -> None:
        for file in case.needed:
            whole = (version / file).read_bytes()
            for length in case.cuts(len(whole)):
                (version / file).write_bytes(whole[:length])
                assert platforms[case.name].missing(DiskListing(str(version))), (file, length)
            (version / file).write_bytes(whole)

    # Loaded ---------------------------------------------------------------------------------------

    def test_signatures_are_constant_and_shown(self, servable: Any, case: Case) -> None:
        signatures, metadata = servable.signatures, servable.metadata
        before = dict(signatures)
        run(servable, signatures[case.signature], case.question(1)[0])
        assert servable.signatures is signatures
        assert dict(signatures) == before
        assert all(metadata[name] is signature for name, signature in signatures.items())
        assert all(name == signature.name for name, signature in signatures.items())

    def test_a_run_completes_once_with_all_outputs(self, servable: Any, case: Case) -> None:
        signature = servable.signatures[case.signature]
        inputs, wanted = case.question(5)
        assert inputs.keys() == signature.inputs.keys()
        answer = run(servable, signature, inputs)
        assert answer.keys() == signature.outputs.keys()
        self.assert_right(case, answer, wanted)

    def test_many_threads_at_once_each_get_their_own_answer(
        self, servable: Any, case: Case
    ) -> None:
        signature = servable.signatures[case.signature]
        together = threading.Barrier(8)

        def ask(thread: int) -> None:
            together.wait(10)
            for n in range(thread, 800, 8):
                inputs, wanted = case.question(n)
                self.assert_right(case, run(servable, signature, inputs), wanted)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))

    def test_what_cannot_be_computed_is_a_serving_error_and_harms_nobody(
        self, servable: Any, case: Case
    ) -> None:
        signature = servable.signatures[case.signature]
        if case.bad_question is not None:
            outcome = Outcome()
            try:
                servable.run(signature, case.bad_question, outcome)
            except ServingError as error:
                assert not outcome.answers
                outcome.fail(error)
            assert outcome.over.wait(10)
            (refusal,) = outcome.answers
            assert isinstance(refusal, ServingError)
            assert refusal.code is Code.INVALID_ARGUMENT
            assert "[[" not in refusal.message, "TensorFlow's own words for its developers"
        inputs, wanted = case.question(2)
        self.assert_right(case, run(servable, signature, inputs), wanted)

    def test_outputs_outlive_the_servable(self, loader: Any, case: Case) -> None:
        servable = loader.load()
        inputs, wanted = case.question(7)
        answer = run(servable, servable.signatures[case.signature], inputs)
        loader.unload(servable)
        del servable
        gc.collect()
        self.assert_right(case, answer, wanted)

    # Unloaded -------------------------------------------------------------------------------------

    def test_nothing_is_left_of_what_was_unloaded(
        self, platforms: Platforms, case: Case, data: VersionData
    ) -> None:
        def cycle() -> weakref.ref[Any]:
            loader = platforms.loader(ID, data)
            servable = loader.load()
            run(servable, servable.signatures[case.signature], case.question(1)[0])
            loader.unload(servable)
            return weakref.ref(servable)

        cycle()  # what a first load makes for all is made
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        gone = [cycle() for _ in range(3)]
        assert [ref() for ref in gone] == [None] * 3
        assert len(os.listdir("/proc/self/fd")) <= files
        assert threading.active_count() <= threads

    def test_a_version_whose_files_went_after_the_load_still_answers(
        self, servable: Any, case: Case, version: Path
    ) -> None:
        shutil.rmtree(version)
        inputs, wanted = case.question(4)
        self.assert_right(case, run(servable, servable.signatures[case.signature], inputs), wanted)

    # Failing --------------------------------------------------------------------------------------

    def test_a_damaged_version_fails_with_its_code_and_loads_once_it_is_mended(
        self, loader: Any, case: Case, version: Path
    ) -> None:
        file = version / case.needed[0]
        whole = file.read_bytes()
        for content, code in case.damage.items():
            file.write_bytes(content)
            with pytest.raises(ServingError) as caught:
                loader.load()
            assert (caught.value.code, bool(caught.value.message)) == (code, True)
        file.write_bytes(whole)
        servable = loader.load()
        inputs, wanted = case.question(4)
        self.assert_right(case, run(servable, servable.signatures[case.signature], inputs), wanted)
        loader.unload(servable)

    def test_a_version_that_went_before_the_load_is_not_found(
        self, loader: Any, version: Path
    ) -> None:
        shutil.rmtree(version)
        with pytest.raises(ServingError) as caught:
            loader.load()
        assert caught.value.code is Code.NOT_FOUND
        assert str(version) in caught.value.message

    def test_a_loader_works_on_after_its_platform_is_gone(
        self, case: Case, data: VersionData
    ) -> None:
        platforms = case.platforms()
        platform = platforms[case.name]
        loader = platforms.loader(ID, data)
        gone = weakref.ref(platform)
        del platforms, platform
        gc.collect()
        assert gone() is None
        servable = loader.load()
        inputs, wanted = case.question(6)
        self.assert_right(case, run(servable, servable.signatures[case.signature], inputs), wanted)
        loader.unload(servable)
