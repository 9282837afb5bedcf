"""The checks of `doctor`: each looks at one thing of this machine, and knows the cure."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from servingd.cli.needs import has_tensorflow, missing_modules
from servingd.cli.output import size
from servingd.machine.cpus import all_cpus, cpus
from servingd.machine.memory import ram_budget
from servingd.machine.mounts import is_local

if TYPE_CHECKING:
    from servingd.config.server import ServerConfig

_FEW_FILES = 4096
_FEW_WATCHES = 8192
_LITTLE_MEMORY = 2 << 30
_LITTLE_DISK = 1 << 30
_LONG_IMPORT_S = 120
_CLOCK_NOT_SYNCHRONISED = 5
"""What the kernel's `adjtimex` returns then."""
_TIMEX_BYTES = 512
"""More than the kernel's structure has on any machine."""
_A_RECENT_YEAR = 2025
_PROXIES = ("grpc_proxy", "http_proxy")
_SPARED = ("no_grpc_proxy", "no_proxy")


class Level(enum.StrEnum):
    """How serious a finding is."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"


class Finding(NamedTuple):
    """What a check found."""

    check: str
    level: Level
    says: str
    cure: str = ""


class Subject(NamedTuple):
    """What is examined."""

    config: ServerConfig
    problem: str
    """Why the configuration cannot be used; then `config` is the default one."""
    has_models: bool = True


def configuration(subject: Subject) -> Iterator[Finding]:
    """Check that the configuration can be read."""
    if subject.problem:
        yield Finding(
            "configuration", Level.BAD, subject.problem, "servingd validate checks it in full"
        )


def packages(subject: Subject) -> Iterator[Finding]:
    """Check that the server is installed."""
    missing = missing_modules()
    version = platform.python_version()
    if missing:
        yield Finding(
            "packages",
            Level.BAD,
            f"Python {version}; the server is not installed: no {', '.join(missing)}",
            'pip install "servingd[cpu]"',
        )
    else:
        yield Finding("packages", Level.GOOD, f"Python {version}; the server is installed")


def processor(subject: Subject) -> Iterator[Finding]:
    """Check the CPUs, and that they have what TensorFlow's packages were built for."""
    usable, there = cpus(), all_cpus()
    of = f" of {there}" if usable != there else ""
    flags = _cpu_flags()
    if flags and "avx" not in flags and platform.machine() == "x86_64":
        yield Finding(
            "processor",
            Level.BAD,
            "the CPU has no AVX, and TensorFlow's packages need it",
            "use another machine, or a TensorFlow that was built for this one",
        )
        return
    yield Finding("processor", Level.GOOD, f"{usable}{of} CPUs may be used")


def memory(subject: Subject) -> Iterator[Finding]:
    """Check how much memory models may take."""
    budget = ram_budget()
    if budget and budget < _LITTLE_MEMORY:
        yield Finding(
            "memory",
            Level.DOUBTFUL,
            f"models may take {size(budget)}; TensorFlow alone takes about 600 MiB",
            "give the machine or the container more memory",
        )
    else:
        yield Finding("memory", Level.GOOD, f"models may take {size(budget)}")


def tensorflow(subject: Subject) -> Iterator[Finding]:
    """Check that TensorFlow can be imported, and which devices it has: in a child process."""
    if not has_tensorflow():
        yield Finding(
            "TensorFlow",
            Level.DOUBTFUL,
            "is not installed; SavedModels cannot be served, other types can",
            'pip install "servingd[cpu]", or "servingd[gpu]"',
        )
        return
    program = (
        "import tensorflow as tf\n"
        "gpus = tf.config.list_physical_devices('GPU')\n"
        "print(tf.__version__, 'with', len(gpus), 'GPUs')"
    )
    try:
        run = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=_LONG_IMPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Finding(
            "TensorFlow", Level.BAD, f"is not imported within {_LONG_IMPORT_S} s", "see its disk"
        )
        return
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        yield Finding(
            "TensorFlow", Level.BAD, f"cannot be imported: {last}", "install it again, with pip"
        )
        return
    yield Finding("TensorFlow", Level.GOOD, run.stdout.strip())
    if "with 0 GPUs" in run.stdout and _has_nvidia():
        yield Finding(
            "devices",
            Level.DOUBTFUL,
            "this machine has NVIDIA devices, and TensorFlow sees none",
            'pip install "servingd[gpu]", and see that the driver fits',
        )


