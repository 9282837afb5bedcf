"""The program that optimises a graph; the server runs it as a child process.

`python -m servingd.servables.saved_model.optimise.child IN OUT` reads the SavedModel in folder IN,
turns its variables into constants so that TensorFlow can fold and fuse, checks that the answers
stay the same, and writes OUT/graph.pb. Where that is not safe it writes no graph, and
OUT/report.json says why. There is one child at a time, niced, and it dies with its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from servingd.config.saved_model import extensions
from servingd.core.types import Signature, Tensors
from servingd.errors import Code, ServingError
from servingd.machine.mounts import is_local
from servingd.servables.saved_model.files.mapped_weights import MappedWeights
from servingd.servables.saved_model.files.meta_graph import Initialiser, node_name, read_meta_graph
from servingd.servables.saved_model.files.static_tables import Filled, NotStatic, find_filled
from servingd.servables.saved_model.files.weights import KEPT_BYTES, kept_bytes
from servingd.servables.saved_model.optimise.freeze import freeze, optimise_graph
from servingd.servables.saved_model.optimise.gathers import has_gathers, needed_nodes, only_gathered
from servingd.servables.saved_model.optimise.kept_variables import (
    add_values,
    can_be_mapped,
    map_values,
    read_of,
    values_of,
    variable_bytes,
    write_values,
)
from servingd.servables.saved_model.session.c_api import make_call
from servingd.servables.saved_model.session.device_assignment import clear_devices
from servingd.servables.saved_model.session.opening import ASSIGN
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.saved_model.session.python_session import PythonSession
from servingd.servables.saved_model.trials.parity import agree
from servingd.servables.saved_model.trials.varied import (
    Strings,
    strings_of,
    varied_inputs,
)
from servingd.servables.synthetic_inputs import has_open_rows, synthetic_inputs
from servingd.servables.tensorflow_runtime.extensions import load_extensions, load_extensions_for
from servingd.servables.tensorflow_runtime.runtime import tensorflow, translate

GRAPH_FILE = "graph.pb"
REPORT_FILE = "report.json"

Values = list[np.ndarray[Any, Any]]
Call = Callable[..., list[Any]]
"""One signature's callable of a session: takes its inputs, returns its outputs."""

_TRANSIENT = (Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED, Code.DATA_LOSS)
"""TensorFlow's codes for trouble with files and memory: another try may succeed."""

_NO_MEMORY = "Could not allocate ndarray"
"""TensorFlow's text for too little memory where it has no code for it."""

_PROOF_ROWS = (1, 5, 2, 17, 3, 8)
"""Rows of the inputs of each kind, in order of `SEEDS`."""

_RUN_S = 20.0
"""Seconds. A run on synthetic inputs that takes longer may never end."""

_PROOF_S = 5.0
"""Seconds after which a signature gets no further trials."""


class Declined(Exception):
    """The model is not optimised, or not yet; it serves on as it is. The text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Optimise one model. Return 0 if the report is written, whatever it says, else 1.

    A report holds for this model for good. A failure that another try might not have (a missing
    file, too little memory) gives no report: its reason is the last line on stderr.
    """
    parser = argparse.ArgumentParser(prog="optimise", description=__doc__)
    parser.add_argument("source", metavar="IN", help="a SavedModel's folder")
    parser.add_argument("target", metavar="OUT", help="an existing folder for the result")
    parser.add_argument("--tags", default="serve", help="tags of the meta graph, with commas")
    parser.add_argument("--memory-limit-bytes", type=int, default=0)
    parser.add_argument("--cpu-limit-seconds", type=int, default=0)
    parser.add_argument("--op-libraries", default="", help="files with operations, with commas")
    parser.add_argument("--python-imports", default="", help="modules with them, with commas")
    parser.add_argument("--parent", type=int, default=0, help="die when this process is gone")
    parser.add_argument("--idle-class", action="store_true", help="run on idle processors only")
    parser.add_argument("--map-from-bytes", type=int, default=0, help="0: no variable is mapped")
    options = parser.parse_args(arguments)
    _restrict_process(options)
    try:
        tensorflow()  # not the model's fault if it cannot be imported: no report
        load_extensions(extensions(options.op_libraries, options.python_imports))
        report = _optimise(
            options.source, options.target, _tags(options.tags), options.map_from_bytes
        )
        Path(options.target, REPORT_FILE).write_text(json.dumps(report))
    except MemoryError:
        return _failed(f"out of memory (limit: {options.memory_limit_bytes} bytes)")
    except (OSError, ServingError) as error:
        return _failed(str(error))
    return 0


def _failed(text: str) -> int:
    sys.stderr.write(f"\noptimise: {' '.join(text.split())}\n")
    return 1


