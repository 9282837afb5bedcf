"""The program that exports a Keras file as a SavedModel; the server runs it as a child process.

`python -m servingd.servables.keras.child FILE OUT` writes the SavedModel of `model.export()` into
the folder OUT. If the model cannot be loaded or exported, the last line on stdout is a JSON object
with the reason. The child dies with its parent.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Export one file. Return 0 if the SavedModel is written."""
    parser = argparse.ArgumentParser(prog="keras-export", description=__doc__)
    parser.add_argument("source", metavar="FILE")
    parser.add_argument("target", metavar="OUT")
    parser.add_argument("--allow-code", action="store_true", help="load what is no data, but code")
    parser.add_argument("--python-imports", default="", help="modules to import, with commas")
    parser.add_argument("--memory-limit-bytes", type=int, default=0)
    parser.add_argument("--parent", type=int, default=0, help="die when this process is gone")
    options = parser.parse_args(arguments)
    _restrict_process(options.parent, options.memory_limit_bytes)
    try:
        _export(options)
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        print(f"\n{json.dumps({'reason': reason})}", flush=True)
        return 1
    return 0


def _export(options: argparse.Namespace) -> None:
    for module in filter(None, options.python_imports.split(",")):
        importlib.import_module(module)
    import keras

    model = keras.models.load_model(options.source, compile=False, safe_mode=not options.allow_code)
    model.export(options.target, format="tf_saved_model", verbose=False)


def _restrict_process(parent: int, memory_limit_bytes: int) -> None:
    """Lower this process's priority, limit it, hide GPUs, and die with the process `parent`."""
    os.nice(5)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the server has taken the accelerators' memory
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))
    if parent and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it went before we asked
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
