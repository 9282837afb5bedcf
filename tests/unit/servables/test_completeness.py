"""When a SavedModel's folder is complete, told from its files' names, sizes and two contents."""

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from servingd.servables.saved_model.files.completeness import (
    INDEX,
    BadIndex,
    UnknownFormat,
    shard_bytes,
    what_is_missing,
)
from servingd.wire import protos
from tests.tables import FOOTER, MAGIC, PLAIN, SNAPPY, table, varint

TAGS = ("serve",)
ONE_SHARD = "variables/variables.data-00000-of-00001"


# A writer ---------------------------------------------------------------------------------------


def entry(shard, offset, size):
    value = protos.BundleEntry(dtype=1, shard_id=shard, offset=offset, size=size, crc32c=77)
    for dim in (3, 224):
        value.shape.dim.add(size=dim)
    return value.SerializeToString()


def header(shards):
    # Its third field is a VersionDef.
    return protos.BundleHeader(num_shards=shards).SerializeToString() + b"\x1a\x02\x08\x01"


def index(*entries, shards=1, **options):
    """The content of `variables.index` with these (shard, offset, size)."""
    pairs = [(b"", header(shards))]
    for number, place in enumerate(entries):
        pairs.append((f"layer_{number:03d}/kernel".encode(), entry(*place)))
    return table(pairs, **options)


# The index --------------------------------------------------------------------------------------


def test_a_shard_must_hold_all_of_its_tensors():
    assert shard_bytes(index((0, 0, 100), (0, 100, 24))) == {ONE_SHARD: 124}


def test_the_order_of_tensors_in_a_shard_does_not_matter():
    assert shard_bytes(index((0, 100, 24), (0, 0, 100))) == {ONE_SHARD: 124}


def test_each_shard_is_counted_by_itself_and_one_without_tensors_too():
    assert shard_bytes(index((2, 0, 7), (0, 0, 100), (2, 7, 3), shards=3)) == {
        "variables/variables.data-00000-of-00003": 100,
        "variables/variables.data-00001-of-00003": 0,
        "variables/variables.data-00002-of-00003": 10,
    }


def test_an_index_without_tensors_asks_for_its_shards():
    assert shard_bytes(index()) == {ONE_SHARD: 0}


def test_sizes_beyond_32_bits_are_kept():
    assert shard_bytes(index((0, 2**40, 2**33))) == {ONE_SHARD: 2**40 + 2**33}


@given(
    st.integers(1, 5).flatmap(
        lambda shards: st.tuples(
            st.just(shards),
            st.lists(
                st.tuples(st.integers(0, shards - 1), st.integers(0, 2**40), st.integers(0, 2**33)),
                max_size=60,
            ),
        )
    ),
    st.integers(1, 20),
    st.sampled_from([PLAIN, SNAPPY]),
)
def test_any_index_reads_back_whatever_its_blocks(content, per_block, kind):
    shards, entries = content
    needed = {f"variables/variables.data-{i:05d}-of-{shards:05d}": 0 for i in range(shards)}
    for shard, offset, size in entries:
        name = f"variables/variables.data-{shard:05d}-of-{shards:05d}"
        needed[name] = max(needed[name], offset + size)
    written = index(*entries, shards=shards, per_block=per_block, kind=kind)
    assert shard_bytes(written) == needed


TENSORS = ((0, 0, 100), (0, 100, 24), (0, 124, 8), (0, 132, 500), (0, 632, 1))
SMALL = index(*TENSORS)
SMALL_SNAPPY = index(*TENSORS, kind=SNAPPY)


def judged(content):
    """What is said of an index; anything but an answer or BadIndex goes through."""
    try:
        needed = shard_bytes(content)
    except (BadIndex, UnknownFormat):
        return None
    assert all(isinstance(size, int) and size >= 0 for size in needed.values())
    return needed


@pytest.mark.parametrize("whole", [SMALL, SMALL_SNAPPY])
def test_an_index_that_was_cut_off_is_bad(whole):
    for length in range(len(whole)):
        with pytest.raises(BadIndex):
            shard_bytes(whole[:length])


@pytest.mark.parametrize("whole", [SMALL, SMALL_SNAPPY])
def test_an_index_whose_end_is_not_written_yet_is_bad(whole):
    """A copy may have made room for the whole file first."""
    for length in range(len(whole)):
        judged(whole[:length].ljust(len(whole), b"\0"))
    with pytest.raises(BadIndex):
        shard_bytes(whole[:-1] + b"\0")


@pytest.mark.parametrize("value", [0x00, 0x01, 0x7F, 0x80, 0xFF])
@pytest.mark.parametrize("whole", [SMALL, SMALL_SNAPPY])
def test_a_damaged_byte_is_no_other_exception(whole, value):
    for position in range(len(whole)):
        judged(whole[:position] + bytes((value,)) + whole[position + 1 :])