def ports(subject: Subject) -> Iterator[Finding]:
    """Check that the server's ports are free."""
    config = subject.config
    for name, port in (
        ("port", config.port),
        ("rest_api_port", config.rest_api_port),
        ("admin_port", config.admin_port),
        ("admin_rest_port", config.admin_rest_port),
    ):
        if not port:
            continue
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((config.host if ":" not in config.host else "", port))
        except OSError as error:
            yield Finding(
                "ports",
                Level.BAD,
                f"{port} cannot be used: {error.strerror}",
                f"stop what listens there (`ss -ltnp sport = :{port}` names it), or choose another "
                f"by --{name}",
            )
        else:
            yield Finding("ports", Level.GOOD, f"{port} is free")


def limits(subject: Subject) -> Iterator[Finding]:
    """Check the limits of the process and of the kernel."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= files < _FEW_FILES:
        yield Finding(
            "limits",
            Level.DOUBTFUL,
            f"a process may open {files} files; each client takes one",
            "ulimit -n 65536, or LimitNOFILE=65536 for systemd",
        )
    else:
        yield Finding("limits", Level.GOOD, f"a process may open {files} files")
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        yield Finding(
            "limits",
            Level.DOUBTFUL,
            f"the address space is limited to {size(space)}: large weights are not mapped",
            "ulimit -v unlimited",
        )
    watches = _number("/proc/sys/fs/inotify/max_user_watches")
    if watches is not None and watches < _FEW_WATCHES:
        yield Finding(
            "limits",
            Level.DOUBTFUL,
            f"a user may watch {watches} folders; what is beyond is found by polling",
            "sysctl fs.inotify.max_user_watches=65536",
        )


def folders(subject: Subject) -> Iterator[Finding]:
    """Check that the cache and the temporary folder can be written, and models be read."""
    config = subject.config
    yield from _writable("cache", config.cache_dir, "--cache_dir")
    yield from _writable("temporary files", tempfile.gettempdir(), "TMPDIR")
    if not subject.has_models:
        return
    for flag in ("model_base_path", "model_repository", "model_config_file"):
        path = getattr(config, flag).removeprefix("file://")
        if path and not os.access(path, os.R_OK):
            what = "cannot be read by this user" if os.path.exists(path) else "does not exist"
            yield Finding(
                "permissions",
                Level.BAD,
                f"{path} {what}",
                f"chmod or chown it, run as another user, or name another by --{flag}",
            )


def _writable(what: str, folder: str, setting: str) -> Iterator[Finding]:
    there = Path(folder)
    while not there.exists() and there != there.parent:
        there = there.parent
    if not os.access(there, os.W_OK):
        yield Finding(
            what, Level.DOUBTFUL, f"{folder} cannot be written", f"name another by {setting}"
        )
        return
    free = shutil.disk_usage(there).free
    if free < _LITTLE_DISK:
        yield Finding(
            what, Level.DOUBTFUL, f"{folder} has {size(free)} free", "free some of that disk"
        )
    elif not is_local(there):
        yield Finding(
            what,
            Level.DOUBTFUL,
            f"{folder} lies on another machine: large weights in it are not shared in memory",
            f"name one of this machine by {setting}",
        )
    else:
        yield Finding(what, Level.GOOD, f"{folder} can be written, {size(free)} are free")


def clock(subject: Subject) -> Iterator[Finding]:
    """Check that the clock is set: certificates and logs depend on it."""
    year = time.gmtime().tm_year
    if year < _A_RECENT_YEAR:
        yield Finding("clock", Level.BAD, f"the year is {year}", "set the clock")
    elif _clock_is_adrift():
        yield Finding(
            "clock", Level.DOUBTFUL, "the kernel's clock is not synchronised", "run chrony or ntpd"
        )
    else:
        yield Finding("clock", Level.GOOD, time.strftime("%Y-%m-%d %H:%M:%S %z"))


def network(subject: Subject) -> Iterator[Finding]:
    """Check that no proxy stands between gRPC clients on this machine and the server."""
    proxy = next((os.environ[name] for name in _PROXIES if name in os.environ), "")
    spared = "".join(os.environ.get(name, "") for name in _SPARED)
    if proxy and "localhost" not in spared:
        yield Finding(
            "network",
            Level.DOUBTFUL,
            f"gRPC clients here go by the proxy {proxy}, to this machine too",
            "export no_proxy=localhost,127.0.0.1",
        )


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    configuration,
    packages,
    processor,
    memory,
    tensorflow,
    ports,
    limits,
    folders,
    clock,
    network,
)
"""All checks, in the order in which they are shown."""


def _cpu_flags() -> set[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split())
    return set()


def _has_nvidia() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _number(path: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(path).read_text())
    return None


def _clock_is_adrift() -> bool:
    try:
        libc = ctypes.CDLL(None)
        state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
        return bool(state == _CLOCK_NOT_SYNCHRONISED)
    except (OSError, AttributeError):
        return False
