"""Tests that need a GPU: skipped, with the reason, where TensorFlow sees none."""

from __future__ import annotations

import pytest

from servingd.servables.saved_model.session.devices import LocalDevice, LocalDevices


@pytest.fixture(scope="session")
def gpus() -> list[LocalDevice]:
    """The GPUs that there are, printed once."""
    found = [each for each in LocalDevices().discover() if not each.device.is_host]
    if not found:
        pytest.skip("TensorFlow sees no GPU here")
    for each in found:
        print(f"{each.device}: {each.usable_bytes >> 20} MiB, {each.description}")
    return found
