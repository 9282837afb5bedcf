"""The table of servable types. A new type is one new file or package, and one line here.

Types are named by import strings and imported when they are first needed: a server of lookup tables
imports nothing of the other types.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from servingd.config.saved_model import SavedModelOptions
from servingd.core.servable import Platform
from servingd.core.types import Device
from servingd.core.version_files import Listing
from servingd.errors import InvalidArgument

if TYPE_CHECKING:
    from servingd.servables.saved_model.listener import SavedModelListener
    from servingd.servables.saved_model.platform import SavedModelPlatform
    from servingd.servables.saved_model.session.devices import LocalDevice, LocalDevices
    from servingd.servables.tensorflow_runtime.profiler import Profiler

TYPES = {
    "tensorflow": "servingd.servables.saved_model.platform:SavedModelPlatform",
    "lookup_table": "servingd.servables.lookup_table:LookupTablePlatform",
}
"""By name: the module and the class of the `Platform`. In the order in which they are asked whether
they recognise a version."""
_DEVICES = "servingd.servables.saved_model.session.devices:LocalDevices"
_PROFILER = "servingd.servables.tensorflow_runtime.profiler:Profiler"


class Platforms:
    """One instance of every servable type that is used; from any thread."""

    def __init__(
        self,
        saved_model: SavedModelOptions | None = None,
        listener: SavedModelListener | None = None,
    ) -> None:
        """Import nothing yet. `listener` is told what becomes of SavedModels; None: nobody is."""
        self._saved_model = saved_model or SavedModelOptions()
        self._arguments: dict[str, tuple[Any, ...]] = {
            "tensorflow": (self._saved_model, *([listener] if listener is not None else []))
        }
        self._lock = threading.Lock()
        self._made: dict[str, Platform] = {}  # guarded by _lock
        self._stopped = False  # guarded by _lock
        self.devices = LazyDevices(self._saved_model)
        """The devices that SavedModels can be placed on."""

    @functools.cached_property
    def profiler(self) -> Profiler:
        """Takes traces of what TensorFlow does in this process."""
        return cast("Profiler", _imported(_PROFILER)())

    def prepare(self) -> None:
        """Load the extensions that an operator named, before any model. Raises InvalidConfig."""
        extensions = self._saved_model.extensions
        if extensions.op_libraries or extensions.python_imports:
            cast("SavedModelPlatform", self["tensorflow"]).prepare()

    @property
    def names(self) -> list[str]:
        """The names that configurations may use, sorted."""
        return sorted(TYPES)

    def __getitem__(self, name: str) -> Platform:
        """Return the type called `name`. Raises InvalidArgument naming those there are."""
        if name not in TYPES:
            raise InvalidArgument(f"unsupported platform {name!r}; known: {', '.join(self.names)}")
        with self._lock:
            if name not in self._made:
                made = self._made[name] = _imported(TYPES[name])(*self._arguments.get(name, ()))
                if self._stopped:
                    made.stop()
            return self._made[name]

    def recognise(self, listing: Listing) -> str | None:
        """Return the name of the first type that a version's files look like; None if none does."""
        return next((name for name in TYPES if self[name].recognises(listing)), None)

    def stop(self) -> None:
        """End what the types share: those that are used, and those that are used later."""
        with self._lock:
            self._stopped = True
            made = list(self._made.values())
        for platform in made:
            platform.stop()


class LazyDevices:
    """The devices of `LocalDevices`, which is imported when it is first asked what there is.

    Until then no device is known, and nothing is in use on one.
    """

    def __init__(self, options: SavedModelOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._found: LocalDevices | None = None  # set once, under _lock

    @property
    def known(self) -> Sequence[LocalDevice]:
        """The devices that were found; none before `usable` was called. Never waits."""
        return self._found.known if self._found is not None else ()

    def usable(self) -> Mapping[Device, int]:
        """Return each device with its usable bytes; see `LocalDevices.usable`. May wait."""
        with self._lock:
            if self._found is None:
                self._found = cast("LocalDevices", _imported(_DEVICES)(self._options))
        return self._found.usable()

    def in_use(self) -> Mapping[Device, int]:
        """Return the bytes in use on each known device; see `LocalDevices.in_use`."""
        return self._found.in_use() if self._found is not None else {}


def _imported(reference: str) -> Any:
    """Import what a string `module:name` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
