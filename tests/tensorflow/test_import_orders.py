"""servingd, `tensorflow` and `tensorflow_serving` share a process, whoever comes first.

Facts, found with protobuf 7.36 (upb) and TensorFlow 2.21:

- `tensorflow_serving` 2.21.0: every module that is tried here works, in any order, with no
  setting of the environment. Importing any of its `_pb2` modules imports all of TensorFlow.
- `tensorflow_serving` 2.16.1 (asks for protobuf < 5): `predict_pb2`, `classification_pb2` and
  `prediction_service_pb2_grpc` work just as well. `prediction_service_pb2` does not (AttributeError
  on `has_options`: upb refuses what the old compiler wrote), nor do `get_model_status_pb2` and
  `model_service_pb2_grpc` (they look for `tsl` in a TensorFlow that has moved it). None of that has
  to do with servingd, and `PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python` changes only the first.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import absent

pytestmark = pytest.mark.tf

ROOT = Path(__file__).parents[2]
OLD_API = Path(sys.prefix) / "tensorflow-serving-api-2.16"

OLD_MODULES = (
    "tensorflow_serving.apis.predict_pb2",
    "tensorflow_serving.apis.classification_pb2",
    "tensorflow_serving.apis.prediction_service_pb2_grpc",
)
NEW_MODULES = (
    *OLD_MODULES,
    "tensorflow_serving.apis.prediction_service_pb2",
    "tensorflow_serving.apis.model_service_pb2_grpc",
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.get_model_status_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow_serving.config.model_server_config_pb2",
)

# Imports its arguments in order, then passes a request from one set of classes to the other.
EXCHANGE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from servingd.wire import protos

theirs = predict_pb2.PredictRequest()
theirs.model_spec.name = "m"
theirs.model_spec.version.value = 0
theirs.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.5]))
ours = protos.PredictRequest.FromString(theirs.SerializeToString())
assert type(ours) is not type(theirs)
assert ours.model_spec.WhichOneof("version_choice") == "version"
assert ours.inputs["x"].dtype == tf.float32.as_datatype_enum
back = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
assert back == theirs
assert tf.make_ndarray(back.inputs["x"]).tolist() == [1.0, 2.5]
assert hasattr(prediction_service_pb2_grpc, "PredictionServiceStub")
print("exchanged")
"""


def _exchange(*modules: str, path: tuple[Path, ...] = ()) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT, absent.HIDDEN))),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    result = subprocess.run(
        [sys.executable, "-c", EXCHANGE, *modules],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "exchanged"


@pytest.mark.parametrize(
    "order",
    list(itertools.permutations(("servingd", "tensorflow", "tensorflow_serving"))),
    ids=" then ".join,
)
def test_every_order(order: tuple[str, ...]) -> None:
    modules = {
        "servingd": ("servingd.wire.protos",),
        "tensorflow": ("tensorflow",),
        "tensorflow_serving": NEW_MODULES,
    }
    _exchange(*itertools.chain.from_iterable(modules[name] for name in order))


@pytest.mark.parametrize("servingd_first", [True, False])
def test_old_api(servingd_first: bool) -> None:
    assert (OLD_API / "tensorflow_serving").is_dir(), (
        "tensorflow-serving-api 2.16.1 is missing from the environment: run `make install`"
    )
    ours = "servingd.wire.protos"
    _exchange(*((ours, *OLD_MODULES) if servingd_first else (*OLD_MODULES, ours)), path=(OLD_API,))