def test_a_block_of_snappy_that_claims_too_much_is_not_decompressed():
    claim = varint(2**31)
    content = claim + b"\1crc!"
    footer = varint(0) + varint(0) + varint(0) + varint(len(claim))
    content += footer.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little")
    with pytest.raises(BadIndex, match="5 bytes claims to hold 2147483648"):
        shard_bytes(content)


def test_a_block_that_says_snappy_and_is_not_is_bad():
    content = b"\x05abc" + SNAPPY + b"crc!"
    footer = varint(0) + varint(0) + varint(0) + varint(4)
    content += footer.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little")
    with pytest.raises(BadIndex, match="decompress"):
        shard_bytes(content)


def test_an_index_in_another_form_is_not_judged():
    with pytest.raises(UnknownFormat, match="not known here"):
        shard_bytes(index((0, 0, 1), kind=b"\2"))


def test_an_entry_in_a_shard_that_there_is_not_is_bad():
    with pytest.raises(BadIndex, match="names shard 1 of 1"):
        shard_bytes(index((1, 0, 1)))


def test_a_table_without_a_header_is_bad():
    with pytest.raises(BadIndex, match="no header"):
        shard_bytes(table([(b"kernel", entry(0, 0, 1))]))
    with pytest.raises(BadIndex, match="no header"):
        shard_bytes(table([]))


@pytest.mark.parametrize("value", [b"\xff", b"\x08", b"\x1a\x7f"])
def test_a_header_or_an_entry_that_does_not_parse_is_bad(value):
    with pytest.raises(BadIndex):
        shard_bytes(table([(b"", value)]))
    with pytest.raises(BadIndex):
        shard_bytes(table([(b"", header(1)), (b"kernel", value)]))


@pytest.mark.parametrize("shards", [0, -1, 2_000_000])
def test_a_number_of_shards_that_cannot_be_is_bad(shards):
    """Damage must not make it count to two thousand million."""
    with pytest.raises(BadIndex):
        shard_bytes(index(shards=shards))


def test_a_tensor_that_ends_before_its_shard_begins_is_bad():
    for place in ((0, -200, 100), (0, 0, -1)):
        with pytest.raises(BadIndex):
            shard_bytes(index(place))


@given(st.binary(max_size=200))
def test_random_bytes_are_bad(content):
    assert judged(content) is None


