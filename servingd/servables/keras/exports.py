"""Exports Keras files as SavedModels, in a child process, and keeps what was exported."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from servingd.config.saved_model import Extensions
from servingd.errors import Cancelled, DeadlineExceeded, FailedPrecondition
from servingd.servables.saved_model.optimise.graph_cache import GraphCache

_FORMAT = "1"
"""A part of every key: change it when exports in the cache become unusable."""
_MAX_S = 1800.0
"""Seconds that an export may take."""
CHILD_BYTES = 1 << 30
"""Bytes that the child takes before it opens a model: TensorFlow and Keras."""
CHILD_WEIGHTS = 8
"""Bytes that it takes per byte of a file: the model, its checkpoint, and its exported graph."""
_THREAD_BYTES = 16 << 20
"""Bytes per processor that count as data, though they are never used: stacks."""
_PIECE = 1 << 20

_UNSAFE = ("safe_mode", "enable_unsafe_deserialization")
"""Words of Keras where a model has code of its own in it."""
_UNKNOWN = ("register_keras_serializable", "custom_objects")
"""Words of Keras where a model's class is not known."""


@dataclass(frozen=True, slots=True)
class Export:
    """A folder with a SavedModel."""

    path: str
    is_ours: bool
    """Whether it is this version's alone, and goes with it."""

    def discard(self) -> None:
        """Remove what nobody else will use."""
        if self.is_ours:
            shutil.rmtree(self.path, ignore_errors=True)


class Exporter:
    """Exports files, one at a time; what it keeps is found by a file's content. From any thread."""

    def __init__(self, cache_dir: str, extensions: Extensions) -> None:
        """`cache_dir` is the folder of optimised graphs; empty: nothing is kept."""
        self._cache = GraphCache(os.path.join(cache_dir, ".keras")) if cache_dir else None
        self._extensions = extensions
        self._turn = threading.Lock()

    def export(self, file: Path, allow_code: bool, job: ExportJob) -> Export:
        """Return a file's SavedModel, made if need be. Raises ServingError."""
        if self._cache is None or self._cache.folder is None:
            return self._into(
                Path(tempfile.mkdtemp(prefix="servingd-keras-")), file, allow_code, job
            )
        key = _key(file, allow_code, self._extensions)
        if found := self._cache.find(key):
            return Export(str(found), is_ours=False)
        with self._turn, self._cache.one_at_a_time(job.cancelled):
            if found := self._cache.find(key):  # somebody else made it meanwhile
                return Export(str(found), is_ours=False)
            work = self._cache.make_work_folder()
            try:
                made = self._into(work, file, allow_code, job)
                stored = self._cache.store(Path(made.path), key)
            except BaseException:
                self._cache.discard(work)
                raise
        return Export(str(stored), is_ours=stored == work)

    def _into(self, folder: Path, file: Path, allow_code: bool, job: ExportJob) -> Export:
        made = Export(str(folder), is_ours=True)
        try:
            job.run(file, folder, allow_code, self._extensions)
        except BaseException:
            made.discard()
            raise
        return made


class ExportJob:
    """One child process, which may be cancelled from another thread."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None  # guarded by _lock

    def cancel(self) -> None:
        """End the child, now or when it is started."""
        with self._lock:
            self.cancelled.set()
            if self._child is not None:
                self._child.kill()

    def run(self, file: Path, target: Path, allow_code: bool, extensions: Extensions) -> None:
        """Export a file into a folder. Raises ServingError with the reason, and what to do."""
        size = file.stat().st_size
        limit = CHILD_BYTES * 2 + CHILD_WEIGHTS * size + _THREAD_BYTES * (os.cpu_count() or 1)
        command = [
            sys.executable,
            "-m",
            "servingd.servables.keras.child",
            str(file),
            str(target),
            f"--memory-limit-bytes={limit}",
            f"--parent={os.getpid()}",
            f"--python-imports={','.join(extensions.python_imports)}",
            *(["--allow-code"] if allow_code else []),
        ]
        with tempfile.TemporaryFile() as output:
            with self._started(command, output.fileno()) as child:
                try:
                    code = child.wait(_MAX_S)
                except subprocess.TimeoutExpired:
                    raise DeadlineExceeded(
                        f"the export of {file.name} took more than {_MAX_S:.0f} s"
                    ) from None
            if self.cancelled.is_set():
                raise Cancelled(f"the export of {file.name} was cancelled")
            if code:
                output.seek(0)
                text = output.read().decode(errors="replace")
                raise FailedPrecondition(f"{file.name}: {_reason(code, text)}")

    @contextlib.contextmanager
    def _started(self, command: list[str], output: int) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:
            if self.cancelled.is_set():
                raise Cancelled("the load was cancelled")
            child = self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            yield child
        finally:
            with self._lock:
                self._child = None
            child.kill()  # no effect on one that has ended
            child.wait()


def _reason(code: int, output: str) -> str:
    """Return why a child failed, and what to do about it."""
    lines = [line for line in output.splitlines() if line.strip()] or ["it said nothing"]
    if code < 0:
        return f"its export ended with signal {signal.Signals(-code).name}: {lines[-1][:500]}"
    try:
        reason = str(json.loads(lines[-1])["reason"])
    except (ValueError, KeyError, TypeError):
        return f"its export ended with exit code {code}: {lines[-1][:500]}"
    text = " ".join(reason.split())[:800]
    if any(word in reason for word in _UNSAFE):
        return (
            f"it has code of its own in it (a Lambda layer). To run it, set platform_options "
            f"allow_code and --allow_python_models; or serve what model.export() makes. {text}"
        )
    if any(word in reason for word in _UNKNOWN):
        return (
            f"it has classes that are not Keras' own. Name the module that registers them by "
            f"--python_imports; or serve what model.export() makes. {text}"
        )
    return f"Keras cannot load or export it: {text}"


def _key(file: Path, allow_code: bool, extensions: Extensions) -> str:
    """Return the digest of what an export depends on: the file, and the programs."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            digest.update(piece)
    parts = [_FORMAT, file.suffix, str(allow_code), *extensions.python_imports]
    for package in ("keras", "tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            parts.append(f"{package} {metadata.version(package)}")
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
