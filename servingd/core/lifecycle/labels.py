"""Version labels: names for versions, moved when what they name can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from servingd.errors import FailedPrecondition

Labels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Model to label to version."""

Available: TypeAlias = Callable[[str, int], bool]
"""Whether a version of a model is AVAILABLE."""


def check_labels(
    wanted: Labels, current: Labels, available: Available, allow_unavailable: bool
) -> None:
    """Whether a reload may assign labels so: TensorFlow Serving's acceptance matrix.

    A label may go to a version that is AVAILABLE. With `allow_unavailable` it may also go to
    another, unless it names a different version now. What a label names already it may keep naming,
    whatever has become of it: an unchanged configuration can always be loaded again.

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
    """What labels lead to now: to the version that is wanted once that is AVAILABLE.

    Until then a label stays where it was (`before`), and one that was nowhere leads to the version
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
