"""Base classes for servable types: other people's as well as some of ours.

A type is a `Platform`. It recognises its versions, says what an incomplete one lacks, and loads
them. What it loads is a `Servable`, which answers calls. The shortest type overrides four things:

    class Upper(Servable):
        signatures = {"serving_default": signature(inputs={"text": ("STRING", None)},
                                                   outputs={"upper": ("STRING", None)})}

        def predict(self, signature, inputs):
            ...

    class UpperPlatform(Platform):
        name = "upper"
        files = ("upper.txt",)

        @classmethod
        def load(cls, version):
            return Upper()

Name it to the server by `--plugin=module:UpperPlatform`, `--plugin=path/file.py:UpperPlatform`, or
the entry point group `servingd.platforms` of an installed package. The supervisor of several
workers imports the module as well, so import heavy packages in `load`.
`servingd.testing.contract` has the tests that every type should pass.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from servingd.core.call_protocols import Completion
from servingd.core.resources.footprints import UNKNOWN, Estimate, Footprint
from servingd.core.servable import RuledBatching
from servingd.core.types import (
    ANYWHERE,
    DataType,
    Placement,
    ServableId,
    Signature,
    Tensors,
    TensorSpec,
    VersionData,
)
from servingd.core.version_files import Listing
from servingd.errors import FailedPrecondition, InvalidArgument

__all__ = (
    "UNKNOWN",
    "Completion",
    "DataType",
    "Estimate",
    "Footprint",
    "Listing",
    "Loader",
    "Placement",
    "Platform",
    "Servable",
    "Signature",
    "TensorSpec",
    "Tensors",
    "Version",
    "signature",
)

Spec = tuple[str, Sequence[int | None] | None]
"""A data type's name without `DT_`, such as FLOAT, and a shape: None for what may vary."""


def signature(
    *, inputs: Mapping[str, Spec], outputs: Mapping[str, Spec], name: str = "serving_default"
) -> Signature:
    """Return a signature: each input and output has a data type's name and a shape.

    A dimension that may vary is None; a shape of None leaves the rank open. Raises InvalidArgument
    for an unknown data type.
    """
    return Signature(name=name, inputs=_specs(inputs), outputs=_specs(outputs))


def _specs(given: Mapping[str, Spec]) -> Mapping[str, TensorSpec]:
    return {alias: _spec(alias, *spec) for alias, spec in given.items()}


def _spec(alias: str, type_name: str, shape: Sequence[int | None] | None) -> TensorSpec:
    if type_name not in DataType.__members__:
        known = ", ".join(name for name in DataType.__members__ if name != "INVALID")
        raise InvalidArgument(
            f"data type of {alias}: expected one of {known}, got {str(type_name)!r}"
        )
    return TensorSpec(DataType[type_name], None if shape is None else tuple(shape), f"{alias}:0")


@dataclass(frozen=True, slots=True)
class Version:
    """One version that is to be loaded."""

    id: ServableId
    """The model's name and the version's number."""

    path: str
    """Its folder, or its file where a version is one."""

    options: Any = None
    """Its `platform_options`, as an instance of `Platform.options_type`; None without one."""

    placement: Placement = field(default=ANYWHERE)
    """The devices that were planned for it."""


class Servable:
    """A loaded model. Override `signatures`, and `predict` or `run`.

    `predict` is called on threads of the model's own, several at a time (see `concurrency`). It may
    be a coroutine function (`async def`), which runs on an event loop that servingd owns for this
    version, or a generator function, whose every part is an answer: `PredictStreamed` sends all
    parts, and Predict the last one.
    """

    signatures: Mapping[str, Signature] = {}
    """The signatures that can be called, by name; they never change."""

    ruled_batching: RuledBatching | None = None
    """The operator's batching parameters; None where there are none."""

    concurrency: int = 0
    """How many calls of a signature may be under way at a time; 0: as many as there are cores. A
    servable that waits for others, such as a coroutine, should have a larger number."""

    time_limit_s: float = 0.0
    """Seconds after which a call is answered with DEADLINE_EXCEEDED; 0: there is no limit."""

    @property
    def metadata(self) -> Mapping[str, Signature]:
        """The signatures that GetModelMetadata shows."""
        return self.signatures

    def predict(self, signature: str, inputs: Tensors) -> Any:
        """Return all outputs of a signature, by alias, as arrays of the types that it says.

        `inputs` has every input of the signature; strings are object arrays of `bytes`. Never write
        to an input. Raise a ServingError (`servingd.errors`) to choose the code that the caller
        gets; any other exception becomes INTERNAL.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither `predict` nor `run`")

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Compute all outputs and complete `done` once, now or later, on any thread.

        Override it instead of `predict` where a call is completed by threads of your own. The call
        counts as under way, and its time as its cost, until `done` is completed.
        """
        done.succeed(self.predict(signature.name, inputs))

    def rows_worth_merging(self, signature: str) -> int:
        """Return up to how many rows a larger run is cheaper per row; 0: calls are not merged.

        Asked once, when the servable has been loaded. Return more than 0 only if
        f([a; b]) = [f(a); f(b)] holds for all rows: calls of different clients then run together.
        """
        return 0

    def why_not_merged(self, signature: str) -> str:
        """Return why calls of a signature are not merged, for people to read."""
        return "its type does not say that rows are independent"

    def may_be_repeated(self, signature: str) -> bool:
        """Return whether repeating a call changes no later one. Only then is it warmed up."""
        return False

    def close(self) -> None:
        """Free all memory. Called once, when no run is under way."""


