"""Decide whether the server is ready, and what each health check is answered.

`/readyz`, `/startupz` and gRPC health all use the same value, so that they never differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

PREDICTION_SERVICES = ("tensorflow.serving.PredictionService", "PredictionService")
MODEL_SERVICES = ("tensorflow.serving.ModelService", "ModelService")
"""TensorFlow Serving registers the unqualified names; health clients expect the others."""

_SHOWN_TROUBLES = 10
"""The most models whose trouble is spelt out in the reason for not being ready."""


Needs: TypeAlias = Mapping[str, frozenset[str]]
"""The models that a model is made of, for those that are made of others."""


def usable(available: Iterable[str], needs: Needs) -> frozenset[str]:
    """Return the available models but for those that are made of one that is not among them."""
    left = set(available)
    while broken := {name for name in left if not needs.get(name, frozenset()) <= left}:
        left -= broken
    return frozenset(left)


def why_unusable(name: str, available: Collection[str], needs: Needs) -> str:
    """Return which models a model lacks; empty if it lacks none."""
    lacks = sorted(needs.get(name, frozenset()).difference(available))
    return f"{{name: {name}}} lacks its parts: {', '.join(lacks)}" if lacks else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The facts at one moment from which health checks are answered."""

    rule: str | Sequence[str] = "all"
    """When the server is ready: `all` or `any` of its models are available, or those listed."""
    models_known: bool = True
    """Whether the source has reported which models there are."""
    configured: frozenset[str] = frozenset()
    """The models that should be served."""
    available: frozenset[str] = frozenset()
    """The models with a version that is AVAILABLE, and whose parts are; see `usable`."""
    started: bool = False
    """Whether every first model has loaded, or has failed for good."""
    stopping: bool = False

    @property
    def ready(self) -> bool:
        """Whether calls may be sent to the server."""
        if self.stopping or not self.models_known:
            return False
        if self.rule == "any":
            return bool(self.available)
        names = self.configured if self.rule == "all" else self.rule
        return all(name in self.available for name in names)

    def why_not_ready(self, trouble: Callable[[str], str]) -> str | None:
        """Return the reason for `/readyz`; None if the server is ready.

        `trouble` returns why a model is not available; empty where no reason is known.
        """
        if self.stopping:
            return "stopping"
        if not self.models_known:
            return "starting: the models are not known yet"
        if self.ready:
            return None
        missing = sorted(self.configured - self.available)
        named = ", ".join(missing) or "none is configured"
        rule = self.rule if isinstance(self.rule, str) else ",".join(self.rule)
        lines = [f"not ready by rule {rule}; not available: {named}"]
        lines += filter(None, map(trouble, missing[:_SHOWN_TROUBLES]))
        return "\n".join(lines)

    def why_not_started(self) -> str | None:
        """Return the reason for `/startupz`; None once the first models have loaded."""
        return None if self.started else "starting: not every model has come up yet"

    def health(self) -> dict[str, bool]:
        """Return for each gRPC health service, and for each model by its name, whether it serves.

        The empty name is the server. The model service answers from the start.
        """
        goes_on = not self.stopping
        services = dict.fromkeys(("", *PREDICTION_SERVICES), self.ready)
        services |= dict.fromkeys(MODEL_SERVICES, goes_on)
        services |= {name: name in self.available and goes_on for name in self.configured}
        return services
