"""What a configuration says of loads."""

import pytest

from servingd.config.models import ModelConfig
from servingd.config.server import ServerConfig
from servingd.core.resources.placement import PER_DEVICE, LoadRules
from servingd.core.types import Device
from servingd.errors import InvalidConfig
from servingd.runtime.manager.options import manager_state, rules_of
from servingd.runtime.versions.options import within_budget

MB = 1 << 20


def config(**flags):
    return ServerConfig(model_base_path="/m", **flags)


def model(**fields):
    return ModelConfig(name="m", base_path="/m", **fields)


def test_a_models_own_rules_win_over_those_of_all():
    said = config(device="GPU", replicas="per_device", transition="availability_preserving")
    assert rules_of(said, [model()])["m"] == LoadRules(
        ("GPU",), PER_DEVICE, "availability_preserving"
    )
    own = model(device="cpu:1", replicas="2", transition="resource_preserving")
    assert rules_of(said, [own])["m"] == LoadRules(("CPU:1",), 2, "resource_preserving")
    assert rules_of(config(), [model()])["m"] == LoadRules((), 1, "auto")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("device", "GPU:x", "auto, CPU, GPU, or names such as GPU:1 with commas"),
        ("replicas", "0", "a whole number from 1 to 256, or per_device"),
        ("transition", "x", "one of auto, availability_preserving, resource_preserving"),
    ],
)
def test_a_model_that_makes_no_sense(field, value, expected):
    with pytest.raises(InvalidConfig) as caught:
        model(**{field: value})
    assert str(caught.value) == f"{field}: expected {expected}, got {value!r}"


def test_the_budget_is_what_was_set_or_what_the_machine_has():
    assert manager_state(config(ram_budget_mb=7)).plan().limits.ram == 7 * MB
    assert manager_state(config()).plan().limits.ram > 7 * MB


def test_devices_have_the_limit_that_was_set_or_what_they_have():
    host, small, large = Device("CPU", 0), Device("GPU", 0), Device("GPU", 1)
    found = {host: 0, small: 3 * MB, large: 9 * MB}
    assert within_budget(config(), found) == found
    limited = {host: 5 * MB, small: 3 * MB, large: 5 * MB}
    assert within_budget(config(device_memory_budget_mb=5), found) == limited
