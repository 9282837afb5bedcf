"""The table of servable types. A new type is one new file or package, and one line here.

Types are named by import strings and imported when they are first needed: a server of lookup tables
imports nothing of the other types.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from servingd.config.plugins import references_in
from servingd.config.saved_model import SavedModelOptions
from servingd.config.server import ServerConfig
from servingd.core.servable import Loader, Platform
from servingd.core.types import Device, ServableId, VersionData
from servingd.core.version_files import Listing
from servingd.errors import InvalidArgument, InvalidConfig
from servingd.servables import plugin
from servingd.servables.assembled.parts import Parts
from servingd.servables.guarding.guard import GuardedServable
from servingd.servables.guarding.loading import GuardedLoader
from servingd.servables.guarding.references import flagged, imported, installed, of_package
from servingd.wire.config.saved_model import saved_model_options

if TYPE_CHECKING:
    from servingd.servables.saved_model.listener import SavedModelListener
    from servingd.servables.saved_model.platform import SavedModelPlatform
    from servingd.servables.saved_model.session.devices import LocalDevice, LocalDevices
    from servingd.servables.tensorflow_runtime.profiler import Profiler

TYPES = {
    "tensorflow": "servingd.servables.saved_model.platform:SavedModelPlatform",
    "lookup_table": "servingd.servables.lookup_table.platform:LookupTablePlatform",
    "onnx": "servingd.servables.onnx.platform:OnnxPlatform",
    "keras": "servingd.servables.keras.platform:KerasPlatform",
    "sklearn": "servingd.servables.sklearn.platform:SklearnPlatform",
    "composite": "servingd.servables.assembled.composite.servable:CompositePlatform",
    "sharded": "servingd.servables.assembled.sharded.servable:ShardedPlatform",
    "python": "servingd.servables.python_model:PythonPlatform",
}
"""By name: the module and the class of the `Platform`. In the order in which they are asked whether
they recognise a version."""
CODE = frozenset({"python"})
"""Types of ours whose versions bring code of their own."""
_WAITS = frozenset({"composite", "sharded"})
"""Types whose loads wait for other loads."""
_DEVICES = "servingd.servables.saved_model.session.devices:LocalDevices"
_PROFILER = "servingd.servables.tensorflow_runtime.profiler:Profiler"

_log = logging.getLogger(__name__)


class Platforms:
    """One instance of every servable type that is used; from any thread."""

    def __init__(
        self,
        saved_model: SavedModelOptions | None = None,
        listener: SavedModelListener | None = None,
        plugins: Sequence[str] = (),
        allow_code: bool = False,
    ) -> None:
        """Import nothing yet. `listener` is told what becomes of SavedModels; None: nobody is.

        `plugins` are references to further types, see `references.py`. `allow_code` says whether
        versions may bring code.
        """
        self._saved_model = saved_model or SavedModelOptions()
        self._listener = listener
        self._plugins = tuple(plugins)
        self.parts = Parts()
        """What servables that are made of others know of the server."""
        self._arguments: dict[str, tuple[Any, ...]] = {
            "tensorflow": (self._saved_model, *([listener] if listener is not None else [])),
            "keras": (
                functools.partial(self.__getitem__, "tensorflow"),
                self._saved_model,
                allow_code,
            ),
            "sklearn": (allow_code,),
            "composite": (self.parts,),
            "sharded": (self.parts,),
            "python": (allow_code,),
        }
        self._lock = threading.RLock()
        self._made: dict[str, Platform] = {}  # guarded by _lock
        self._failed: set[str] = set()  # types whose fault was logged; guarded by _lock
        self._stopped = False  # guarded by _lock
        self._guarded = _Guarded()
        self.devices = LazyDevices(self._saved_model)
        """The devices that SavedModels can be placed on."""

    @functools.cached_property
    def profiler(self) -> Profiler:
        """Takes traces of what TensorFlow does in this process."""
        return cast("Profiler", imported(_PROFILER)())

    def prepare(self) -> None:
        """Load the extensions that an operator named, before any model. Raises InvalidConfig."""
        self._flagged  # noqa: B018 -- a plug-in that cannot be imported is told at the start
        extensions = self._saved_model.extensions
        if extensions.op_libraries or extensions.python_imports:
            cast("SavedModelPlatform", self["tensorflow"]).prepare()

    @functools.cached_property
    def _flagged(self) -> Mapping[str, type[plugin.Platform]]:
        """The types that the flag names, by name. Raises InvalidConfig."""
        found = {kind.name: kind for kind in map(flagged, self._plugins)}
        if taken := sorted(found.keys() & TYPES.keys()):
            raise InvalidConfig(f"--plugin: the name {taken[0]} is that of a type of servingd's")
        return found

    @property
    def names(self) -> list[str]:
        """The names that configurations may use, sorted."""
        return sorted({*TYPES, *self._flagged, *installed()})

    def __getitem__(self, name: str) -> Platform:
        """Return the type called `name`.

        Raises InvalidArgument naming those there are, or FailedPrecondition for one that cannot be
        imported.
        """
        with self._lock:
            if name not in self._made:
                made = self._made[name] = self._make(name)
                if self._stopped:
                    made.stop()
            return self._made[name]

    def _make(self, name: str) -> Platform:
        if name in TYPES:
            return cast("Platform", imported(TYPES[name])(*self._arguments.get(name, ())))
        if name in self._flagged:
            return self._flagged[name]()
        if name in installed():
            return of_package(installed()[name])()
        raise InvalidArgument(f"unsupported platform {name!r}; known: {', '.join(self.names)}")

    def recognise(self, listing: Listing) -> str | None:
        """Return the name of the first type that a version's files look like; None if none does."""
        for name in (*TYPES, *self._flagged, *installed()):
            try:
                if self[name].recognises(listing):
                    return name
            except (Exception, SystemExit):  # a type of other people's must not hide the others
                with self._lock:
                    known = name in self._failed
                    self._failed.add(name)
                if not known:
                    _log.exception("servable type %s cannot recognise versions", name)
        return None

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise InvalidArgument if a type does not take these `platform_options`."""
        platform = self[name] if options else None
        if isinstance(platform, plugin.Platform):
            platform.read_options(options)
        elif platform is not None:
            raise InvalidArgument(f"platform_options: {name} takes none")

    def may_hang(self, name: str) -> bool:
        """Return whether a load may wait for something that does not come. Imports nothing."""
        return name not in TYPES or name in CODE or name in _WAITS

    def loader(self, servable_id: ServableId, data: VersionData) -> Loader:
        """Return a loader for one version; cheap.

        Raises InvalidArgument for an unknown type or wrong options, and FailedPrecondition naming
        what must be installed first.
        """
        platform = self[data.platform]
        if not isinstance(platform, plugin.Platform):
            return platform.loader(servable_id, data)
        platform.check_needs()
        loader = platform.loader(servable_id, data)
        if platform.trusted:
            return cast("Loader", loader)
        runs = self._listener.new_runs(servable_id) if self._listener is not None else {}
        return GuardedLoader(servable_id, loader, runs, self._guarded.add)

    def stop(self) -> None:
        """End what the types share, and the calls that other people's code has in hand."""
        with self._lock:
            self._stopped = True
            made = list(self._made.values())
        self._guarded.end_runs()
        for platform in made:
            try:
                platform.stop()
            except (Exception, SystemExit):
                _log.exception("servable type %s could not be stopped", platform.name)


class _Guarded:
    """The guarded servables that there are, for the stop. Thread-safe; loaders keep it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there: WeakSet[GuardedServable] = WeakSet()  # guarded by _lock
        self._ended = False  # guarded by _lock

    def add(self, servable: GuardedServable) -> None:
        """Keep what was loaded; the stop may have been meanwhile."""
        with self._lock:
            self._there.add(servable)
            ended = self._ended
        if ended:
            servable.end_runs()

    def end_runs(self) -> None:
        """End the calls of all, now and later."""
        with self._lock:
            self._ended = True
            there = tuple(self._there)
        for servable in there:
            servable.end_runs()


def make_platforms(config: ServerConfig, listener: SavedModelListener | None = None) -> Platforms:
    """Return the servable types of a server, as its configuration says."""
    return Platforms(
        saved_model_options(config),
        listener,
        references_in(config.plugin),
        config.allow_python_models,
    )


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
                self._found = cast("LocalDevices", imported(_DEVICES)(self._options))
        return self._found.usable()

    def in_use(self) -> Mapping[Device, int]:
        """Return the bytes in use on each known device; see `LocalDevices.in_use`."""
        return self._found.in_use() if self._found is not None else {}
