"""The platform `python`: a version is a folder with model.py, whose code answers calls.

    from servingd.servables.plugin import Servable, signature

    class Double(Servable):
        signatures = {"serving_default": signature(inputs={"x": ("FLOAT", None)},
                                                   outputs={"y": ("FLOAT", None)})}

        def __init__(self, version): ...          # version.path, version.options
        def predict(self, signature, inputs):
            return {"y": inputs["x"] * 2}

    servable = Double

The last statement names the class: by it a file that is being copied is told from a whole one.
Modules beside model.py are imported relatively (`from . import text`). It is code, so it is
served only with `--allow_python_models`.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from servingd.core.types import ANYWHERE, Placement, ServableId, VersionData
from servingd.core.version_files import Listing
from servingd.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServingError,
)
from servingd.servables.plugin import Loader, Platform, Version

FILE = "model.py"
NAME = "servable"

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonOptions:
    """The `platform_options` of a model of Python code."""

    time_limit_s: float = 60.0
    """Seconds after which a call is answered with DEADLINE_EXCEEDED; 0: there is no limit."""

    concurrency: int = 0
    """How many calls may be under way at a time; 0: what the class says."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the class is given as `version.options`."""

    def __post_init__(self) -> None:
        for name in ("time_limit_s", "concurrency"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidArgument(
                    f"{name}: expected a number of at least 0, got {getattr(self, name)}"
                )


class PythonPlatform(Platform):
    """Makes loaders for versions of Python code."""

    name = "python"
    files = (FILE,)
    options_type = PythonOptions

    def __init__(self, allow_code: bool = False) -> None:
        self._allow_code = allow_code

    def missing(self, listing: Listing) -> str | None:
        """Return what model.py lacks: it must parse and end by naming its class."""
        absent = super().missing(listing)
        return absent or find_fault(listing.read(FILE))

    def loader(self, servable_id: ServableId, data: VersionData) -> PythonLoader:
        """Return a loader for one version. Raises PermissionDenied if code is not allowed."""
        if not self._allow_code:
            raise PermissionDenied(
                f"{servable_id} is Python code: --allow_python_models lets the server run it"
            )
        return PythonLoader(servable_id, data.path, self.read_options(data.options))


def find_fault(source: bytes) -> str | None:
    """Return why a model.py is not whole, or cannot be served; None if it can."""
    if not source.endswith(b"\n"):
        return f"{FILE} does not end with a line feed"
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"{FILE} does not parse: {error}"
    match body[-1:]:
        case [ast.Assign(targets=[ast.Name(id=name)], value=ast.Name())] if name == NAME:
            return None
        case _:
            return f"{FILE} does not end with a line `{NAME} = NAME_OF_THE_CLASS`"


class PythonLoader(Loader):
    """Imports one version's module, and makes an instance of its class."""

    def __init__(self, servable_id: ServableId, path: str, options: PythonOptions) -> None:
        self._id = servable_id
        self._path = path
        self._options = options
        self._module = ""

    def load(self, placement: Placement = ANYWHERE) -> Any:
        """Import the code. Raises NotFound, or FailedPrecondition with what the code raised."""
        options = self._options
        self._module = f"servingd_python_model_{next(_numbers)}"
        try:
            kind = getattr(_imported(self._module, self._path), NAME)
            made = kind(Version(self._id, self._path, dict(options.arguments), placement))
            made.time_limit_s = options.time_limit_s
            if options.concurrency:
                made.concurrency = options.concurrency
        except BaseException as error:
            _forget(self._module)
            if isinstance(error, ServingError):
                raise
            raise FailedPrecondition(
                f"{FILE} of {self._id}: {type(error).__name__}: {error}"
            ) from error
        return made

    def unload(self, servable: Any) -> None:
        """Close the servable and forget its modules."""
        try:
            servable.close()
        finally:
            _forget(self._module)


def _imported(name: str, path: str) -> ModuleType:
    """Return a version's module, imported anew as a package of this name."""
    file = os.path.join(path, FILE)
    if not os.path.isfile(file):
        raise NotFound(f"there is no {file}")
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[path])
    if spec is None or spec.loader is None:
        raise NotFound(f"there is no Python code in {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _forget(name: str) -> None:
    """Remove a version's modules, so that their memory can be freed."""
    for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        sys.modules.pop(known, None)
