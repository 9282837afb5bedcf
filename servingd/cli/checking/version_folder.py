"""A version on disk, without loading it: its type, files, signatures and operations."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from servingd.client.answers import Signature, TensorSpec
from servingd.config.paths import NotLocal, local_path
from servingd.core.lifecycle.versions import versions_in
from servingd.core.types import Signature as CoreSignature
from servingd.core.types import TensorSpec as CoreTensorSpec
from servingd.errors import InvalidArgument, NotFound
from servingd.servables.registry import Platforms
from servingd.servables.saved_model.files.meta_graph import FILE, TEXT_FILE, read_meta_graph
from servingd.sources.listing import DiskListing, names_in
from servingd.sources.lookalikes import holds_version
from servingd.wire import protos

DEFAULT_TAGS = ("serve",)


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """What a version's files say."""

    path: str
    platform: str
    """Its servable type."""
    incomplete: str
    """Why it would not be loaded yet; empty: it is complete."""
    bytes: int
    files: int
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    operations: Mapping[str, int] = field(default_factory=dict)
    """How often each operation stands in the graph and in its functions."""
    tensorflow_version: str = ""
    tags: Sequence[Sequence[str]] = ()


def find_version(path: str) -> str:
    """Return the folder of a version: `path` itself, or its newest one. Raises NotFound."""
    try:
        folder = os.path.abspath(local_path(path))
    except NotLocal as error:
        raise InvalidArgument(f"expected {error}, got {path!r}") from None
    names = names_in(folder)
    if holds_version(names):
        return folder
    versions = versions_in(names)
    if versions:
        return os.path.join(folder, versions[max(versions)])
    raise NotFound(f"{path} holds no model's files, and no folder with a version's number")


def read_version(folder: str, platforms: Platforms, tags: tuple[str, ...] = ()) -> VersionFolder:
    """Read a version's files; `tags` are those of the meta graph. Raises ServingError."""
    listing = DiskListing(folder)
    platform = platforms.recognise(listing) or ""
    missing = platforms[platform].missing(listing) if platform else "its files are of no known type"
    found = VersionFolder(
        folder, platform, missing or "", sum(listing.sizes.values()), len(listing.sizes)
    )
    if platform != "tensorflow" or missing or FILE not in listing.sizes:
        return found  # a text file is TensorFlow's to read
    return _with_graph(found, tags or DEFAULT_TAGS)


def _with_graph(found: VersionFolder, tags: tuple[str, ...]) -> VersionFolder:
    model = protos.SavedModel.FromString(_content(found.path))
    meta_graph = read_meta_graph(found.path, tags)
    graph = meta_graph.graph()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return VersionFolder(
        found.path,
        found.platform,
        found.incomplete,
        found.bytes,
        found.files,
        {name: as_answer(signature) for name, signature in sorted(meta_graph.signatures.items())},
        dict(Counter(node.op for node in nodes).most_common()),
        next((m.meta_info_def.tensorflow_version for m in model.meta_graphs), ""),
        [sorted(m.meta_info_def.tags) for m in model.meta_graphs],
    )


def _content(path: str) -> bytes:
    with open(os.path.join(path, FILE), "rb") as file:
        return file.read()


def is_text(folder: str) -> bool:
    """Return whether a SavedModel is in text format only."""
    names = names_in(folder)
    return TEXT_FILE in names and FILE not in names


def as_answer(signature: CoreSignature) -> Signature:
    """Return a signature as a server's metadata would tell it."""
    return Signature(
        {alias: _spec(spec) for alias, spec in signature.inputs.items()},
        {alias: _spec(spec) for alias, spec in signature.outputs.items()},
        signature.method_name,
    )


def _spec(spec: CoreTensorSpec) -> TensorSpec:
    return TensorSpec(spec.data_type.name, spec.shape, spec.tensor_name)
