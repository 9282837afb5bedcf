"""How SavedModels are loaded, as files and flags say it: each field, each rule, each error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from servingd.config.batching import BatchingParameters
from servingd.config.saved_model import SavedModelOptions
from servingd.config.server import ServerConfig
from servingd.errors import InvalidConfig, NotFound, Unimplemented
from servingd.machine.cpus import cpus
from servingd.wire import protos
from servingd.wire.config.files import read_platform, read_session_config
from servingd.wire.config.saved_model import saved_model_options


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


def _platform(text: str, key: str = "tensorflow") -> str:
    return f"""platform_configs {{ key: "{key}" value {{ source_adapter_config {{
      [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {{
        legacy_config {{ {text} }} }} }} }} }}"""


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("", "tags", ("serve",)),
        ("", "enable_model_warmup", False),
        ("", "num_tflite_interpreters_per_pool", 1),
        ("", "batching", None),
        ("", "session_config", b""),
        ('saved_model_tags: "a" saved_model_tags: "b"', "tags", ("a", "b")),
        ("enable_model_warmup: true", "enable_model_warmup", True),
        (
            "model_warmup_options { num_request_iterations { value: 3 } }",
            "warmup_iterations",
            3,
        ),
        (
            "model_warmup_options { num_model_warmup_threads { value: 2 } }",
            "warmup_threads",
            2,
        ),
        ("prefer_tflite_model: true", "prefer_tflite_model", True),
        ("num_tflite_pools: 3", "num_tflite_pools", 3),
        ("num_tflite_interpreters_per_pool: 3", "num_tflite_interpreters_per_pool", 3),
        ("enable_per_model_batching_params: true", "enable_per_model_batching", True),
        (
            "batching_parameters { max_batch_size { value: 8 } }",
            "batching",
            BatchingParameters(max_batch_size=8),
        ),
        ("session_config { intra_op_parallelism_threads: 3 }", "intra_op_threads", 3),
        ("session_config { inter_op_parallelism_threads: 3 }", "inter_op_threads", 3),
        (
            "session_config { gpu_options { per_process_gpu_memory_fraction: 0.5 } }",
            "gpu_memory_fraction",
            0.5,
        ),
        (
            "session_config { allow_soft_placement: true }",
            "session_config",
            protos.ConfigProto(allow_soft_placement=True).SerializeToString(),
        ),
        ("mixed_precision: 'bfloat16' enable_session_metadata: true", "tags", ("serve",)),
    ],
)
def test_platform_fields(file: Path, text: str, field: str, value: object) -> None:
    file.write_text(_platform(text))
    assert getattr(read_platform(str(file)), field) == value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "PlatformConfigMap has no entry for platform tensorflow"),
        (_platform("", "torch"), "platform_configs: expected tensorflow alone, got torch"),
        (
            'platform_configs { key: "tensorflow" value { } }',
            "Supplied config's type_url could not be parsed: ",
        ),
        (
            'platform_configs { key: "tensorflow" value { source_adapter_config { '
            'type_url: "x/no.Such" } } }',
            "Unable to find compiled-in proto descriptor of type no.Such",
        ),
        (
            'platform_configs { key: "tensorflow" value { source_adapter_config { '
            "[type.googleapis.com/tensorflow.serving.SSLConfig] { } } } }",
            "Couldn't find factory for config proto message type tensorflow.serving.SSLConfig",
        ),
        (
            'platform_configs { key: "tensorflow" value { source_adapter_config { '
            'type_url: "x/tensorflow.serving.SavedModelBundleSourceAdapterConfig" '
            'value: "\\377" } } }',
            "source_adapter_config.value: expected a serialised "
            "tensorflow.serving.SavedModelBundleSourceAdapterConfig: ",
        ),
        (
            _platform('session_target: "grpc://x"'),
            "legacy_config.session_target: sessions run in this process, got 'grpc://x'",
        ),
        (
            _platform("batching_parameters { num_batch_threads { value: -1 } }"),
            "num_batch_threads must be positive; was -1",
        ),
    ],
)
def test_wrong_platform(file: Path, text: str, error: str) -> None:
    assert _error(read_platform, file, text).startswith(error)


def test_what_tensorflow_serving_lacks_as_well(file: Path) -> None:
    file.write_text(_platform("enable_saved_model_config: true"))
    with pytest.raises(Unimplemented, match="Saved model config functionality is not implemented"):
        read_platform(str(file))


def test_fields_without_effect_are_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(_platform("enable_session_metadata: true saved_model_tags: 'a'"))
    read_platform(str(file))
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{file}: legacy_config.enable_session_metadata has no effect here"
    )


def test_session_config(file: Path) -> None:
    file.write_text("allow_soft_placement: true device_count { key: 'CPU' value: 1 }")
    config = protos.ConfigProto.FromString(read_session_config(str(file)))
    assert config.allow_soft_placement
    assert dict(config.device_count) == {"CPU": 1}


def test_session_configs_may_name_optimisers_and_experiments(file: Path) -> None:
    file.write_text("""
        graph_options {
          optimizer_options { global_jit_level: ON_1 }
          rewrite_options { constant_folding: OFF }
        }
        gpu_options { experimental { virtual_devices { memory_limit_mb: 512 } } }
        experimental { disable_thread_spinning: true }
    """)
    config = protos.ConfigProto.FromString(read_session_config(str(file)))
    assert config.graph_options.optimizer_options.global_jit_level == 1
    assert config.graph_options.rewrite_options.constant_folding == 2
    assert list(config.gpu_options.experimental.virtual_devices[0].memory_limit_mb) == [512]
    assert config.experimental.disable_thread_spinning


def test_an_unknown_field_of_a_session_config(file: Path) -> None:
    file.write_text("gpu_options {\n  alow_growth: true }")
    with pytest.raises(InvalidConfig, match=r'2:3 : .*GPUOptions.* no field named "alow_growth"'):
        read_session_config(str(file))


# The assembler ------------------------------------------------------------------------------------


def _options(**flags: Any) -> SavedModelOptions:
    return saved_model_options(ServerConfig(model_base_path="/m", **flags))


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        ({}, "tags", ("serve",)),
        ({"saved_model_tags": "serve,gpu"}, "tags", ("serve", "gpu")),
        ({"saved_model_tags": ""}, "tags", ()),
        ({}, "session_config", b""),
        ({"tensorflow_session_parallelism": 2}, "intra_op_threads", 2),
        ({"tensorflow_session_parallelism": 2}, "inter_op_threads", 2),
        (
            {"tensorflow_session_parallelism": 2, "tensorflow_intra_op_parallelism": 3},
            "intra_op_threads",
            3,
        ),
        (
            {"tensorflow_session_parallelism": 2, "tensorflow_intra_op_parallelism": 3},
            "inter_op_threads",
            0,
        ),
        ({"tensorflow_inter_op_parallelism": 3}, "inter_op_threads", 3),
        ({"tensorflow_intra_op_parallelism": -1}, "intra_op_threads", -1),
        ({"per_process_gpu_memory_fraction": 0.5}, "gpu_memory_fraction", 0.5),
        ({}, "enable_model_warmup", True),
        ({"enable_model_warmup": False}, "enable_model_warmup", False),
        ({}, "warmup_iterations", 1),
        ({"num_request_iterations_for_warmup": 3}, "warmup_iterations", 3),
        ({"num_request_iterations_for_warmup": -3}, "warmup_iterations", 1),
        ({"prefer_tflite_model": True}, "prefer_tflite_model", True),
        ({}, "num_tflite_pools", cpus()),
        ({"num_tflite_pools": 3}, "num_tflite_pools", 3),
        ({"num_tflite_interpreters_per_pool": 3}, "num_tflite_interpreters_per_pool", 3),
        ({}, "batching", None),
        (
            {"enable_batching": True},
            "batching",
            BatchingParameters(thread_pool_name="model_server_batch_threads"),
        ),
        ({"enable_per_model_batching_parameters": True}, "enable_per_model_batching", False),
        (
            {"enable_batching": True, "enable_per_model_batching_parameters": True},
            "enable_per_model_batching",
            True,
        ),
        ({"optimize_models": "wait"}, "optimize_models", "wait"),
        ({"cache_dir": "/c"}, "cache_dir", "/c"),
        ({}, "map_from_bytes", 16 << 20),
        ({"map_large_weights": "off"}, "map_from_bytes", 0),
    ],
)
def test_flags_become_options(flags: dict[str, Any], field: str, value: object) -> None:
    assert getattr(_options(**flags), field) == value


def test_a_session_file_counts_less_than_flags_that_are_set(file: Path) -> None:
    file.write_text(
        "intra_op_parallelism_threads: 5 inter_op_parallelism_threads: 6 "
        "allow_soft_placement: true gpu_options { per_process_gpu_memory_fraction: 0.25 }"
    )
    alone = _options(tensorflow_session_config_file=str(file))
    assert (alone.intra_op_threads, alone.inter_op_threads) == (5, 6)
    assert alone.gpu_memory_fraction == 0.25
    beside = _options(tensorflow_session_config_file=str(file), tensorflow_intra_op_parallelism=2)
    assert (beside.intra_op_threads, beside.inter_op_threads) == (2, 6)
    session = protos.ConfigProto.FromString(beside.session_config)
    assert session.allow_soft_placement
    assert session.intra_op_parallelism_threads == 2


def test_batching_file(file: Path) -> None:
    file.write_text("max_batch_size { value: 8 }")
    options = _options(enable_batching=True, batching_parameters_file=str(file))
    assert options.batching == BatchingParameters(max_batch_size=8)


def test_a_platform_file_replaces_the_flags_that_it_stands_for(file: Path) -> None:
    file.write_text(_platform("saved_model_tags: 'a'"))
    options = _options(
        platform_config_file=str(file),
        saved_model_tags="b",
        enable_batching=True,
        optimize_models="off",
    )
    assert (options.tags, options.batching) == (("a",), None)
    assert options.optimize_models == "off"


@pytest.mark.parametrize(
    "flag",
    ["platform_config_file", "tensorflow_session_config_file"],
)
def test_a_file_that_is_not_there(flag: str) -> None:
    with pytest.raises(NotFound, match=r"/no/such; No such file or directory"):
        _options(**{flag: "/no/such"})


@pytest.mark.parametrize("field", ["num_tflite_pools", "warmup_iterations"])
def test_options_have_limits(field: str) -> None:
    with pytest.raises(InvalidConfig, match=f"{field}: expected . or more, got -1"):
        SavedModelOptions(**{field: -1})  # type: ignore[arg-type]
