"""The devices that TensorFlow sees in this process, and how much of their memory is in use.

`CUDA_VISIBLE_DEVICES` decides which GPUs there are, as ever. How their memory is used (a share of
it, growth, limits) is fixed for the process by the first session that sees them: that is the one
that looks here, with the operator's own `tensorflow.ConfigProto`; all others come later and have
the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import Device
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.tensorflow.runtime import tensorflow

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """One of them."""

    device: Device
    usable_bytes: int = 0
    """What TensorFlow may take of its own memory; 0: it has none of its own."""
    description: str = ""


class LocalDevices:
    """Looks once, when it is first asked; from any thread."""

    def __init__(self, options: SavedModelOptions | None = None) -> None:
        self._options = options or SavedModelOptions()
        self._lock = threading.Lock()
        self._found: Sequence[LocalDevice] = ()  # replaced whole
        self._measures = True

    @property
    def known(self) -> Sequence[LocalDevice]:
        """Those that were found; none before anybody has looked. Never waits."""
        return self._found

    def look(self) -> Sequence[LocalDevice]:
        """Those that there are; waits for TensorFlow."""
        with self._lock:
            if not self._found:
                self._found = [*_hosts(self._options), *_accelerators(self._options)]
                self.in_use()  # the first time is slow
            return self._found

    def usable(self) -> Mapping[Device, int]:
        """As `look`: each with the bytes of its own memory that may be used; 0: it has none."""
        return {found.device: found.usable_bytes for found in self.look()}

    def in_use(self) -> Mapping[Device, int]:
        """Bytes in use on each known device with memory of its own, where that can be told."""
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
