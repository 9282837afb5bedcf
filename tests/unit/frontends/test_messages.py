"""A PredictRequest is read as its twin where that reads the same, and as it is where not."""

from hypothesis import given
from hypothesis import strategies as st

from servingd.errors import Code, ServingError
from servingd.frontends.message_parser import MessageParser
from servingd.frontends.tfs.rpc.messages import parse_inputs
from servingd.wire.protos import InputsRequest, PredictRequest, TensorProto
from servingd.wire.tensors.decoding import decode

PARSER = MessageParser(1 << 20)


def tensor(*sizes, **fields):
    made = TensorProto(dtype=1, **fields)
    for size in sizes:
        made.tensor_shape.dim.add().size = size
    return made


def test_a_regular_request_is_its_twin():
    request = PredictRequest(inputs={"x": tensor(2, float_val=[1, 2])}, client_id=b"unknown to it")
    assert isinstance(parse_inputs(PARSER, request.SerializeToString()), InputsRequest)


def test_a_shape_in_two_parts_is_merged_as_parsing_does():
    content = tensor(2).SerializeToString() + tensor(3, float_val=[1] * 6).SerializeToString()
    entry = b"\x0a\x01x\x12" + bytes([len(content)]) + content
    payload = b"\x12" + bytes([len(entry)]) + entry
    parsed = parse_inputs(PARSER, payload)
    assert isinstance(parsed, PredictRequest)
    assert decode(parsed.inputs["x"], "x").shape == (2, 3)


requests = st.dictionaries(
    st.text(max_size=2),
    st.builds(
        lambda sizes, values: tensor(*sizes, float_val=values),
        st.lists(st.integers(0, 3), max_size=3),
        st.lists(st.floats(width=32, allow_nan=False), max_size=4),
    ),
    max_size=3,
).map(lambda inputs: PredictRequest(inputs=inputs).SerializeToString())


def outcome(parse, payload):
    try:
        parsed = parse(payload)
        return {a: decode(t, a).tolist() for a, t in parsed.inputs.items()}
    except ServingError as error:
        return error.code, error.message


def test_a_type_that_is_not_served_is_told_before_a_shape_that_does_not_parse():
    content = b"\x08\x0b" + b"\x12\x02\x12\x08"  # a qint8, and a size that is cut off
    payload = b"\x12\x0b\x0a\x01x\x12\x06" + content
    seen = outcome(lambda content: parse_inputs(PARSER, content), payload)
    assert seen == (Code.UNIMPLEMENTED, "tensors of type qint8 are not served")


@given(requests, st.data())
def test_mutated_requests_mean_the_same_or_fail_alike(payload, data):
    changed = bytearray(payload)
    for _ in range(data.draw(st.integers(0, 4)) if payload else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    seen = outcome(lambda content: parse_inputs(PARSER, content), bytes(changed))
    expected = outcome(lambda content: PARSER.parse(PredictRequest, content), bytes(changed))
    # A broken shape is told with the input that has it, if that is read at all: an entry that has
    # something else in the place of its key is passed over. A type that is not served comes first.
    if repr(seen) != repr(expected):
        unserved = not isinstance(seen, dict) and seen[0] is Code.UNIMPLEMENTED
        assert isinstance(seen, dict) or unserved or "tensor parsing error" in seen[1]
        assert "does not parse as tensorflow.serving.PredictRequest" in expected[1]
