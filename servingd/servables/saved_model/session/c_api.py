"""Sessions opened through TensorFlow's C API: the GIL is free while a model loads.

It uses no public API: ctypes, and one pointer inside a pybind11 object. So all of it is in this
file, and it is tested once per process on a small graph (`is_sound`). Where that fails, the public
session loader is used instead, which is only slower.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from servingd.core.types import CPU_0
from servingd.errors import DataLoss, error_from_code
from servingd.servables.saved_model.files.mapped_weights import MappedTensor
from servingd.servables.saved_model.session.device_assignment import device_name
from servingd.servables.saved_model.session.options import ONE_THREAD, SessionOptions
from servingd.servables.tensorflow_runtime.runtime import clean, tensorflow

_log = logging.getLogger(__name__)

_POINTER = ctypes.c_void_p
_UINT8 = 4
"""The number of a type of one byte."""
_VALUE_SLOT = 16
"""Where a pybind11 object keeps the pointer to its C++ value."""


@functools.cache
def _library() -> ctypes.CDLL:
    folder = os.path.dirname(str(tensorflow().__file__))
    library = ctypes.CDLL(os.path.join(folder, "libtensorflow_cc.so.2"))
    for name in (
        "TF_NewStatus",
        "TF_NewGraph",
        "TF_NewSessionOptions",
        "TF_LoadSessionFromSavedModel",
        "TF_NewSession",
        "TF_NewBufferFromString",
        "TF_NewImportGraphDefOptions",
        "TF_NewTensor",
        "TF_AllocateTensor",
        "TF_TensorData",
        "TF_GraphOperationByName",
    ):
        getattr(library, name).restype = _POINTER
    number, size = ctypes.c_int, ctypes.c_size_t
    library.TF_DataTypeSize.restype = size
    library.TF_TensorData.argtypes = [_POINTER]
    library.TF_AllocateTensor.argtypes = [number, _POINTER, number, size]
    library.TF_NewTensor.argtypes = [number, _POINTER, number, _POINTER, size, _POINTER, _POINTER]
    library.TF_GetCode.argtypes = [_POINTER]
    library.TF_Message.argtypes = [_POINTER]
    library.TF_Message.restype = ctypes.c_char_p
    return library


class _Status:
    """A TF_Status; leaving its block raises the error that was set in it."""

    def __enter__(self) -> _POINTER:
        self._status = _POINTER(_library().TF_NewStatus())
        return self._status

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        library = _library()
        code = library.TF_GetCode(self._status)
        message = library.TF_Message(self._status).decode(errors="replace")
        library.TF_DeleteStatus(self._status)
        if code and error is None:
            raise error_from_code(code, clean(message))


class CApiSession:
    """A session of the C API, adopted by a Python Session so that its fast callables work on it.

    It is freed by `close`, or else when it is collected. The pointer that was swapped in must be
    taken out before the Python Session is freed, or the process aborts. That holds at exit too,
    where the session itself is not freed, because a thread may still run on it.
    """

    def __init__(self, session: int, graph: _POINTER) -> None:
        tf1 = tensorflow().compat.v1
        self._pointers = _POINTER(session), graph
        # It runs nothing. On the host: else it would take memory of every GPU.
        self._python = tf1.Session(graph=tensorflow().Graph(), config=ONE_THREAD.config())
        slot = _POINTER.from_address(id(self._python._session) + _VALUE_SLOT)
        own, slot.value = slot.value, session
        weakref.finalize(self, _give_back, self._python, slot, own)
        self._free = weakref.finalize(
            self, _free, self._python, slot, own, _POINTER(session), graph
        )
        self._free.atexit = False

    def make_call(
        self,
        feeds: list[str],
        fetches: list[str],
        targets: list[str] | None = None,
        timeout_s: float | None = None,
    ) -> Callable[..., list[Any]]:
        """Return a private callable: arrays in the order of `feeds` in, values of `fetches` out.

        It runs in the calling thread, from any thread, without the GIL; with a timeout on threads
        of the session.
        """
        return make_call(self._python, feeds, fetches, targets, timeout_s)

    def trace(self, feeds: list[str], fetches: list[str], arrays: Iterable[Any]) -> Any:
        """Run once; return the `tensorflow.RunMetadata` that says where each operation ran."""
        return traced(self._python, feeds, fetches, arrays)

    def assign_mapped(self, file: int, tensors: Sequence[MappedTensor], target: str) -> None:
        """Run the operation `target`, fed with tensors that lie in a file, which is mapped.

        The session owns the mappings: each goes with the last that holds its tensor. The file must
        stay as it is until then; its descriptor need not. Raises OSError or a ServingError.
        """
        _run_on_mapped(*self._pointers, file, tensors, target)

    def interrupt(self) -> None:
        """End the runs under way with CANCELLED, from any thread. It answers no more calls."""
        interrupt(self._python)

    def close(self) -> None:
        """Free the session and its graph; no callable may be running."""
        self._free()


def _give_back(python: Any, slot: _POINTER, own: int | None) -> None:
    """Point a Python Session to its own session again, and close that: callables fail then."""
    slot.value = own
    python.close()


def _free(python: Any, slot: _POINTER, own: int | None, session: _POINTER, graph: _POINTER) -> None:
    _give_back(python, slot, own)
    _delete(session, graph)


def _delete(session: _POINTER, graph: _POINTER) -> None:
    library = _library()
    try:
        with _Status() as status:
            library.TF_CloseSession(session, status)
    finally:
        with _Status() as status:
            library.TF_DeleteSession(session, status)
        library.TF_DeleteGraph(graph)


def _adopt(session: int, graph: _POINTER) -> CApiSession:
    try:
        return CApiSession(session, graph)
    except BaseException:
        _delete(_POINTER(session), graph)
        raise


def give_back_tensors(sizes: Iterable[int]) -> None:
    """Return to the system the memory of tensors of these sizes in bytes, which were freed before.

    TensorFlow keeps it for other tensors. So some of each size are made, which get that memory, and
    their pages are dropped before they are freed in turn: nobody else owns them meanwhile. Two of
    each, since there may be a place that fits better, and was never used.
    """
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    library, libc, made = _library(), _libc(), []
    for size in [size for size in sizes for _ in range(2)]:
        tensor = library.TF_AllocateTensor(_UINT8, (ctypes.c_int64 * 1)(size), 1, size)
        start = library.TF_TensorData(tensor) if tensor else None
        if not start:
            continue
        made.append(_POINTER(tensor))
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            libc.madvise(first, length, mmap.MADV_DONTNEED)
    for tensor in made:
        library.TF_DeleteTensor(tensor)


class _Output(ctypes.Structure):
    """TF_Output: an operation, and which of its outputs."""

    _fields_ = (("operation", _POINTER), ("index", ctypes.c_int))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    number, size = ctypes.c_int, ctypes.c_size_t
    libc.mmap.argtypes = [_POINTER, size, number, number, number, ctypes.c_long]
    libc.mmap.restype = _POINTER
    libc.munmap.argtypes = [_POINTER, size]
    libc.madvise.argtypes = [_POINTER, size, number]
    return libc


def _run_on_mapped(
    session: _POINTER, graph: _POINTER, file: int, tensors: Sequence[MappedTensor], target: str
) -> None:
    from tensorflow.core.protobuf import config_pb2

    library, count = _library(), len(tensors)
    inputs, values = (_Output * count)(), (_POINTER * count)()
    targets = (_POINTER * 1)(_operation(graph, target))
    run_options = _buffer(config_pb2.RunOptions(inter_op_thread_pool=-1).SerializeToString())
    try:
        for number, tensor in enumerate(tensors):
            inputs[number] = _Output(_operation(graph, tensor.name), 0)
            values[number] = _mapped(file, tensor)
        with _Status() as status:
            library.TF_SessionRun(
                *(session, run_options, inputs, values, ctypes.c_int(count)),
                *(None, None, 0, targets, 1, None, status),
            )
    finally:
        library.TF_DeleteBuffer(run_options)
        for value in values:
            if value:  # the variable holds what it was given
                library.TF_DeleteTensor(_POINTER(value))


def _operation(graph: _POINTER, name: str) -> int:
    operation: int | None = _library().TF_GraphOperationByName(graph, name.encode())
    if not operation:
        raise DataLoss(f"the graph has no operation {name}")
    return operation


def _mapped(file: int, tensor: MappedTensor) -> int:
    """Return a TF_Tensor whose memory is a part of a file; whoever frees it unmaps that."""
    libc, shape = _libc(), tensor.shape
    if _library().TF_DataTypeSize(tensor.data_type) * math.prod(shape) != tensor.size:
        raise DataLoss(f"{tensor.name} has {tensor.size} bytes, which is not what its shape takes")
    address = libc.mmap(None, tensor.size, mmap.PROT_READ, mmap.MAP_SHARED, file, tensor.offset)
    if address in (None, _POINTER(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, f"{tensor.name} cannot be mapped: {os.strerror(number)}")
    lengths = (ctypes.c_int64 * len(shape))(*shape)
    unmap = ctypes.cast(libc.munmap, _POINTER)  # called with the address, the length, and nothing
    made: int | None = _library().TF_NewTensor(
        tensor.data_type, lengths, len(shape), address, tensor.size, unmap, None
    )
    if not made:  # it has unmapped it then
        raise DataLoss(f"{tensor.name} is no tensor")
    return made


def make_call(
    session: Any,
    feeds: list[str],
    fetches: list[str],
    targets: list[str] | None = None,
    timeout_s: float | None = None,
) -> Callable[..., list[Any]]:
    """Return a callable on a Python Session that runs in the calling thread.

    With `timeout_s` TensorFlow runs it on threads of the session, and ends it after that time.
    """
    options = _callable_options(feeds, fetches, targets or [])
    if timeout_s is not None:
        options.run_options.inter_op_thread_pool = 0
        options.run_options.timeout_in_ms = int(timeout_s * 1000)
    call: Callable[..., list[Any]] = session._make_callable_from_options(options)
    return call


def interrupt(session: Any) -> None:
    """End the runs under way on a Python Session: TensorFlow cancels what runs on one it closes."""
    from tensorflow.python.client import pywrap_tf_session

    pywrap_tf_session.TF_CloseSession(session._session)


def traced(session: Any, feeds: list[str], fetches: list[str], arrays: Iterable[Any]) -> Any:
    """Run once on a Python Session; see `CApiSession.trace`."""
    from tensorflow.core.protobuf import config_pb2

    options = _callable_options(feeds, fetches, [])
    options.run_options.trace_level = config_pb2.RunOptions.SOFTWARE_TRACE
    metadata = config_pb2.RunMetadata()
    session._make_callable_from_options(options)(*arrays, run_metadata=metadata)
    return metadata


def _callable_options(feeds: list[str], fetches: list[str], targets: list[str]) -> Any:
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions()
    options.feed.extend(feeds)
    options.fetch.extend(fetches)
    options.target.extend(targets)
    options.run_options.inter_op_thread_pool = -1
    return options


def without_wrapper(call: Callable[..., list[Any]]) -> Callable[[tuple[Any, ...], None], list[Any]]:
    """Return a callable of `make_call` without TensorFlow's Python around it.

    The wrapper costs as much as a run of a small graph. The result takes the arrays as one tuple,
    and None. Keep `call` for as long as it is used.
    """
    session = getattr(call, "_session", None)
    if session is None:  # not TensorFlow's: an ObjectModel's
        return lambda arrays, _: call(*arrays)
    from tensorflow.python.client import pywrap_tf_session

    handle = call._handle  # type: ignore[attr-defined]
    return functools.partial(pywrap_tf_session.TF_SessionRunCallable, session._session, handle)


def load_saved_model(path: str, tags: tuple[str, ...], options: SessionOptions) -> CApiSession:
    """Open the meta graph with exactly `tags`: restored and initialised, in this thread.

    Raises a ServingError with TensorFlow's code and text.
    """
    from tensorflow.core.protobuf import config_pb2

    library = _library()
    names = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
    c_options = _session_options(options)
    run_options = _buffer(config_pb2.RunOptions(inter_op_thread_pool=-1).SerializeToString())
    graph = _POINTER(library.TF_NewGraph())
    try:
        with _Status() as status:
            session = library.TF_LoadSessionFromSavedModel(
                c_options, run_options, os.fsencode(path), names, len(tags), graph, None, status
            )
    except BaseException:
        library.TF_DeleteGraph(graph)
        raise
    finally:
        library.TF_DeleteBuffer(run_options)
        library.TF_DeleteSessionOptions(c_options)
    return _adopt(session, graph)


def load_graph_def(source: str | bytes, options: SessionOptions, optimised: bool) -> CApiSession:
    """Open a session over a serialised GraphDef, or the file with one, on the device of `options`.

    Nodes that name a device stay there. Those of `optimised` ones are not optimised again.
    """
    library = _library()
    c_options = _session_options(options, meta_optimizer=not optimised)
    graph = _POINTER(library.TF_NewGraph())
    try:
        if isinstance(source, bytes):
            _import(
                graph, ctypes.cast(ctypes.c_char_p(source), _POINTER).value, len(source), options
            )
        else:
            _import_file(graph, source, options)
        with _Status() as status:
            session = library.TF_NewSession(graph, c_options, status)
    except BaseException:
        library.TF_DeleteGraph(graph)
        raise
    finally:
        library.TF_DeleteSessionOptions(c_options)
    return _adopt(session, graph)


def _import_file(graph: _POINTER, path: str, options: SessionOptions) -> None:
    with Path(path).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise DataLoss(f"{path} is empty")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    view = (ctypes.c_char * len(content)).from_buffer(content)
    try:
        _import(graph, ctypes.addressof(view), len(content), options)
    finally:
        del view
        content.close()


def _import(graph: _POINTER, address: int | None, length: int, options: SessionOptions) -> None:
    library = _library()
    buffer = _Buffer(address, length, None)
    c_options = _POINTER(library.TF_NewImportGraphDefOptions())
    try:
        if options.device is not None and options.device != CPU_0:
            name = device_name(options.device).encode()
            library.TF_ImportGraphDefOptionsSetDefaultDevice(c_options, name)
        with _Status() as status:
            library.TF_GraphImportGraphDef(graph, ctypes.byref(buffer), c_options, status)
    finally:
        library.TF_DeleteImportGraphDefOptions(c_options)


class _Buffer(ctypes.Structure):
    """TF_Buffer: data, length, deallocator."""

    _fields_ = (("data", _POINTER), ("length", ctypes.c_size_t), ("deallocator", _POINTER))


def _buffer(content: bytes) -> _POINTER:
    return _POINTER(_library().TF_NewBufferFromString(content, ctypes.c_size_t(len(content))))


def _session_options(options: SessionOptions, meta_optimizer: bool = True) -> _POINTER:
    library = _library()
    c_options = _POINTER(library.TF_NewSessionOptions())
    settings = options.config()
    if not meta_optimizer:
        settings.graph_options.rewrite_options.disable_meta_optimizer = True
    content = settings.SerializeToString()
    try:
        with _Status() as status:
            library.TF_SetConfig(c_options, content, ctypes.c_size_t(len(content)), status)
    except BaseException:
        library.TF_DeleteSessionOptions(c_options)
        raise
    return c_options


@functools.cache
def is_sound() -> bool:
    """Return whether all this works with this TensorFlow: tried once, on a tiny graph."""
    try:
        return _self_test()
    except Exception as error:
        _log.warning("sessions are opened the public way, the C API test failed: %s", error)
        return False


def _self_test() -> bool:
    tf1 = tensorflow().compat.v1
    with tensorflow().Graph().as_default() as graph:
        x = tf1.placeholder(np.float32, [None], name="x")
        tf1.add(x * 0.5, 2.0, name="y")
        definition = graph.as_graph_def()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.pb")
        path.write_bytes(definition.SerializeToString())
        session = load_graph_def(str(path), ONE_THREAD, optimised=False)
    call = session.make_call(["x:0"], ["y:0"])
    (y,) = call(np.array([1.0, 2.0, 5.0], np.float32))
    right = bool(np.array_equal(y, [2.5, 3.0, 4.5]))
    del call
    session.close()
    if not right:
        _log.warning("sessions are opened the public way, the C API gave %s", y)
    return right
