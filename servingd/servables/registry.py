"""The table of servable types. A new type is one new file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from servingd.config.saved_model import SavedModelOptions
from servingd.core.completeness import Listing
from servingd.core.serving import Platform
from servingd.errors import InvalidArgument
from servingd.servables.lookup_table import LookupTablePlatform
from servingd.servables.saved_model.loader import Hooks
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.servables.saved_model.session.devices import LocalDevices
from servingd.servables.tensorflow.profiler import Profiler


class Platforms:
    """One instance of every servable type, for the life of a server."""

    def __init__(
        self,
        saved_model: SavedModelOptions | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        """`hooks` are whom SavedModels tell of what becomes of them."""
        hooks = hooks or Hooks()
        self.devices = LocalDevices(saved_model)
        """Those that SavedModels can be placed on."""
        self.profiler = Profiler()
        """Takes traces of what TensorFlow does here."""
        self._saved_models = SavedModelPlatform(saved_model, *hooks)
        self._by_name: Mapping[str, Platform] = {
            "tensorflow": cast("Platform", self._saved_models),
            "lookup_table": LookupTablePlatform(),
        }

    def prepare(self) -> None:
        """Load what the types need before any model. Raises InvalidConfig."""
        self._saved_models.prepare()

    @property
    def names(self) -> list[str]:
        """What configurations may name."""
        return sorted(self._by_name)

    def __getitem__(self, name: str) -> Platform:
        """The type called `name`; raises InvalidArgument naming those there are."""
        try:
            return self._by_name[name]
        except KeyError:
            raise InvalidArgument(
                f"unsupported platform {name!r}; known: {', '.join(self.names)}"
            ) from None

    def recognise(self, listing: Listing) -> str | None:
        """The name of the type that a version's contents look like."""
        return next((n for n, p in self._by_name.items() if p.recognises(listing)), None)

    def stop(self) -> None:
        """End what the types share."""
        for platform in self._by_name.values():
            platform.stop()