@given(st.binary(max_size=200), st.integers(0, 120), st.integers(0, 120))
def test_random_bytes_with_a_true_end_are_no_other_exception(content, offset, size):
    footer = varint(0) + varint(0) + varint(offset) + varint(size)
    judged(content + footer.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little"))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"", b"a", b"ab"]), st.binary(max_size=12)), max_size=5))
def test_random_values_in_a_true_table_are_no_other_exception(pairs):
    judged(table(pairs))


# The folder -------------------------------------------------------------------------------------


class Files(dict):
    """A listing: contents by name; a number stands for so many bytes that nobody reads."""

    @property
    def sizes(self):
        return {n: c if isinstance(c, int) else len(c) for n, c in self.items()}

    def read(self, name):
        assert not isinstance(self[name], int), f"{name} is read, and may be large"
        return self[name]


def graph_of(*operations):
    graph = protos.Graph()
    for number, operation in enumerate(operations):
        graph.node.add(name=f"node_{number}", op=operation)
    return graph.SerializeToString()


WITH_VARIABLE = graph_of("VarHandleOp")


def saved_model(assets=(), packed_assets=(), restores=True, tags=TAGS, graph_def=WITH_VARIABLE):
    message = protos.SavedModel(saved_model_schema_version=1)
    graph = message.meta_graphs.add(graph_def=graph_def)
    graph.meta_info_def.tags.extend(tags)
    if restores:
        graph.saver_def.restore_op_name = "save/restore_all"
    for name in assets:
        graph.asset_file_def.add(filename=name)
    for content in packed_assets:
        graph.collection_def["saved_model_assets"].any_list.value.add(value=content)
    signature = graph.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    signature.inputs["x"].name = "x:0"
    return message.SerializeToString()


def missing(files):
    return what_is_missing(Files(files), TAGS)


def whole(**options):
    return {
        "saved_model.pb": saved_model(**options),
        INDEX: SMALL,
        ONE_SHARD: 633,
        "fingerprint.pb": 56,
    }


def test_a_whole_folder_is_complete():
    assert missing(whole()) is None


def test_a_model_without_variables_needs_none():
    assert missing({"saved_model.pb": saved_model(restores=False)}) is None


def test_a_saver_over_a_graph_without_variables_needs_no_index():
    """TensorFlow restores nothing where there is no index; exporters write savers all the same."""
    assert missing({"saved_model.pb": saved_model(graph_def=graph_of("Placeholder"))}) is None


@pytest.mark.parametrize("operation", ["VarHandleOp", "VariableV2", "Variable"])
def test_a_saver_over_variables_needs_the_index(operation):
    files = {"saved_model.pb": saved_model(graph_def=graph_of("Placeholder", operation))}
    assert missing(files) == f"{INDEX} is not there"


def test_a_graph_that_does_not_parse_here_may_have_variables():
    files = {"saved_model.pb": saved_model(graph_def=b"\xff")}
    assert missing(files) == f"{INDEX} is not there"


def test_an_index_that_is_compressed_counts_as_a_plain_one():
    assert missing(whole() | {INDEX: SMALL_SNAPPY}) is None
    reason = missing(whole() | {INDEX: SMALL_SNAPPY, ONE_SHARD: 632})
    assert reason == f"{ONE_SHARD} has 632 bytes of 633"


def test_what_cannot_be_judged_counts_as_complete():
    unknown = index(*TENSORS, kind=b"\2")
    assert missing(whole() | {INDEX: unknown}) is None
    assert missing({"saved_model.pb": saved_model(), INDEX: unknown}) is None
    assert missing({"saved_model.pb": saved_model(), INDEX: unknown[:-1]}) is not None


def test_without_its_graph_a_folder_is_incomplete():
    assert missing({}) == "saved_model.pb is not there"
    assert missing({INDEX: SMALL, ONE_SHARD: 633}) == "saved_model.pb is not there"


def test_an_empty_graph_is_incomplete():
    assert missing(whole() | {"saved_model.pb": b""}) == (
        "saved_model.pb holds no meta graph (0 bytes)"
    )


@pytest.mark.parametrize("absent", [INDEX, ONE_SHARD])
def test_each_file_that_a_model_with_variables_needs_is_missed_by_name(absent):
    files = whole()
    del files[absent]
    assert missing(files) == f"{absent} is not there"


@pytest.mark.parametrize("size", [0, 1, 100, 632])
def test_a_shard_that_is_short_is_told_with_its_sizes(size):
    assert missing(whole() | {ONE_SHARD: size}) == f"{ONE_SHARD} has {size} bytes of 633"


def test_a_shard_that_is_longer_does_no_harm():
    assert missing(whole() | {ONE_SHARD: 700}) is None


def test_one_of_many_shards_that_is_not_there_is_missed():
    files = {"saved_model.pb": saved_model(), INDEX: index((0, 0, 9), (1, 0, 9), shards=2)}
    names = [f"variables/variables.data-0000{i}-of-00002" for i in (0, 1)]
    files[names[0]] = 9
    assert missing(files) == f"{names[1]} is not there"
    files[names[1]] = 9
    assert missing(files) is None


def test_assets_must_be_there():
    packed = protos.AssetFileDef(filename="old.txt").SerializeToString()
    files = whole(assets=["vocabulary.txt"], packed_assets=[packed])
    assert missing(files) == "assets/old.txt is not there"
    files["assets/old.txt"] = 0
    assert missing(files) == "assets/vocabulary.txt is not there"
    files["assets/vocabulary.txt"] = 0
    assert missing(files) is None


def test_an_asset_that_does_not_parse_is_a_reason():
    assert isinstance(missing(whole(packed_assets=[b"\xff"])), str)


@pytest.mark.parametrize("length", range(len(SMALL)))
def test_a_folder_whose_index_was_cut_off_is_incomplete(length):
    reason = missing(whole() | {INDEX: SMALL[:length]})
    assert isinstance(reason, str)
    assert reason.startswith(INDEX)


def test_a_graph_that_was_cut_off_is_incomplete_at_every_length():
    """Only a cut before the first meta graph parses; and that holds none."""
    content = saved_model(assets=["vocabulary.txt"])
    files = whole() | {"assets/vocabulary.txt": 1}
    for length in range(len(content)):
        reason = missing(files | {"saved_model.pb": content[:length]})
        assert isinstance(reason, str), length
        assert reason.startswith("saved_model.pb")


def test_a_graph_of_two_that_was_cut_off_between_them_cannot_be_told():
    one, two = saved_model(restores=False), saved_model(restores=False, tags=("train",))
    both = one + two[2:]  # without its version
    seen = {n for n in range(len(both)) if missing({"saved_model.pb": both[:n]}) is None}
    assert seen == {len(one)}


@pytest.mark.parametrize("value", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_a_damaged_byte_of_the_graph_is_no_exception(value):
    packed = protos.AssetFileDef(filename="old.txt").SerializeToString()
    content = saved_model(assets=["vocabulary.txt"], packed_assets=[packed])
    files = whole() | {"assets/vocabulary.txt": 1, "assets/old.txt": 1}
    for position in range(len(content)):
        damaged = content[:position] + bytes((value,)) + content[position + 1 :]
        reason = missing(files | {"saved_model.pb": damaged})
        assert reason is None or isinstance(reason, str)


@given(st.binary(max_size=80))
def test_random_bytes_as_graph_are_no_exception(content):
    reason = missing(whole() | {"saved_model.pb": content})
    assert reason is None or isinstance(reason, str)
