"""A library with operations of its own, by TensorFlow's C API: it compiles in a second."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compat.models import edited, tf1

DOUBLE = "ServingdTestDouble"
SHOUT = "TFText>ServingdTestShout"
"""Called as TensorFlow Text's are."""

_SOURCE = """
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_tensor.h"

static void compute(void* kernel, TF_OpKernelContext* context) {
  TF_Status* status = TF_NewStatus();
  TF_Tensor* in = NULL;
  TF_GetInput(context, 0, &in, status);
  int64_t sizes[8];
  for (int i = 0; i < TF_NumDims(in); ++i) sizes[i] = TF_Dim(in, i);
  TF_Tensor* out = TF_AllocateOutput(
      context, 0, TF_FLOAT, sizes, TF_NumDims(in), TF_TensorByteSize(in), status);
  for (int64_t i = 0; i < TF_TensorElementCount(in); ++i)
    ((float*)TF_TensorData(out))[i] = 2 * ((float*)TF_TensorData(in))[i];
  TF_DeleteTensor(in);
  TF_DeleteTensor(out);
  TF_DeleteStatus(status);
}

static void add(const char* name) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(name);
  TF_OpDefinitionBuilderAddInput(op, "x: float");
  TF_OpDefinitionBuilderAddOutput(op, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(op, &TF_ShapeInferenceContextSetUnknownShape);
  TF_RegisterOpDefinition(op, status);
  TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", NULL, &compute, NULL), status);
  TF_DeleteStatus(status);
}

__attribute__((constructor)) static void add_all(void) {
  add(NAME);
}
"""


def build(folder: Path, operation: str) -> Path:
    """The library; skips the test where nothing can be compiled."""
    import tensorflow as tf

    compiler = shutil.which("c++") or shutil.which("g++")
    include = tf.sysconfig.get_include()
    if compiler is None or not os.path.exists(f"{include}/tensorflow/c/ops.h"):
        pytest.skip("no C++ compiler, or no headers of TensorFlow")
    root = os.path.dirname(tf.__file__)
    source, library = folder / "operations.cc", folder / "operations.so"
    source.write_text(_SOURCE.replace("NAME", f'"{operation}"'))
    libraries = [f"{root}/libtensorflow_cc.so.2", f"{root}/libtensorflow_framework.so.2"]
    command = [compiler, "-shared", "-fPIC", "-w", f"-I{include}", str(source), *libraries]
    command += ["-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the library does not compile: {done.stderr[:500]}")
    return library


def model_with(operation: str):
    """An export of y = 2 x by an operation that need not be registered here."""

    def build_graph(tf):
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        return {"serving_default": ({"x": x}, {"y": tf.identity(x, name="y")})}

    def put(path, message):
        (node,) = [n for n in message.meta_graphs[0].graph_def.node if n.name == "y"]
        node.op = operation
        node.attr.clear()

    return edited(tf1(build_graph), put)