class Loader:
    """Makes one version's servable. Cheap to construct; used by one thread at a time."""

    def estimate(self) -> Estimate:
        """Return what the version will take, read from its files; called before `load`."""
        return UNKNOWN

    def load(self, placement: Placement = ANYWHERE) -> Any:
        """Return the servable. Raises ServingError; called again after a failure."""
        raise NotImplementedError(f"{type(self).__name__} has no `load`")

    def cancel(self) -> None:
        """Ask the running `load` to end soon. Called from any thread; `load` is called no more."""

    def grow(self) -> None:
        """Allow the growth that the estimate names."""

    def unload(self, servable: Any) -> None:
        """Close the servable. Called once, after a load that succeeded."""
        servable.close()


class Platform:
    """A type of servable. Override `name`, `files` or `recognises` and `missing`, and `load`.

    Instances are made without arguments, one in each process. All methods are called from several
    threads.
    """

    name: str = ""
    """Its name in configurations (`platform`)."""

    files: Sequence[str] = ()
    """The files that a version must have; by their presence its type is recognised."""

    needs: Mapping[str, str] = {}
    """Modules that a load imports, each with the command that installs it."""

    options_type: type | None = None
    """A dataclass with the model's `platform_options`; None: it takes none."""

    trusted: ClassVar[bool] = False
    """Whether its servables run as ours do: outputs unchecked, cheap calls on the transport's
    thread. For types that ship with servingd."""

    def recognises(self, listing: Listing) -> bool:
        """Return whether a version's files look like this type, complete or not."""
        return bool(self.files) and all(file in listing.sizes for file in self.files)

    def missing(self, listing: Listing) -> str | None:
        """Return what a version lacks, as a reason; None if it is complete.

        Called for each change of its files: a version that is being copied must not seem whole.
        """
        absent = [file for file in self.files if file not in listing.sizes]
        return f"{absent[0]} is not there" if absent else None

    def read_options(self, options: Mapping[str, Any]) -> Any:
        """Return a model's `platform_options` as an instance of `options_type`.

        Raises InvalidArgument naming the field, what was expected and what came.
        """
        if self.options_type is None:
            if options:
                raise InvalidArgument(
                    f"platform_options: {self.name} takes none, got {', '.join(sorted(options))}"
                )
            return None
        known = {each.name for each in dataclasses.fields(self.options_type)}
        if unknown := sorted(options.keys() - known):
            raise InvalidArgument(
                f"platform_options.{unknown[0]}: expected one of {', '.join(sorted(known))}"
            )
        try:
            return msgspec.convert(options, self.options_type)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"platform_options: {_in_words(error)}") from None
        except InvalidArgument as error:
            raise InvalidArgument(f"platform_options: {error.message}") from None

    def check_needs(self) -> None:
        """Raise FailedPrecondition if a module is absent, with the command that installs it."""
        for module, command in self.needs.items():
            try:
                found = importlib.util.find_spec(module) is not None
            except (ImportError, ValueError):
                found = False
            if not found:
                raise FailedPrecondition(
                    f"models of type {self.name} need the Python module {module}, which is not "
                    f"installed: {command}"
                )

    @classmethod
    def load(cls, version: Version) -> Any:
        """Return the servable of a version. Raises ServingError.

        Called on a thread for loads, which may be given up after `--load_timeout_s`.
        """
        raise NotImplementedError(f"{cls.__name__} has neither `load` nor `loader`")

    @classmethod
    def estimate(cls, version: Version) -> Estimate:
        """Return what a version will take in memory, read from its files."""
        return UNKNOWN

    def loader(self, servable_id: ServableId, data: VersionData) -> Any:
        """Return a loader for one version; cheap. Raises InvalidArgument for wrong options."""
        options = self.read_options(data.options)
        return _ClassLoader(type(self), Version(servable_id, data.path, options))

    def stop(self) -> None:
        """Stop what the loaders share. Servables keep serving until they are unloaded."""


class _ClassLoader(Loader):
    """The loader of a platform that only has `load`. It does not keep the platform."""

    def __init__(self, platform: type[Platform], version: Version) -> None:
        self._platform = platform
        self._version = version

    def estimate(self) -> Estimate:
        return self._platform.estimate(self._version)

    def load(self, placement: Placement = ANYWHERE) -> Any:
        version = self._version
        return self._platform.load(Version(version.id, version.path, version.options, placement))


def _in_words(error: msgspec.ValidationError) -> str:
    """Return msgspec's error with the field first: `threads: expected int, got str`."""
    text, _, place = str(error).partition(" - at `$.")
    text = text.replace("`", "")
    return f"{place.rstrip('`')}: {text[:1].lower()}{text[1:]}" if place else text
