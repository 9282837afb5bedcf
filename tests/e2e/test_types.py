"""Servable types besides SavedModels, in a real process, by gRPC and REST."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest

from tests.e2e.process import Process
from tests.side_by_side import made_once

COLUMNS = {"id": "int64", "name": "string", "v": "float32[2]"}
TABLE = "id,name,v\n7,seven,7 0.5\n8,eight,8 0.5\n"


def rest(server: Process, path: str, body: dict) -> tuple[int, dict]:
    url = f"http://127.0.0.1:{server.http_port}/v1/models/{path}"
    try:
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def make_models(root) -> None:
    by_schema, by_options = root / "by_schema" / "1", root / "by_options" / "1"
    for version in (by_schema, by_options):
        version.mkdir(parents=True)
        (version / "table.csv").write_text(TABLE)
    (by_schema / "schema.json").write_text(json.dumps({"key": "id", "columns": COLUMNS}))


@pytest.fixture(scope="session")
def typed_models(tmp_path_factory):
    return made_once(tmp_path_factory.getbasetemp(), "typed_models", make_models)


@pytest.fixture(scope="module")
def server(typed_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("types")
    options = {"by_options": {"key": "id", "columns": COLUMNS, "missing": "error"}}
    models = [
        {"name": path.name, "base_path": str(path), "platform_options": options.get(path.name, {})}
        for path in sorted(typed_models.iterdir())
    ]
    (folder / "servingd.yaml").write_text(json.dumps({"models": models}))
    process = Process(folder / "server.log", f"--servingd_config_file={folder / 'servingd.yaml'}")
    try:
        process.wait_until_ready()
        yield process
        assert process.terminate() == 0, process.tail()
        assert "Traceback" not in process.log.read_text(), process.tail()
    finally:
        process.close()


def test_a_table_of_columns(server):
    found = server.predict("by_schema", {"id": np.array([[8], [1]], np.int64)})
    assert {n: v.tolist() for n, v in found.items()} == {
        "name": [[b"eight"], [b""]],
        "v": [[[8, 0.5]], [[0, 0]]],
    }
    answer = rest(server, "by_schema:predict", {"inputs": {"id": [7]}})
    assert answer == (200, {"outputs": {"name": ["seven"], "v": [[7, 0.5]]}})
    signature = server.metadata("by_schema").metadata["signature_def"].value
    assert b"serving_default" in signature


def test_a_table_that_refuses_keys_which_it_lacks(server):
    assert rest(server, "by_options:predict", {"instances": [{"id": 8}]})[1] == {
        "predictions": [{"name": "eight", "v": [8, 0.5]}]
    }
    status, error = rest(server, "by_options:predict", {"inputs": {"id": [8, 9]}})
    assert (status, error["error"]) == (404, "key 9 of input id at [1] is not in the table")
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("by_options", {"id": np.array([9], np.int64)})
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
