"""Operations that TensorFlow does not bring: from a library, a module, a package, or nowhere."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from tests import absent
from tests.compat.operations import DOUBLE, SHOUT, build, model_with

pytestmark = [pytest.mark.tf, pytest.mark.e2e]

X = np.array([1.0, 2.0, 5.0], np.float32)


def served(tmp_path, operation):
    model_with(operation)(tmp_path / "m" / "1")
    return "--model_name=m", f"--model_base_path={tmp_path / 'm'}", "--max_num_load_retries=0"


def answer(server):
    server.wait_until_ready()
    return server.predict("m", {"x": X})["y"].tolist()


def test_a_library_brings_operations_to_server_and_optimiser(start, tmp_path):
    library = build(tmp_path, DOUBLE)
    flags = (*served(tmp_path, DOUBLE), "--optimize_models=wait")
    server = start(*flags, f"--op_libraries={library}")
    assert answer(server) == [2.0, 4.0, 10.0]
    log = server.log.read_text()
    assert f"operations of {library} are registered" in log
    assert "not registered" not in log  # in the child neither


def test_a_module_brings_operations(start, tmp_path):
    library = build(tmp_path, DOUBLE)
    (tmp_path / "my_operations.py").write_text(
        f"import tensorflow as tf\ntf.load_op_library({str(library)!r})\n"
    )
    flags = (*served(tmp_path, DOUBLE), "--python_imports=my_operations")
    assert answer(start(*flags, PYTHONPATH=f"{tmp_path}:{absent.HIDDEN}")) == [2.0, 4.0, 10.0]


def test_tensorflow_text_is_imported_for_the_models_that_need_it(start, tmp_path):
    library = build(tmp_path, SHOUT)
    package = tmp_path / "tensorflow_text"  # stands for the real one
    package.mkdir()
    (package / "__init__.py").write_text(
        f"import tensorflow as tf\ntf.load_op_library({str(library)!r})\n"
    )
    flags = (*served(tmp_path, SHOUT), "--optimize_models=wait")
    server = start(*flags, PYTHONPATH=f"{tmp_path}:{absent.HIDDEN}")
    assert answer(server) == [2.0, 4.0, 10.0]
    assert "not registered" not in server.log.read_text()


@pytest.mark.parametrize(
    ("operation", "hint"),
    [
        ("ServingdTestNobodys", "can be named by --op_libraries, if it is a library, or by"),
        ("TFText>ServingdTestNobodys", "install the package tensorflow-text of TensorFlow's"),
        ("WhitespaceTokenizeWithOffsets", "is TensorFlow Text's: install the package"),
    ],
)
def test_the_error_says_what_would_bring_an_operation(start, tmp_path, operation, hint):
    server = start(*served(tmp_path, operation))
    server.wait_for("the failure", lambda: hint in server.log.read_text())
    with pytest.raises(grpc.RpcError):
        server.predict("m", {"x": X}, timeout=5)
    assert f"Op type not registered '{operation}'" in server.log.read_text()


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--op_libraries={0}/gone.so", "op_libraries"),
        ("--op_libraries={0}/none.so", "none.so cannot be loaded"),
        ("--python_imports=no_such_module_here", "no_such_module_here cannot be imported"),
        ("--python_imports=not/a/module", "names of modules"),
    ],
)
def test_what_cannot_be_loaded_ends_the_start(start, tmp_path, flag, text):
    (tmp_path / "none.so").write_text("no library")
    server = start(f"--model_repository={tmp_path}", flag.format(tmp_path))
    assert server.process.wait(60) != 0
    assert text in server.log.read_text()
