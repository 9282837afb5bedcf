"""The state of versions, and signatures, in protobuf's JSON."""

from __future__ import annotations

import json

import numpy as np
from google.protobuf import json_format

from servingd.core.lifecycle.states import PublicState
from servingd.core.types import DataType, Signature, TensorSpec
from servingd.errors import Code
from servingd.inference.status import VersionStatus
from servingd.wire.json.status import encode_metadata, encode_models, encode_status
from servingd.wire.protos import GetModelStatusResponse, SignatureDefMap
from servingd.wire.signatures import signature_def_map


def test_status() -> None:
    statuses = [
        VersionStatus(123, PublicState.AVAILABLE),
        VersionStatus(0, PublicState.END, Code.NOT_FOUND, 'no "é"\n'),
    ]
    assert encode_status(statuses).decode() == (
        "{\n"
        ' "model_version_status": [\n'
        "  {\n"
        '   "version": "123",\n'
        '   "state": "AVAILABLE",\n'
        '   "status": {\n'
        '    "error_code": "OK",\n'
        '    "error_message": ""\n'
        "   }\n"
        "  },\n"
        "  {\n"
        '   "version": "0",\n'
        '   "state": "END",\n'
        '   "status": {\n'
        '    "error_code": "NOT_FOUND",\n'
        '    "error_message": "no \\"é\\"\\n"\n'
        "   }\n"
        "  }\n"
        " ]\n"
        "}\n"
    )


def test_status_is_the_json_of_the_message() -> None:
    statuses = [
        VersionStatus(2**63 - 1, state, code, "text") for state in PublicState for code in Code
    ]
    message = GetModelStatusResponse()
    for status in statuses:
        added = message.model_version_status.add(version=status.version, state=status.state)
        added.status.error_code = status.code
        added.status.error_message = "text"
    expected = json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    assert json.loads(encode_status(statuses)) == json.loads(expected)


def test_no_versions() -> None:
    assert encode_status([]) == b'{\n "model_version_status": []\n}\n'


def test_models() -> None:
    statuses = [VersionStatus(2, PublicState.LOADING), VersionStatus(1, PublicState.AVAILABLE)]
    found = json.loads(encode_models([('a"', statuses), ("b", []), ("\udc80", [])]))
    assert found["models"] == ['a"', "b", "?"]
    assert found["object"] == "list"
    versions = json.loads(encode_status(statuses))["model_version_status"]
    ready = any(version["state"] == "AVAILABLE" for version in versions)
    assert found["data"][:2] == [
        {"id": 'a"', "object": "model", "ready": ready, "versions": versions},
        {"id": "b", "object": "model", "ready": False, "versions": []},
    ]
    assert json.loads(encode_models([])) == {"models": [], "object": "list", "data": []}


SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec(DataType.FLOAT, (None, 1), "x:0")},
    {"y": TensorSpec(DataType.STRING, None, "é:0")},
)


def test_metadata() -> None:
    text = encode_metadata('m"', 3, signature_def_map({"serving_default": SIGNATURE})).decode()
    front = '{\n"model_spec":{\n "name": "m\\"",\n "signature_name": "",\n "version": "3"\n}\n,\n'
    assert text.startswith(front + '"metadata": {"signature_def": {\n "signature_def": {\n  "serv')
    assert text.endswith("\n}\n}\n}\n")
    assert json.loads(text)["metadata"] == {
        "signature_def": {
            "signature_def": {
                "serving_default": {
                    "inputs": {
                        "x": {
                            "dtype": "DT_FLOAT",
                            "tensor_shape": {
                                "dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}],
                                "unknown_rank": False,
                            },
                            "name": "x:0",
                        }
                    },
                    "outputs": {
                        "y": {
                            "dtype": "DT_STRING",
                            "tensor_shape": {"dim": [], "unknown_rank": True},
                            "name": "é:0",
                        }
                    },
                    "method_name": "tensorflow/serving/predict",
                    "defaults": {},
                }
            }
        }
    }


def test_metadata_of_a_model_without_signatures() -> None:
    found = json.loads(encode_metadata("m", 0, SignatureDefMap()))
    assert found == {
        "model_spec": {"name": "m", "signature_name": "", "version": "0"},
        "metadata": {"signature_def": {"signature_def": {}}},
    }


def test_metadata_shows_defaults() -> None:
    signature = Signature("s", SIGNATURE.inputs, {}, defaults={"x": np.float32([[2]])})
    found = json.loads(encode_metadata("m", 1, signature_def_map({"s": signature})))
    shown = found["metadata"]["signature_def"]["signature_def"]["s"]["defaults"]["x"]
    assert (shown["dtype"], shown["float_val"]) == ("DT_FLOAT", [2.0])
