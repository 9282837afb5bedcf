"""The command line: one row per flag, and what its mistakes say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.config.flag_fields import channel_arguments, default_of
from servingd.config.flags.notes import REPLACED_BY_PLATFORM_CONFIG, notes
from servingd.config.flags.other_names import NOT_HERE, OTHER_NAMES
from servingd.config.flags.parser import FLAGS, TYPES, given_flags, make_config, parse_flags, usage
from servingd.config.server import ServerConfig
from servingd.errors import InvalidConfig, ServingError
from servingd.machine.cpus import cpus

MODEL = ("--model_base_path=/m",)

BOOL = ("=TRUE", True, "=maybe", "expected true or false, got 'maybe'")
INT = "expected a whole number, got"
INT32 = "expected a whole number from -2147483648 to 2147483647, got"
INT64 = "expected a whole number from -9223372036854775808 to 9223372036854775807, got"
PORT = "expected a port between 0 and 65535, got"
COUNT = "expected a whole number from 1 to 2147483647, got"
TEXT = ("=/some/x", "/some/x", None, "expected a text, got nothing")

# Name, default, a good value and what it gives, a bad one (None: left out) and its error.
TENSORFLOW_SERVING: list[tuple[str, Any, str, Any, str | None, str]] = [
    ("port", 8500, "=9000", 9000, "=65536", f"{PORT} 65536"),
    ("grpc_socket_path", "", *TEXT),
    ("rest_api_port", 0, "=8501", 8501, "=-1", f"{PORT} -1"),
    ("rest_api_num_threads", 4 * cpus(), "=3", 3, "=0", f"{COUNT} 0"),
    ("rest_api_timeout_in_ms", 30000, "=-1", -1, "=30s", f"{INT} '30s'"),
    ("rest_api_enable_cors_support", False, *BOOL),
    ("enable_batching", False, *BOOL),
    ("allow_version_labels_for_unavailable_models", False, *BOOL),
    ("batching_parameters_file", "", *TEXT),
    ("enable_per_model_batching_parameters", False, *BOOL),
    ("model_config_file", "", *TEXT),
    ("model_config_file_poll_wait_seconds", 0, "=60", 60, "=1.5", f"{INT} '1.5'"),
    ("model_name", "default", *TEXT),
    ("model_base_path", "", *TEXT),
    ("num_load_threads", 0, "=4", 4, "=-1", "expected a number of at least 0, got -1"),
    ("num_unload_threads", 0, "=4", 4, "=-1", "expected a number of at least 0, got -1"),
    ("max_num_load_retries", 5, "=0", 0, "=-1", "expected a number of at least 0, got -1"),
    ("load_retry_interval_micros", 60000000, "=-1", -1, f"={2**63}", f"{INT64} {2**63}"),
    ("file_system_poll_wait_seconds", 1, "=0", 0, "=", f"{INT} ''"),
    ("flush_filesystem_caches", True, *BOOL),
    ("tensorflow_session_parallelism", 0, "=2", 2, f"={2**31}", f"{INT32} {2**31}"),
    ("tensorflow_session_config_file", "", *TEXT),
    ("tensorflow_intra_op_parallelism", 0, "=2", 2, f"={2**31}", f"{INT32} {2**31}"),
    ("tensorflow_inter_op_parallelism", 0, "=-1", -1, f"={2**31}", f"{INT32} {2**31}"),
    ("use_alts_credentials", False, *BOOL),
    ("ssl_config_file", "", *TEXT),
    ("platform_config_file", "", *TEXT),
    ("per_process_gpu_memory_fraction", 0.0, "=0.5", 0.5, "=nan", "expected a number, got 'nan'"),
    ("saved_model_tags", "serve", "=serve,gpu", "serve,gpu", None, "expected a text, got nothing"),
    (
        "grpc_channel_arguments",
        "",
        "=grpc.max_connection_age_ms=10,a=b",
        "grpc.max_connection_age_ms=10,a=b",
        "=a=1,b",
        "expected key=value,key=value (the part 'b' is none), got 'a=1,b'",
    ),
    ("grpc_max_threads", 4 * cpus(), "=3", 3, "=0", f"{COUNT} 0"),
    ("enable_model_warmup", True, *BOOL),
    ("num_request_iterations_for_warmup", 0, "=3", 3, "=1e3", f"{INT} '1e3'"),
    ("version", False, *BOOL),
    ("monitoring_config_file", "", *TEXT),
    ("remove_unused_fields_from_bundle_metagraph", True, *BOOL),
    ("prefer_tflite_model", False, *BOOL),
    ("num_tflite_pools", cpus(), "=3", 3, "=0", f"{COUNT} 0"),
    ("num_tflite_interpreters_per_pool", 1, "=3", 3, "=0", f"{COUNT} 0"),
    ("enable_signature_method_name_check", False, *BOOL),
    ("xla_cpu_compilation_enabled", False, *BOOL),
    ("xla_gpu_compilation_enabled", False, *BOOL),
    ("enable_profiler", True, *BOOL),
    ("thread_pool_factory_config_file", "", *TEXT),
    ("mixed_precision", "", "=bfloat16", "bfloat16", None, "expected a text, got nothing"),
    ("skip_initialize_tpu", False, *BOOL),
    ("enable_grpc_healthcheck_service", False, *BOOL),
    ("enable_serialization_as_tensor_content", False, *BOOL),
]

OURS: list[tuple[str, Any, str, Any, str | None, str]] = [
    ("servingd_config_file", "", *TEXT),
    ("model_repository", "", *TEXT),
    ("model_platform", "tensorflow", "=auto", "auto", None, "expected a text, got nothing"),
    (
        "host",
        "",
        "=127.0.0.1",
        "127.0.0.1",
        "=here",
        "expected an IP address of this machine, or localhost, got 'here'",
    ),
    (
        "grpc_transport",
        "auto",
        "=native",
        "native",
        "=carrier_pigeon",
        "expected one of auto, native, grpcio, got 'carrier_pigeon'",
    ),
    ("rest_ssl_config_file", "", *TEXT),
    ("admin_port", 0, "=8502", 8502, "=x", f"{INT} 'x'"),
    ("admin_rest_port", 0, "=8503", 8503, "=x", f"{INT} 'x'"),
    ("admin_token_file", "", *TEXT),
    (
        "workers",
        "1",
        "=auto",
        "auto",
        "=0",
        "expected a whole number from 1 to 256, or auto, got '0'",
    ),
    ("recycle_above", 0.0, "=0.5", 0.5, "=-1", "expected a number of at least 0, got -1.0"),
    ("max_connection_age_s", 0.0, "=60", 60.0, "=-1", "expected a number of at least 0, got -1.0"),
    ("hold_calls_during_start", True, *BOOL),
    ("reload_timeout_s", 300.0, "=1", 1.0, "=-1", "expected a number of at least 0, got -1.0"),
    ("load_timeout_s", 3600.0, "=0", 0.0, "=-1", "expected a number of at least 0, got -1.0"),
    ("request_log_max_bytes", 100 << 20, "=1", 1, "=0", "expected a number of at least 1, got 0"),
    ("request_log_max_files", 10, "=1", 1, "=0", f"{COUNT} 0"),
    (
        "optimize_models",
        "background",
        "=off",
        "off",
        "=on",
        "expected one of off, background, wait, got 'on'",
    ),
    ("cache_dir", "", *TEXT),
    (
        "map_large_weights",
        "auto",
        "=off",
        "off",
        "=on",
        "expected one of off, auto, got 'on'",
    ),
    ("inline_below_us", 200, "=0", 0, "=-1", "expected a number of at least 0, got -1"),
    ("merge_waiting_calls", True, *BOOL),
    ("check_input_shapes", False, *BOOL),
    (
        "op_libraries",
        "",
        f"={__file__}",
        __file__,
        "=/no/such.so",
        "expected files, with commas (/no/such.so is none), got '/no/such.so'",
    ),
    (
        "python_imports",
        "",
        "=a.b,_c",
        "a.b,_c",
        "=a/b",
        "expected names of modules, with commas ('a/b' is none), got 'a/b'",
    ),
    (
        "plugin",
        "",
        "=a.b:C,d/e.py:F",
        "a.b:C,d/e.py:F",
        "=a.b",
        "expected module:Class or path/file.py:Class, with commas ('a.b' is neither), got 'a.b'",
    ),
    ("allow_python_models", False, *BOOL),
    ("self_warm_up", True, *BOOL),
    ("latency_goal_ms", 0.0, "=5", 5.0, "=-1", "expected a number of at least 0, got -1.0"),
    ("max_queue_s", 30.0, "=5", 5.0, "=-1", "expected a number of at least 0, got -1.0"),
    ("max_queue_mb", 0, "=5", 5, "=-1", "expected a number of at least 0, got -1"),
    ("max_streams", 256, "=5", 5, "=0", f"{COUNT} 0"),
    ("jobs_mb", 64, "=5", 5, "=0", f"{COUNT} 0"),
    ("job_age_s", 600.0, "=5", 5.0, "=-1", "expected a number of at least 0, got -1.0"),
    (
        "job_webhooks",
        "",
        "=https://a/b/,http://c:1/",
        "https://a/b/,http://c:1/",
        "=https://a/b",
        "expected addresses such as https://host/path/, with commas ('https://a/b' is none), got 'https://a/b'",
    ),
    ("large_bodies_mb", 0, "=5", 5, "=-1", "expected a number of at least 0, got -1"),
    (
        "device",
        "auto",
        "=gpu:1, CPU",
        "gpu:1, CPU",
        "=TPU:0",
        "expected auto, CPU, GPU, or names such as GPU:1 with commas, got 'TPU:0'",
    ),
    (
        "replicas",
        "1",
        "=per_device",
        "per_device",
        "=0",
        "expected a whole number from 1 to 256, or per_device, got '0'",
    ),
    (
        "transition",
        "auto",
        "=resource_preserving",
        "resource_preserving",
        "=fast",
        "expected one of auto, availability_preserving, resource_preserving, got 'fast'",
    ),
    ("ram_budget_mb", 0, "=2048", 2048, "=-1", "expected a number of at least 0, got -1"),
    ("device_memory_budget_mb", 0, "=512", 512, "=-1", "expected a number of at least 0, got -1"),
    (
        "virtual_cpu_devices",
        0,
        "=4",
        4,
        "=65",
        "expected a whole number from 0 to 64, got 65",
    ),
    ("log_level", "info", "=debug", "debug", "=loud", "expected one of info, debug, got 'loud'"),
    (
        "log_format",
        "text",
        "=json",
        "json",
        "=xml",
        "expected one of text, json, got 'xml'",
    ),
    ("drain_delay_s", 0.0, "=0.5", 0.5, "=inf", "expected a number, got 'inf'"),
    ("drain_timeout_s", 20.0, "=5", 5.0, "=soon", "expected a number, got 'soon'"),
    ("ready_when", "all", "=a,b", "a,b", None, "expected a text, got nothing"),
    ("max_request_bytes", 2**31 - 1, "=1", 1, "=0", "expected a number of at least 1, got 0"),
]

ROWS = [*TENSORFLOW_SERVING, *OURS]


def test_the_table_is_whole_and_in_tensorflow_servings_order() -> None:
    assert len(TENSORFLOW_SERVING) == 48
    assert [row[0] for row in ROWS] == list(FLAGS)
    ours = [name for name, field in FLAGS.items() if field.metadata["ours"]]
    assert ours == [row[0] for row in OURS]


@pytest.mark.parametrize(
    ("name", "default", "good", "value", "bad", "error"), ROWS, ids=[row[0] for row in ROWS]
)
def test_flag(name: str, default: Any, good: str, value: Any, bad: str | None, error: str) -> None:
    assert default_of(FLAGS[name]) == default
    assert TYPES[name] is type(default)
    assert given_flags("x", [f"--{name}{good}"]) == {name: value}
    with pytest.raises(InvalidConfig) as caught:
        given_flags("x", [f"--{name}{bad or ''}"])
    assert str(caught.value) == f"--{name}: {error}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "1"], {"port": 1}),
        (["--port=1", "--port=2"], {"port": 2}),
        (["--load_retry_interval_micros", "-1"], {"load_retry_interval_micros": -1}),
        (["--enable_batching"], {"enable_batching": True}),
        (["--enable_batching", "--port=1"], {"enable_batching": True, "port": 1}),
        (["--enable_batching", "False"], {"enable_batching": False}),
        (["--enable_batching=0"], {"enable_batching": False}),
        (["--enable_batching", "1"], {"enable_batching": True}),
        (["--model_name="], {"model_name": ""}),
        (["--model_name", "a=b"], {"model_name": "a=b"}),
    ],
)
def test_ways_to_write_them(arguments: list[str], expected: dict[str, Any]) -> None:
    assert given_flags("x", arguments) == expected


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("--prot=1", "unknown argument: --prot=1; did you mean --port?"),
        ("--model-name=x", "unknown argument: --model-name=x; did you mean --model_name?"),
        ("port=1", "unknown argument: port=1; did you mean --port?"),
        ("-port=1", "unknown argument: -port=1; did you mean --port?"),
        ("--", "unknown argument: --; --help lists the flags"),
        ("zzz", "unknown argument: zzz; --help lists the flags"),
        ("--grpc_port=1", "unknown argument: --grpc_port=1; did you mean --port?"),
        ("--http-port=1", "unknown argument: --http-port=1; did you mean --rest_api_port?"),
        ("--rest_port=1", "unknown argument: --rest_port=1; did you mean --rest_api_port?"),
        ("--model_dir=m", "unknown argument: --model_dir=m; did you mean --model_base_path?"),
        ("--model-store=m", "unknown argument: --model-store=m; did you mean --model_repository?"),
        ("--Log-Level=x", "unknown argument: --Log-Level=x; did you mean --log_level?"),
        ("--bind=::", "unknown argument: --bind=::; did you mean --host?"),
        (
            "./m",
            "unknown argument: ./m; did you mean --model_repository=./m, or --model_base_path=./m?",
        ),
    ],
)
def test_unknown_arguments_are_told_the_nearest(argument: str, error: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        given_flags("x", [*MODEL, argument])
    assert str(caught.value) == error


def test_a_flag_without_its_value() -> None:
    with pytest.raises(InvalidConfig, match="--model_name: expected a text, got nothing"):
        given_flags("x", ["--model_name", "--port=1"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            [*MODEL, "--port=0"],
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be "
            "set.",
        ),
        (
            [*MODEL, "--rest_api_port=8500"],
            "server_options.http_port cannot be same as grpc_port. Please use a different port "
            "for HTTP/REST API: both are 8500",
        ),
        (
            [*MODEL, "--admin_port=8500"],
            "--admin_port: expected a port of its own, got that of --port, 8500",
        ),
        (
            [*MODEL, "--rest_api_port=8501", "--admin_rest_port=8501"],
            "--admin_rest_port: expected a port of its own, got that of --rest_api_port, 8501",
        ),
        (
            [*MODEL, "--admin_port=8502", "--admin_rest_port=8502"],
            "--admin_rest_port: expected a port of its own, got that of --admin_port, 8502",
        ),
        (
            [],
            "Both server_options.model_base_path and server_options.model_config_file are empty! "
            "(--model_repository or --servingd_config_file would do as well.)",
        ),
        (
            [*MODEL, "--use_alts_credentials", "--ssl_config_file=/x"],
            "Either use_alts_credentials must be false or ssl_config_file must be empty.",
        ),
        (
            [*MODEL, "--batching_parameters_file=/x"],
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true.",
        ),
        (
            [
                *MODEL,
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, "
            "server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all.",
        ),
        (
            [*MODEL, "--thread_pool_factory_config_file=/x"],
            "--thread_pool_factory_config_file: no thread pool factory is registered, got '/x'",
        ),
    ],
)
def test_flags_that_do_not_go_together(arguments: list[str], error: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_flags("x", arguments)
    assert str(caught.value) == error


def test_what_may_go_together() -> None:
    parse_flags("x", [*MODEL, "--port=0", "--grpc_socket_path=/s"])
    parse_flags("x", [*MODEL, "--batching_parameters_file=/x", "--platform_config_file=/y"])
    parse_flags("x", ["--servingd_config_file=/x"])


def test_what_is_given_counts_before_what_counts_less() -> None:
    config = make_config(
        {"port": 1, "model_base_path": "/m"}, {"port": 2, "rest_api_port": 3}, {"rest_api_port": 4}
    )
    assert (config.port, config.rest_api_port) == (1, 3)


def test_defaults_of_a_program() -> None:
    assert parse_flags("x", MODEL, {"rest_api_port": 8501}).rest_api_port == 8501
    assert "metrics and status. 0: none. Default: 8501." in usage("x", {"rest_api_port": 8501})


def test_help_lists_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_flags("servingd serve", ["--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert printed == usage("servingd serve")
    assert all(f"  --{name}=" in printed for name in FLAGS)
    theirs, ours = printed.split("servingd's own flags:")
    assert "--enable_batching=BOOL" in theirs
    assert "--model_repository=STR" in ours
    assert "Default: four per CPU core." in theirs


@pytest.mark.parametrize(
    "stale",
    [
        ["--use_saved_model"],
        ["--use_saved_model=true"],
        ["--use_saved_model", "false"],
        ["--v=1"],
        ["--v", "1"],
        ["--logtostderr"],
        ["--alsologtostderr=1"],
        ["--stderrthreshold", "0"],
    ],
)
def test_flags_that_tensorflow_serving_had_once_are_passed_over(stale: list[str]) -> None:
    said: list[str] = []
    given = given_flags("x", [*stale, *MODEL, *stale], None, said)
    assert given == given_flags("x", MODEL)
    name = stale[0].partition("=")[0]
    assert len(said) == 2
    assert said[0].startswith(f"{name} is not known any more and has no effect: ")


def test_typos_are_no_stale_flags_and_servingd_itself_has_none() -> None:
    with pytest.raises(InvalidConfig, match="did you mean --model_name"):
        given_flags("x", ["--model_nam=m"], None, [])
    for wrong in ("--vv=1", "-v=1", "v"):
        with pytest.raises(InvalidConfig, match="unknown argument"):
            given_flags("x", [wrong], None, [])
    with pytest.raises(InvalidConfig, match="unknown argument: --use_saved_model"):
        given_flags("x", ["--use_saved_model"])


def test_notes_tell_what_was_set_and_has_no_effect() -> None:
    arguments = [*MODEL, "--mixed_precision=bfloat16", "--skip_initialize_tpu=false", "--port=1"]
    flags = given_flags("x", arguments)
    assert notes(make_config(flags), flags) == [
        "--mixed_precision has no effect: graphs run with the precision that they were exported "
        "with"
    ]


@pytest.mark.parametrize(
    ("arguments", "name", "reason"),
    [
        (["--monitoring_config_file=/x"], "monitoring_config_file", "--rest_api_port is 0: "),
        (
            ["--admin_rest_port=8503", "--rest_api_num_threads=1", "--rest_ssl_config_file=/x"],
            "rest_api_num_threads",
            "--rest_api_port is 0: ",
        ),
        (["--model_config_file=/x"], "model_base_path", "--model_config_file says which"),
        (["--model_repository=/x"], "model_base_path", "--model_repository says which"),
        (["--model_config_file_poll_wait_seconds=1"], "model_config_file_poll_wait_seconds", ""),
        (["--enable_per_model_batching_parameters"], "enable_per_model_batching_parameters", ""),
    ],
)
def test_notes_on_flags_that_need_or_bar_others(
    arguments: list[str], name: str, reason: str
) -> None:
    flags = given_flags("x", [*MODEL, *arguments])
    (note,) = notes(make_config(flags), flags)
    assert note.startswith(f"--{name} has no effect: {reason}")


def test_a_platform_file_replaces_flags() -> None:
    assert len(REPLACED_BY_PLATFORM_CONFIG) == 16
    assert set(REPLACED_BY_PLATFORM_CONFIG) <= FLAGS.keys()
    flags = given_flags("x", [*MODEL, "--platform_config_file=/x", "--saved_model_tags=a"])
    assert notes(make_config(flags), flags) == [
        "--saved_model_tags has no effect: --platform_config_file replaces it"
    ]


def test_channel_arguments() -> None:
    assert channel_arguments("") == ()
    assert channel_arguments("a=1,b=-2,c=x,d=,e=1=2,f=2147483648,g=--1") == (
        ("a", 1),
        ("b", -2),
        ("c", "x"),
        ("d", ""),
        ("e", "1=2"),
        ("f", "2147483648"),
        ("g", "--1"),
    )


@given(
    st.lists(
        st.one_of(
            st.text(),
            st.builds(
                lambda name, glue, text: f"--{name}{glue}{text}",
                st.sampled_from(sorted(FLAGS)),
                st.sampled_from(["=", ""]),
                st.text(),
            ),
        ).filter(lambda word: word not in ("-h", "--help")),
        max_size=4,
    )
)
def test_any_words_give_a_configuration_or_an_error_of_ours(words: list[str]) -> None:
    try:
        config = parse_flags("x", words)
    except ServingError:
        return
    assert config == ServerConfig(**dataclasses.asdict(config))


def test_flags_of_other_servers_name_flags_that_there_are() -> None:
    assert set(OTHER_NAMES.values()) <= FLAGS.keys()
    assert not FLAGS.keys() & (OTHER_NAMES.keys() | NOT_HERE.keys())
