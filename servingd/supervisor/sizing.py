"""How many workers there are with `--workers=auto`: one per core, as far as memory allows."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from servingd.config.models import ModelConfig
from servingd.config.server import ServerConfig
from servingd.core.types import ServableId
from servingd.errors import ServingError
from servingd.machine.cpus import all_cpus
from servingd.machine.memory import ram_budget
from servingd.servables.registry import Platforms, make_platforms
from servingd.sources.catalogs import make_catalog
from servingd.sources.model_directory import ModelDirectory

_WORKER_BYTES = 512 << 20
"""What a worker takes without any model: mostly TensorFlow."""
_MIB = 1 << 20
_GPUS = "/dev/nvidia[0-9]*"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the number of workers depends on."""

    cpus: int
    budget: int
    """Bytes that models and workers may take; 0: not known."""
    models: int
    """Bytes of all models in one worker."""
    accelerators: bool = False


def choose(machine: Machine) -> tuple[int, str]:
    """Return the number of workers, and why there are so many."""
    if machine.accelerators:
        return 1, "there are accelerators, which one process drives best"
    each = _WORKER_BYTES + machine.models
    fitting = machine.budget // each if machine.budget else machine.cpus
    if fitting >= machine.cpus:
        return machine.cpus, f"one per CPU core of {machine.cpus}"
    return max(1, fitting), (
        f"{machine.budget // _MIB} MiB of memory hold no more, at {each // _MIB} MiB for each with "
        f"all models; there are {machine.cpus} CPU cores"
    )


def workers_of(config: ServerConfig) -> int:
    """Return the number of workers that a configuration asks for, and log why.

    Raises ServingError for a configuration of models that cannot be read.
    """
    if config.workers != "auto":
        return int(config.workers)
    models = make_catalog(config).models()
    known = config.ram_budget_mb * _MIB or ram_budget()
    machine = Machine(
        all_cpus(),
        known,
        _bytes_of(models, make_platforms(config)),
        accelerators=bool(glob.glob(_GPUS)),
    )
    number, reason = choose(machine)
    _log.info("--workers=auto: %d, since %s", number, reason)
    return number


def _bytes_of(models: Iterable[ModelConfig], platforms: Platforms) -> int:
    """Return what the versions that ought to be served now are estimated to take."""
    total = 0
    for model in models:
        found = ModelDirectory(model, platforms).scan()
        for version in found.versions if found else ():
            if version.data is None:
                continue
            servable_id = ServableId(model.name, version.version)
            try:
                loader = platforms.loader(servable_id, version.data)
                estimate = loader.estimate()
            except (OSError, ValueError, ServingError):  # the load will say what is wrong with it
                continue
            total += estimate.grown.shared + estimate.grown.replica or (
                estimate.steady.shared + estimate.steady.replica
            )
    return total
