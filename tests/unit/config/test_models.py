"""ModelServerConfig as models: each field, each rule, each error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from servingd.config.models import ModelConfig, check_transition
from servingd.config.request_log import LoggingConfig, PerTaskSampling
from servingd.core.lifecycle.versions import All, Latest, Specific
from servingd.errors import InvalidConfig
from servingd.wire import protos
from servingd.wire.config.models import models_from_message, read_models


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.txt"


def _error(read: Any, file: Path, text: str) -> str:
    """What is wrong with a file, without its name."""
    file.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        read(str(file))
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


MODEL = 'name: "m" base_path: "/m" model_platform: "tensorflow"'


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("", "platform", "tensorflow"),
        ("", "version_policy", Latest(1)),
        ("", "version_labels", {}),
        ("", "logging", None),
        ("model_version_policy { latest { } }", "version_policy", Latest(1)),
        ("model_version_policy { latest { num_versions: 3 } }", "version_policy", Latest(3)),
        ("model_version_policy { all { } }", "version_policy", All()),
        (
            "model_version_policy { specific { versions: [4, 5] } }",
            "version_policy",
            Specific((4, 5)),
        ),
        (
            'version_labels { key: "a" value: 4 } version_labels { key: "b" value: 4 }',
            "version_labels",
            {"a": 4, "b": 4},
        ),
        ("logging_config { }", "logging", LoggingConfig()),
        (
            """logging_config {
              log_collector_config { type: "tfrecord" filename_prefix: "/logs/m" }
              sampling_config {
                sampling_rate: 0.5 attributes: 3
                per_task_sampling_configs { dc: "x" task_index: 0 sampling_rate: 1 }
                per_task_sampling_configs { }
              }
            }""",
            "logging",
            LoggingConfig(
                type="tfrecord",
                filename_prefix="/logs/m",
                sampling_rate=0.5,
                attributes=3,
                per_task=(
                    PerTaskSampling(dc="x", task_index=0, sampling_rate=1.0),
                    PerTaskSampling(sampling_rate=0.0),
                ),
            ),
        ),
    ],
)
def test_model_fields(file: Path, text: str, field: str, value: object) -> None:
    file.write_text(f"model_config_list {{ config {{ {MODEL} {text} }} }}")
    (model,) = read_models(str(file))
    assert (model.name, model.base_path) == ("m", "/m")
    assert getattr(model, field) == value


def test_no_models_said(file: Path) -> None:
    file.write_text(" ")
    assert read_models(str(file)) == ()


# The text; ours begin with the field, TensorFlow Serving's stand alone.
WRONG_MODELS = [
    (
        f"model_config_list {{ config {{ {MODEL} }} config {{ {MODEL} }} }}",
        "",
        "Illegal to list model m multiple times in config list",
    ),
    (
        'model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" } }',
        "",
        "Expected model m to have an absolute path or URI; got base_path()=m",
    ),
    (
        f"model_config_list {{ config {{ {MODEL} model_type: TENSORFLOW }} }}",
        "",
        "Illegal setting both ModelServerConfig::model_type (deprecated) and "
        "ModelServerConfig::model_platform, model name is m",
    ),
    (
        'model_config_list { config { name: "m" base_path: "/m" } }',
        "",
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
        "ModelServerConfig::model_platform, model name is m",
    ),
    (
        'model_config_list { config { name: "m" base_path: "/m" model_type: OTHER } }',
        "",
        "ModelServerConfig::model_type choice 2 not supported.",
    ),
    (
        'model_config_list { config { base_path: "/m" model_platform: "tensorflow" } }',
        "model_config_list.config[0].name",
        ": a model needs one; its base_path is '/m'",
    ),
    (
        "custom_model_config { }",
        "custom_model_config",
        ": only model_config_list is supported here",
    ),
    (
        f"model_config_list {{ config {{ {MODEL} logging_config {{ custom_logging_config {{ }} }} "
        "} }",
        "model_config_list.config[0].logging_config.custom_logging_config",
        ": not supported here",
    ),
    (
        f"model_config_list {{ config {{ {MODEL} logging_config {{ sampling_config {{ "
        "sampling_rate: 1.5 } } } }",
        "model_config_list.config[0].logging_config.sampling_config.sampling_rate",
        ": expected a number from 0 to 1, got 1.5",
    ),
    (
        f"model_config_list {{ config {{ {MODEL} logging_config {{ log_collector_config {{ "
        'type: "kafka" } } } }',
        "model_config_list.config[0].logging_config.log_collector_config.type",
        ": expected tfrecord or nothing, got 'kafka'",
    ),
    (
        f"model_config_list {{ config {{ {MODEL} logging_config {{ log_collector_config {{ "
        'filename_prefix: "logs/m" } } } }',
        "model_config_list.config[0].logging_config.log_collector_config.filename_prefix",
        ": expected an absolute path, got 'logs/m'",
    ),
    (
        f"model_config_list {{ config {{ {MODEL} logging_config {{ sampling_config {{ "
        "sampling_rate: 0.5 } } } }",
        "model_config_list.config[0].logging_config.log_collector_config.filename_prefix",
        ": expected an absolute path, since requests are sampled; got nothing",
    ),
    (
        f"model_config_list {{ config {{ {MODEL} logging_config {{ sampling_config {{ "
        "per_task_sampling_configs { sampling_rate: nan } } } } }",
        "model_config_list.config[0].logging_config.sampling_config.per_task_sampling_configs"
        ".sampling_rate",
        ": expected a number from 0 to 1, got nan",
    ),
]


@pytest.mark.parametrize(("text", "field", "error"), WRONG_MODELS)
def test_wrong_models(file: Path, text: str, field: str, error: str) -> None:
    assert _error(read_models, file, text) == field + error


@pytest.mark.parametrize(("text", "field", "error"), WRONG_MODELS)
def test_wrong_models_of_a_reload(text: str, field: str, error: str) -> None:
    message = text_format.Parse(text, protos.ModelServerConfig(), descriptor_pool=protos.POOL)
    with pytest.raises(InvalidConfig) as caught:
        models_from_message(message, "config")
    assert str(caught.value) == (f"config.{field}{error}" if field else error)


def test_a_platform_may_not_change() -> None:
    def model(platform: str) -> tuple[ModelConfig, ...]:
        return (ModelConfig(name="m", base_path="/m", platform=platform),)

    check_transition(model("a"), model("a"))
    check_transition((), model("a"))
    with pytest.raises(InvalidConfig) as caught:
        check_transition(model("a"), model("b"))
    assert str(caught.value) == (
        "Illegal to change a model's platform. For model m platform was a and new platform "
        "requested is b"
    )


def test_models_can_be_compared_and_hashed_and_not_changed() -> None:
    labels = {"a": 1}
    model = ModelConfig(name="m", base_path="/m", version_labels=labels)
    labels["a"] = 2
    assert model == ModelConfig(name="m", base_path="/m", version_labels={"a": 1})
    assert hash(model) == hash(ModelConfig(name="m", base_path="/m", version_labels={"a": 1}))
    assert model != ModelConfig(name="m", base_path="/m", version_labels={"a": 2})
    with pytest.raises(TypeError):
        model.version_labels["a"] = 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("", "/m", "name: a model needs one; its base_path is '/m'"),
        (
            "a\0b",
            "/m",
            "name of a model: expected a name without control characters, got 'a\\x00b'",
        ),
        ("a\nb", "/m", "name of a model: expected a name without control characters, got 'a\\nb'"),
        ("\udcff", "/m", "name of a model: expected a name of Unicode characters, got '\\udcff'"),
        ("m", "/a\0", "base_path of model m: expected a path without NUL bytes, got '/a\\x00'"),
        ("m", "", "Expected model m to have an absolute path or URI; got base_path()="),
    ],
)
def test_a_name_or_path_that_could_stop_something_is_refused(
    name: str, path: str, message: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        ModelConfig(name=name, base_path=path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ['name: "a\\000b" base_path: "/m"', 'name: "m" base_path: "/m\\000"']
)
def test_a_nul_byte_in_a_configuration_file_is_refused(file: Path, text: str) -> None:
    message = f'{text} model_platform: "tensorflow"'
    assert "expected a" in _error(
        read_models, file, f"model_config_list {{ config {{ {message} }} }}"
    )
