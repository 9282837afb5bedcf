"""TFRecord files: TensorFlow reads ours, and we read TensorFlow's."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingd.errors import DataLoss
from servingd.wire.records.tf_records import frame, read_records

pytestmark = pytest.mark.tf

FILES = st.lists(st.binary(max_size=300) | st.just(bytes(100_000)), max_size=6)
SETTINGS = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(records=FILES)
def test_tensorflow_reads_what_we_write(tmp_path, records):
    import tensorflow as tf

    file = tmp_path / "ours"
    file.write_bytes(b"".join(map(frame, records)))
    assert list(tf.compat.v1.io.tf_record_iterator(str(file))) == records
    assert list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator()) == records


@SETTINGS
@given(records=FILES)
def test_we_read_what_tensorflow_writes(tmp_path, records):
    import tensorflow as tf

    file = tmp_path / "theirs"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(str(file))) == records
    assert file.read_bytes() == b"".join(map(frame, records))


@SETTINGS
@given(records=FILES, cut=st.booleans(), place=st.integers(0, 1 << 20))
def test_we_refuse_what_tensorflow_refuses_and_a_head_that_is_cut_off(
    tmp_path, records, cut, place
):
    import tensorflow as tf

    content = bytearray(b"".join(map(frame, [*records, b"last"])))
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] ^= 1
    file = tmp_path / "damaged"
    file.write_bytes(content)
    ours, theirs = [], []
    try:
        ours.extend(read_records(str(file)))
    except DataLoss:
        ours.append(None)
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            theirs.append(record)
    except tf.errors.DataLossError:
        theirs.append(None)
    if cut and None not in theirs and ours[-1:] == [None]:
        # TensorFlow takes a head that is cut off for the end.
        assert ours[:-1] == theirs
        return
    assert (None in ours) == (None in theirs)
