"""Version labels: names for versions, moved when the new version is AVAILABLE.

Checks which labels a configuration may assign now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from servingd.errors import FailedPrecondition

Labels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Versions by label, by model."""

Available: TypeAlias = Callable[[str, int], bool]
"""Whether a version of a model is AVAILABLE."""


def check_labels(
    wanted: Labels, current: Labels, available: Available, allow_unavailable: bool
) -> None:
    """Check that a reload may assign these labels: TensorFlow Serving's acceptance matrix.

    A label may name a version that is AVAILABLE. With `allow_unavailable` it may also name
    another one, unless the label names a different version now. An assignment that does not change
    is always accepted, so that an unchanged configuration can always be loaded again.
    Raises FailedPrecondition with TensorFlow Serving's text.
    """
    for model, labels in sorted(wanted.items()):
        for label, version in sorted(labels.items()):
            now = current.get(model, {}).get(label)
            kept = now == version or (now is None and allow_unavailable)
            if not kept and not available(model, version):
                raise FailedPrecondition(
                    f"Request to assign label to version {version} of model {model}, which is not "
                    "currently available for inference"
                )


def effective_labels(wanted: Labels, before: Labels, available: Available) -> Labels:
    """Return the version that each label resolves to now: the wanted one if it is AVAILABLE.

    Until then a label keeps its earlier version (`before`); a new label resolves to the version
    that it waits for.
    """
    return {
        model: {
            label: version
            if available(model, version)
            else before.get(model, {}).get(label, version)
            for label, version in labels.items()
        }
        for model, labels in wanted.items()
        if labels
    }