def _tags(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _optimise(
    source: str, target: str, tags: tuple[str, ...], map_from_bytes: int = 0
) -> dict[str, Any]:
    """Write the graph; return the report: what initialises it, or why there is none.

    Variables of `map_from_bytes` or more that are gathered from are written to a file beside it, to
    be mapped, if the folder is on this machine; 0: none. Raises ServingError, OSError or
    MemoryError where another try may end differently.
    """
    maps = map_from_bytes > 0 and is_local(Path(target))
    store = _Store(Path(target), map_from_bytes) if maps else None
    try:
        graph_def, initialiser = optimise(source, tags, store=store)
    except Declined as reason:
        return {"optimised": False, "reason": str(reason)}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the converter stumbles over, the plain graph serves
        translated = translate(error)
        if translated.code in _TRANSIENT:
            raise translated from error
        if _NO_MEMORY in translated.message:
            raise MemoryError from error
        return {"optimised": False, "reason": f"{type(error).__name__}: {translated}"[:2000]}
    Path(target, GRAPH_FILE).write_bytes(graph_def.SerializeToString(deterministic=True))
    return {
        "optimised": True,
        "initialiser": initialiser.operation,
        "assets": dict(initialiser.assets),
        "values": {} if store else values_of(graph_def),
        "weights": store.written.as_json() if store and store.written else None,
    }


@dataclass(slots=True)
class _Store:
    """Where large variables are written, to be mapped."""

    folder: Path
    least_bytes: int
    """Bytes from which on a variable that is gathered from is large."""
    written: MappedWeights | None = None


def optimise(
    source: str, tags: tuple[str, ...], run_s: float = _RUN_S, store: _Store | None = None
) -> tuple[Any, Initialiser]:
    """Return the optimised `tensorflow.GraphDef` of a SavedModel, and what initialises it.

    A run on synthetic inputs may take `run_s` seconds. The values of variables that stay are
    written to `store`; None: the server gets them from its plain session. Raises Declined where
    freezing is not safe, the answers differ from the plain graph's, or a run does not end.
    """
    meta_graph = read_meta_graph(source, tags)
    signatures, initialiser = meta_graph.signatures, meta_graph.initialiser
    if not signatures:
        raise Declined("it has no signature")
    load_extensions_for(meta_graph.graph())
    plain = PythonSession(source, tags, ONE_THREAD)
    tensors = sorted(
        {
            spec.tensor_name
            for signature in signatures.values()
            for spec in (*signature.outputs.values(), *signature.inputs.values())
        }
    )
    if "" in tensors:
        raise Declined("a signature has a sparse or composite tensor")
    plain_graph = plain.graph.as_graph_def()
    filled = _filled(plain_graph, tensors, initialiser, meta_graph.restores)
    assets = {t: file for t, file in initialiser.assets.items() if node_name(t) in filled.assets}
    initialiser = Initialiser(initialiser.operation, assets)
    roots = [*tensors, *assets, *([initialiser.operation] if initialiser.operation else [])]
    many = kept_bytes(source) > 0
    if store:
        kept = _mapped(plain_graph, [node_name(root) for root in roots], store.least_bytes, many)
    else:
        kept = _kept(plain_graph) if many else []
    frozen = freeze(plain, [node_name(root) for root in roots], (*filled.path_nodes, *kept))
    definitions = [plain.meta_graph.signature_def[name] for name in signatures]
    graph_def = optimise_graph(frozen, roots, definitions, assets)
    clear_devices(graph_def)
    if _filled(graph_def, tensors, initialiser) != filled:
        raise Declined("its tables are not filled in the same way once optimised")
    add_values(graph_def, kept)
    if kept and has_gathers(graph_def):
        raise Declined("it still gathers from large variables without reading them first")
    strings = strings_of(meta_graph.graph())
    optimised = _session(graph_def, initialiser, source)
    if reads := values_of(graph_def):
        if store:
            store.written = write_values(store.folder, plain.session, reads)
            values = map_values(store.folder, store.written)
        else:
            values = dict(zip(reads, plain.session.run(list(reads.values())), strict=True))
        optimised.run(ASSIGN, values)
    _compare_sessions(plain.session, optimised, signatures, strings, run_s)
    return graph_def, initialiser


def _mapped(
    graph_def: Any, roots: Sequence[str], least_bytes: int, many_weights: bool
) -> list[str]:
    """Return the nodes of the variables that stay, and whose values are mapped from a file.

    They are those that are only gathered from, and where there are `many_weights` all large ones.
    """
    needed = filter(can_be_mapped, needed_nodes(graph_def, roots))
    sizes = {node.name: variable_bytes(node) for node in needed}
    gathered = only_gathered(graph_def, [n for n, s in sizes.items() if s >= least_bytes], roots)
    large = [name for name, size in sizes.items() if many_weights and size >= KEPT_BYTES]
    return list(dict.fromkeys([*gathered, *large]))


def _kept(graph_def: Any) -> list[str]:
    """Return the nodes of the variables that stay: the large ones. Raises Declined if they cannot.

    Their values are shared with the plain session, so that they are in memory once. Where a graph
    gathers from a variable as it lies, TensorFlow hands out copies of it.
    """
    nodes = {node.name: node for node in graph_def.node}
    if has_gathers(graph_def):
        raise Declined("it gathers from large variables without reading them first")
    kept = [name for name, node in nodes.items() if variable_bytes(node) >= KEPT_BYTES]
    for name in kept:
        read = nodes.get(read_of(name))
        if read is None or read.op != "ReadVariableOp" or list(read.input) != [name]:
            raise Declined(f"nothing in it reads {name} alone")
    return kept


def _filled(
    graph_def: Any, tensors: Sequence[str], initialiser: Initialiser, restores: str = ""
) -> Filled:
    """Return what the initialiser fills. Raises Declined if anything keeps state besides."""
    try:
        return find_filled(graph_def, tensors, initialiser, restores)
    except NotStatic as reason:
        raise Declined(str(reason)) from reason


def _session(graph_def: Any, initialiser: Initialiser, source: str) -> Any:
    """Open a `tf.compat.v1.Session` over an optimised graph as it is served, and initialise it."""
    tf1 = tensorflow().compat.v1
    config = ONE_THREAD.config()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    graph = tensorflow().Graph()
    with graph.as_default():
        tensorflow().import_graph_def(graph_def, name="")
    session = tf1.Session(graph=graph, config=config)
    if initialiser.operation:
        feeds = {n: f"{source}/assets/{file}" for n, file in initialiser.assets.items()}
        session.run(node_name(initialiser.operation), feeds)
    return session


def _compare_sessions(
    plain: Any,
    optimised: Any,
    signatures: Mapping[str, Signature],
    strings: Strings,
    run_s: float,
) -> None:
    """Raise Declined unless both sessions give the same answers, and the plain one twice the same.

    This is a second check: they are equal because of how the graph was made (DESIGN 009). Both
    may refuse synthetic inputs; at least one signature must answer.
    """
    answered = False
    for name, signature in signatures.items():
        feeds = [spec.tensor_name for spec in signature.inputs.values()]
        fetches = [spec.tensor_name for spec in signature.outputs.values()]
        plain_call, optimised_call = (
            make_call(s, feeds, fetches, timeout_s=run_s) for s in (plain, optimised)
        )
        started = time.monotonic()
        for inputs in _trials(signature, strings):
            answered |= _compare(name, plain_call, optimised_call, list(inputs.values()))
            if time.monotonic() - started > _PROOF_S:
                break
    if not answered:
        raise Declined("nothing is proven: no signature answers inputs that are made up")


def _trials(signature: Signature, strings: Strings) -> Iterator[Tensors]:
    """Make inputs of every kind and several sizes; the mildest first, so that one is accepted."""
    may_vary = has_open_rows(signature)
    made = [synthetic_inputs(signature, 3 if may_vary else 1, seed=1)]
    made += [
        varied_inputs(signature, rows if may_vary else 1, seed, strings)
        for seed, rows in enumerate(_PROOF_ROWS)
    ]
    return (inputs for inputs in made if inputs is not None)


def _compare(name: str, plain: Call, optimised: Call, arrays: Values) -> bool:
    """Raise Declined if the answers differ; return whether there was an answer to compare."""
    first, second, third = (_run(call, arrays) for call in (plain, plain, optimised))
    if not agree(first, second):
        raise Declined(f"signature {name} does not give the same answer twice")
    if not agree(first, third):
        raise Declined(f"signature {name} gives other answers once optimised")
    return not isinstance(first, str)


def _run(call: Call, arrays: Values) -> Values | str:
    """Return the outputs, or the name of the error with which the model refuses the inputs."""
    errors = tensorflow().errors
    try:
        return [np.asarray(value) for value in call(*arrays)]
    except errors.InvalidArgumentError:
        return "InvalidArgument"
    except errors.DeadlineExceededError:
        raise Declined("a run on made-up inputs does not end") from None


def _restrict_process(options: argparse.Namespace) -> None:
    """Lower this process's priority, limit it, hide GPUs, and die with the process `parent`."""
    parent, memory_limit_bytes = options.parent, options.memory_limit_bytes
    cpu_limit_seconds = options.cpu_limit_seconds
    os.nice(19)
    if options.idle_class and hasattr(os, "SCHED_IDLE"):
        # Unlike a niced one, such a process makes way at once when the server's threads wake up.
        with contextlib.suppress(OSError):  # a sandbox may forbid it: then it is niced alone
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the server has taken the accelerators' memory
    if memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_bytes, memory_limit_bytes))
    if cpu_limit_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit_seconds, cpu_limit_seconds + 1))
    if parent and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it went before we asked
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
