"""The devices that TensorFlow sees in this process, and how much of their memory is in use.

`CUDA_VISIBLE_DEVICES` decides which GPUs there are. How their memory is used (a share of it,
growth, limits) is fixed for the process by the first session that sees them. That is the session
that discovers them here, with the operator's own `tensorflow.ConfigProto`; later ones follow it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import Device
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.tensorflow_runtime.runtime import tensorflow

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """A device of this machine."""

    device: Device
    usable_bytes: int = 0
    """Bytes of its own memory that TensorFlow may take; 0: it has none of its own."""
    description: str = ""


class LocalDevices:
    """The devices, discovered once, when `discover` is first called. From any thread."""

    def __init__(self, options: SavedModelOptions | None = None) -> None:
        self._options = options or SavedModelOptions()
        self._lock = threading.Lock()
        self._found: Sequence[LocalDevice] = ()  # replaced whole
        self._measures = True

    @property
    def known(self) -> Sequence[LocalDevice]:
        """The devices that were found; none before `discover` has returned. Never waits."""
        return self._found

    def discover(self) -> Sequence[LocalDevice]:
        """Return the devices that there are; waits for TensorFlow."""
        with self._lock:
            if not self._found:
                self._found = [*_hosts(self._options), *_accelerators(self._options)]
                self.in_use()  # the first time is slow
            return self._found

    def usable(self) -> Mapping[Device, int]:
        """Discover the devices; return each with its `usable_bytes`."""
        return {found.device: found.usable_bytes for found in self.discover()}

    def in_use(self) -> Mapping[Device, int]:
        """Return the bytes in use on each known device with memory of its own.

        Empty where TensorFlow cannot tell.
        """
        found = [each.device for each in self._found if not each.device.is_host]
        if not found or not self._measures:
            return {}
        info = tensorflow().config.experimental.get_memory_info
        try:
            return {device: int(info(device.name)["current"]) for device in found}
        except Exception as error:
            self._measures = False
            _log.warning("what is in use on devices is not known: %s", error)
            return {}


def _hosts(options: SavedModelOptions) -> list[LocalDevice]:
    count = max(1, options.virtual_cpu_devices)
    return [LocalDevice(Device("CPU", i), description="the host") for i in range(count)]


def _accelerators(options: SavedModelOptions) -> list[LocalDevice]:
    if not tensorflow().config.list_physical_devices("GPU"):
        return []
    from tensorflow.python.client import device_lib

    config = SessionOptions(1, options.session_config).config()
    return [
        LocalDevice(
            Device("GPU", int(each.name.rpartition(":")[2])),
            int(each.memory_limit),
            str(each.physical_device_desc),
        )
        for each in device_lib.list_local_devices(config)
        if each.device_type == "GPU"
    ]
