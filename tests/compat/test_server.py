"""A part of the models through the whole server: the same answers over gRPC."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from servingd.servables.saved_model.files.meta_graph import read_meta_graph
from tests.compat.models import MODELS, inputs_for
from tests.compat.truth import Refusal, truth_of
from tests.e2e.process import Process

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

NAMES = ("half_of_tensorflow_1", "column", "matrix", "table_from_asset", "partial_run", "words")
SERVED = [model for model in MODELS if model.name in NAMES]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    for model in SERVED:
        model.export(root / model.name / "1")
    process = Process(root.parent / "compat-server.log", f"--model_repository={root}")
    process.repository = root
    try:
        yield process.wait_until_ready()
    finally:
        process.close()


@pytest.mark.parametrize("model", SERVED, ids=lambda model: model.name)
def test_the_server_answers_as_tensorflow(server, model):
    path = server.repository / model.name / "1"
    truth = truth_of(path)
    signature = read_meta_graph(str(path), ("serve",)).signatures["serving_default"]
    calls = model.calls or (("serving_default", tuple(signature.outputs)),)
    for number, shape in enumerate(model.shapes):
        inputs = inputs_for(model, signature, shape, number)
        for name, wanted in calls:
            theirs = truth.run(name, inputs, list(wanted))
            if isinstance(theirs, Refusal):
                with pytest.raises(grpc.RpcError) as refused:
                    server.predict(model.name, inputs, outputs=wanted)
                assert refused.value.code().value[0] == theirs.code
                continue
            mine = server.predict(model.name, inputs, outputs=wanted)
            for alias in wanted:
                expected = np.asarray(theirs[alias])
                assert mine[alias].tolist() == expected.reshape(mine[alias].shape).tolist()
