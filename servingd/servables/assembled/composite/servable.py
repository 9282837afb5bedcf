"""The platform `composite`, its loader and its servable; see `graph.py` for the file."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servingd.core.call_protocols import Completion
from servingd.core.types import (
    ANYWHERE,
    ModelSpec,
    Placement,
    ServableId,
    Signature,
    Tensors,
    VersionData,
)
from servingd.core.version_files import Listing
from servingd.errors import (
    FailedPrecondition,
    InvalidConfig,
    NotFound,
    ServingError,
    error_from_code,
)
from servingd.servables.assembled.composite.call import GraphCall
from servingd.servables.assembled.composite.graph import FILE, Graph, ModelStep, parse
from servingd.servables.assembled.composite.wiring import signature_of, signatures_of
from servingd.servables.assembled.parts import Parts, release
from servingd.servables.files.file_errors import error_of_file
from servingd.servables.plugin import Loader, Platform, Servable


class CompositePlatform(Platform):
    """Makes loaders for composites."""

    name = "composite"
    files = (FILE,)
    trusted = True

    def __init__(self, parts: Parts | None = None) -> None:
        self._parts = parts or Parts()

    def missing(self, listing: Listing) -> str | None:
        """Return what is wrong with the file: a graph that is whole has none."""
        absent = super().missing(listing)
        if absent:
            return absent
        try:
            parse(listing.read(FILE))
        except InvalidConfig as error:
            return error.message
        return None

    def loader(self, servable_id: ServableId, data: VersionData) -> CompositeLoader:
        """Return a loader for one version. Raises InvalidArgument for options."""
        self.read_options(data.options)
        return CompositeLoader(servable_id, data.path, self._parts)


class CompositeLoader(Loader):
    """Loads one composite: it waits for its parts, and checks that they fit together."""

    def __init__(self, servable_id: ServableId, path: str, parts: Parts) -> None:
        self._id = servable_id
        self._file = Path(path, FILE)
        self._parts = parts
        self._cancelled = threading.Event()

    def load(self, placement: Placement = ANYWHERE) -> Any:
        """Return the composite once its parts are available.

        Raises NotFound, InvalidConfig, FailedPrecondition naming the edge that does not fit, or
        Cancelled.
        """
        try:
            graph = parse(self._file.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"there is no {self._file}") from None
        except OSError as error:
            raise error_of_file(error) from error
        specs = model_specs(graph)
        if any(spec.name == self._id.name for spec in specs.values()):
            raise FailedPrecondition(f"composite {self._id.name} has itself as a part")
        wanted = [spec._replace(signature_name="") for spec in specs.values()]
        handles = self._parts.wait(self._id.name, wanted, self._cancelled)
        try:
            signature = signature_of(graph, signatures_of(handles, specs))
        finally:
            release(handles.values())
        self._parts.needs[self._id] = frozenset(spec.name for spec in specs.values())
        return Composite(self._id, graph, signature, self._parts)

    def cancel(self) -> None:
        """End the wait for the parts."""
        self._cancelled.set()


def model_specs(graph: Graph) -> dict[str, ModelSpec]:
    """Return what each step with a model calls."""
    return {name: step.spec for name, step in graph.steps.items() if isinstance(step, ModelStep)}


class Composite(Servable):
    """A tuple of models as one servable. A call has one version of each part, from start to end."""

    def __init__(
        self, servable_id: ServableId, graph: Graph, signature: Signature, parts: Parts
    ) -> None:
        self.signatures: Mapping[str, Signature] = {signature.name: signature}
        self._id = servable_id
        self._graph = graph
        self._parts = parts
        self._specs = tuple(
            dict.fromkeys(s._replace(signature_name="") for s in model_specs(graph).values())
        )

    def why_not_merged(self, signature: str) -> str:
        """Return why: its parts merge the calls of their steps themselves."""
        return "its parts merge the calls that they get"

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Begin a call; it is completed by the last part that it needs.

        Raises the error of a part that is not available.
        """
        try:
            handles = self._parts.acquire(self._specs)
        except ServingError as error:
            named = f"a part of {self._id.name} is not available: {error.message}"
            raise error_from_code(error.code, named) from error
        GraphCall(self._graph, inputs, done, handles, self._count).start()

    def close(self) -> None:
        """Need no models any more."""
        self._parts.needs.pop(self._id, None)

    def _count(self, step: str, seconds: float, error: ServingError | None) -> None:
        self._parts.on_step(self._id, step, seconds, error)
