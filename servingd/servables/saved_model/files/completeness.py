"""When a SavedModel's folder is complete: its graph parses, and every shard holds its bytes.

`variables.index` is a table of sorted strings: blocks of prefix-compressed keys with their values,
an index block, and a footer with a magic number at the very end, so a cut-off index is seen too.
Each value is a BundleEntry: the place of one tensor in one shard. A block may be compressed by
snappy as well. A table that is whole but written in a format that is not known here counts as
complete: TensorFlow then decides whether it can be loaded.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cramjam
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from servingd.core.version_files import Listing, shortfall
from servingd.servables.saved_model.files.meta_graph import FILE, TEXT_FILE
from servingd.wire import protos
from servingd.wire.varints import read_varint64

if TYPE_CHECKING:
    from servingd.wire.protos import BundleEntry, MetaGraph, MetaGraphText

INDEX = "variables/variables.index"

_log = logging.getLogger(__name__)

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_NOT_COMPRESSED = 0
_SNAPPY = 1
_SNAPPY_AT_MOST = 64
"""Bytes that one byte of snappy stands for, at most: a block that claims more is damaged."""
_MAX_SHARDS = 100_000
"""Shards, at most: their names have five digits."""


_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_HOLDS_A_VARIABLE = frozenset(
    ("VarHandleOp", "VariableV2", "Variable", "AutoReloadVariable", "TemporaryVariable")
)


class BadIndex(ValueError):
    """The index of the variables is not whole; the text says why."""


class UnknownFormat(ValueError):
    """The file is written in a format that is not known here."""


def what_is_missing(listing: Listing, tags: tuple[str, ...]) -> str | None:
    """Return why a folder is not a complete SavedModel yet; None if it is. Raises OSError."""
    file = TEXT_FILE if FILE not in listing.sizes and TEXT_FILE in listing.sizes else FILE
    if file not in listing.sizes:
        return f"{FILE} is not there"
    content = listing.read(file)
    try:
        graphs = _text_graphs(content) if file == TEXT_FILE else _graphs(content)
    except DecodeError:
        return f"{file} does not parse ({len(content)} bytes)"
    except UnknownFormat as error:
        _log.info("%s is left to TensorFlow to judge: %s", file, error)
        return None
    if not graphs:
        return f"{file} holds no meta graph ({len(content)} bytes)"
    try:
        assets = [name for graph in graphs for name in _assets(graph)]
    except DecodeError:
        return f"{file} names assets that do not parse"
    required = {f"assets/{name}": 0 for name in assets}
    if INDEX in listing.sizes or any(map(_has_variables, graphs)):
        required[INDEX] = _FOOTER_BYTES
    reason = shortfall(required, listing.sizes)
    if reason is None and INDEX in listing.sizes:
        reason = _what_shards_lack(listing)
    return reason


def _graphs(content: bytes) -> Sequence[MetaGraph | MetaGraphText]:
    return list(protos.SavedModel.FromString(content).meta_graphs)


def _text_graphs(content: bytes) -> Sequence[MetaGraph | MetaGraphText]:
    """Parse the text format. Raises DecodeError if it was cut off, else UnknownFormat."""
    try:
        text = content.decode()
        message = protos.SavedModelText()
        text_format.Parse(text, message, allow_unknown_field=True, descriptor_pool=protos.POOL)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        left = _QUOTED.sub(b"", content)
        even = left.count(b"{") == left.count(b"}") and b'"' not in left
        if not (even and left.rstrip().endswith(b"}")):
            raise DecodeError(str(error)) from error
        raise UnknownFormat(str(error)) from error
    return list(message.meta_graphs)


def _what_shards_lack(listing: Listing) -> str | None:
    try:
        return shortfall(shard_bytes(listing.read(INDEX)), listing.sizes)
    except BadIndex as error:
        return f"{INDEX}: {error}"
    except UnknownFormat as error:
        _log.info("%s is left to TensorFlow to judge: %s", INDEX, error)
        return None


def _has_variables(meta_graph: MetaGraph | MetaGraphText) -> bool:
    """Return whether there are variables to restore; True if its graph does not parse.

    Exporters write a saver for models without variables too.
    """
    if not meta_graph.saver_def.restore_op_name:
        return False
    graph = meta_graph.graph_def
    if isinstance(graph, bytes):
        try:
            graph = protos.Graph.FromString(graph)
        except DecodeError:
            return True
    return any(node.op in _HOLDS_A_VARIABLE for node in graph.node)


def _assets(meta_graph: MetaGraph | MetaGraphText) -> list[str]:
    names = [asset.filename for asset in meta_graph.asset_file_def]
    for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
        names.append(protos.AssetFileDef.FromString(packed.value).filename)
    return names


def shard_bytes(index: bytes) -> dict[str, int]:
    """Return the bytes that each shard must have, by file, from `variables.index`.

    Raises BadIndex or UnknownFormat.
    """
    entries = iter(table_entries(index))
    key, value = next(entries, (b"?", b""))
    if key != b"":
        raise BadIndex("it has no header")
    try:
        shards = protos.BundleHeader.FromString(value).num_shards
        ends = [_end(value) for _, value in entries]
    except DecodeError as error:
        raise BadIndex(f"it does not parse: {error}") from error
    if not 0 < shards <= _MAX_SHARDS:
        raise BadIndex(f"it names {shards} shards")
    needed = dict.fromkeys(range(shards), 0)
    for shard, end in ends:
        if shard not in needed or end < 0:
            raise BadIndex(f"an entry names shard {shard} of {shards}")
        needed[shard] = max(needed[shard], end)
    return {f"variables/variables.data-{i:05d}-of-{shards:05d}": size for i, size in needed.items()}


def tensor_bytes(index: bytes) -> list[int]:
    """Return the bytes of each tensor, from `variables.index`. Raises as `shard_bytes`."""
    try:
        return [protos.BundleEntry.FromString(v).size for key, v in table_entries(index) if key]
    except DecodeError as error:
        raise BadIndex(f"it does not parse: {error}") from error


def tensors_of_shards(index: bytes) -> tuple[int, dict[str, BundleEntry]]:
    """Return the number of shards, and the tensors by name. Raises as `shard_bytes`."""
    try:
        shards = 0
        found: dict[str, BundleEntry] = {}
        for key, value in table_entries(index):
            if key:
                found[key.decode(errors="replace")] = protos.BundleEntry.FromString(value)
            else:
                shards = protos.BundleHeader.FromString(value).num_shards
    except DecodeError as error:
        raise BadIndex(f"it does not parse: {error}") from error
    return shards, found


def _end(value: bytes) -> tuple[int, int]:
    """Return the shard of a tensor, and where in it the tensor ends."""
    entry = protos.BundleEntry.FromString(value)
    return entry.shard_id, entry.offset + entry.size


def table_entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all keys and values of a table, in order."""
    if len(content) < _FOOTER_BYTES or not content.endswith(_MAGIC):
        raise BadIndex(f"its {len(content)} bytes do not end as a table does")
    footer = len(content) - _FOOTER_BYTES
    try:
        _, at = read_varint64(content, footer)  # the meta index block: offset,
        _, at = read_varint64(content, at)  # size
        offset, at = read_varint64(content, at)
        size, _ = read_varint64(content, at)
        for _, handle in _block(content, offset, size):
            offset, at = read_varint64(handle, 0)
            size, _ = read_varint64(handle, at)
            yield from _block(content, offset, size)
    except (BadIndex, UnknownFormat):
        raise
    except ValueError as error:
        raise BadIndex(f"it does not parse: {error}") from error


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + 1 > len(content):
        raise BadIndex("a block lies past its end")
    block = _decompressed(content[offset : offset + size], content[offset + size])
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise BadIndex("a block is shorter than it says")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint64(block, at)
        own, at = read_varint64(block, at)
        length, at = read_varint64(block, at)
        if shared > len(key) or at + own + length > end:
            raise BadIndex("an entry lies past its block")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _decompressed(block: bytes, compression: int) -> bytes:
    if compression == _NOT_COMPRESSED:
        return block
    if compression != _SNAPPY:
        raise UnknownFormat(
            f"a block is compressed in a way that is not known here ({compression})"
        )
    try:
        size = cramjam.snappy.decompress_raw_len(block)
        if size > _SNAPPY_AT_MOST * len(block):
            raise BadIndex(f"a block of {len(block)} bytes claims to hold {size}")
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise BadIndex(f"a block does not decompress: {error}") from error
