"""What the protocol tells of the server and of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from servingd import __version__
from servingd.core.call_protocols import Models, States
from servingd.core.lifecycle.states import PublicState
from servingd.core.types import Signature, TensorSpec
from servingd.errors import Code, NotFound, ServingError
from servingd.frontends.oip.infer import spec_of
from servingd.inference.checks import DEFAULT_SIGNATURE
from servingd.inference.status import versions_of
from servingd.wire.oip import NAMES

NAME = "servingd"
EXTENSIONS = ("binary_tensor_data", "model_repository")


class Tensor(NamedTuple):
    """One input or output, as metadata tells it."""

    name: str
    datatype: str
    shape: list[int]


class Metadata(NamedTuple):
    """A model's metadata."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class IndexEntry(NamedTuple):
    """A version in the index of the repository."""

    name: str
    version: str
    state: str
    reason: str


class ModelInformation:
    """Answers what is asked about the server and models. From any thread."""

    def __init__(
        self, models: Models, states: States, why_not_ready: Callable[[], str | None]
    ) -> None:
        self._models = models
        self._states = states
        self._why_not_ready = why_not_ready

    def server(self) -> Mapping[str, Any]:
        """Return the server's name, version and extensions."""
        return {"name": NAME, "version": __version__, "extensions": list(EXTENSIONS)}

    def is_ready(self) -> bool:
        """Return whether the server is ready."""
        return self._why_not_ready() is None

    def model_is_ready(self, name: str, version: str) -> bool:
        """Return whether a version, or any, can be called. Raises NotFound for no such model."""
        try:
            self._models.acquire(spec_of(name, version, {})).release()
        except ServingError as error:
            if name not in self._states.names() and error.code is Code.NOT_FOUND:
                raise
            return False
        return True

    def metadata(self, name: str, version: str) -> Metadata:
        """Return the metadata of a version. Raises ServingError."""
        handle = self._models.acquire(spec_of(name, version, {}))
        try:
            signatures = handle.metadata
            signature = signatures.get(DEFAULT_SIGNATURE) or next(iter(signatures.values()), None)
            if signature is None:
                raise NotFound(f"model '{name}' has no signature")
            return _metadata(name, self._versions(name), signature)
        finally:
            handle.release()

    def index(self, only_ready: bool) -> list[IndexEntry]:
        """Return all versions with their states."""
        return [
            entry
            for name in self._states.names()
            for entry in self._entries(name)
            if not only_ready or entry.state == "READY"
        ]

    def _versions(self, name: str) -> list[str]:
        return sorted(
            (
                str(status.version)
                for status in versions_of(self._states, name)
                if status.state is PublicState.AVAILABLE
            ),
            key=int,
        )

    def _entries(self, name: str) -> Sequence[IndexEntry]:
        found = [
            IndexEntry(name, str(s.version), _STATES[s.state], s.message)
            for s in versions_of(self._states, name)
        ]
        return found or [IndexEntry(name, "", "UNAVAILABLE", self._states.absent(name))]


_STATES = {
    PublicState.START: "LOADING",
    PublicState.LOADING: "LOADING",
    PublicState.AVAILABLE: "READY",
    PublicState.UNLOADING: "UNLOADING",
    PublicState.END: "UNAVAILABLE",
}


def _metadata(name: str, versions: list[str], signature: Signature) -> Metadata:
    return Metadata(
        name,
        versions,
        "tensorflow_savedmodel",
        [_tensor(alias, spec) for alias, spec in signature.inputs.items()],
        [_tensor(alias, spec) for alias, spec in signature.outputs.items()],
    )


def _tensor(alias: str, spec: TensorSpec) -> Tensor:
    """Return a tensor's metadata; of unknown rank: one dimension that may vary."""
    shape = (None,) if spec.shape is None else spec.shape
    return Tensor(
        alias,
        NAMES.get(spec.data_type, spec.data_type.name),
        [-1 if size is None else size for size in shape],
    )
