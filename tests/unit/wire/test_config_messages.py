"""Text-format files of smaller things, as configurations: each field, each rule, each error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingd.config.batching import BatchingParameters
from servingd.config.tls_and_monitoring import MonitoringConfig, SSLConfig
from servingd.errors import InvalidConfig, ServingError
from servingd.machine.cpus import cpus
from servingd.wire.config.files import (
    read_batching,
    read_monitoring,
    read_platform,
    read_session_config,
    read_tls,
)
from servingd.wire.config.models import read_models

READERS = [
    read_models,
    read_batching,
    read_monitoring,
    read_tls,
    read_platform,
    read_session_config,
]


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("max_batch_size { value: 8 }", {"max_batch_size": 8, "max_execution_batch_size": 8}),
        ("batch_timeout_micros { value: 5 }", {"batch_timeout_micros": 5}),
        ("max_enqueued_batches { value: 5 }", {"max_enqueued_batches": 5}),
        ("max_enqueued_batches { value: 0 }", {"max_enqueued_batches": 1}),
        ("num_batch_threads { value: 5 }", {"num_batch_threads": 5}),
        ('thread_pool_name { value: "p" }', {"thread_pool_name": "p"}),
        (
            "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 5 }",
            {"enable_large_batch_splitting": True, "max_execution_batch_size": 5},
        ),
        ("max_execution_batch_size { value: 5 }", {"max_execution_batch_size": 1000}),
        ("allowed_batch_sizes: [2, 1000]", {"allowed_batch_sizes": (2, 1000)}),
        ("pad_variable_length_inputs: true", {"pad_variable_length_inputs": True}),
    ],
)
def test_batching_fields(file: Path, text: str, expected: dict[str, Any]) -> None:
    file.write_text(text)
    assert read_batching(str(file)) == BatchingParameters(**expected)


def test_batching_defaults() -> None:
    defaults = BatchingParameters()
    assert (defaults.max_batch_size, defaults.max_execution_batch_size) == (1000, 1000)
    assert (defaults.batch_timeout_micros, defaults.max_enqueued_batches) == (0, 10)
    assert (defaults.num_batch_threads, defaults.thread_pool_name) == (cpus(), "batch_threads")


SPLIT = "enable_large_batch_splitting { value: true }"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        (
            "batch_timeout_micros { value: -1 }",
            "batch_timeout_micros must be non-negative; was -1",
        ),
        (
            f"{SPLIT} max_enqueued_batches {{ value: 0 }}",
            "max_enqueued_batches must be positive; was 0",
        ),
        ("max_enqueued_batches { value: -1 }", "max_enqueued_batches must be positive; was -1"),
        (
            f"{SPLIT} max_execution_batch_size {{ value: -1 }}",
            "max_execution_batch_size must be positive; was -1",
        ),
        (
            f"{SPLIT} max_execution_batch_size {{ value: 1001 }}",
            "When enable_large_batch_splitting is true, input_batch_size_limit must be greater "
            "than or equal to max_execution_batch_size. input_batch_size_limit: 1000, "
            "max_execution_batch_size: 1001",
        ),
        (
            "allowed_batch_sizes: [2, 4]",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; "
            "expected 1000",
        ),
        (
            "allowed_batch_sizes: [4, 2, 1000]",
            "allowed_batch_sizes: expected positive numbers, ascending, got [4, 2, 1000]",
        ),
        (
            "allowed_batch_sizes: [0, 1000]",
            "allowed_batch_sizes: expected positive numbers, ascending, got [0, 1000]",
        ),
    ],
)
def test_wrong_batching(file: Path, text: str, error: str) -> None:
    assert _error(read_batching, file, text) == error


# MonitoringConfig, SSLConfig ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", MonitoringConfig()),
        ("prometheus_config { enable: true }", MonitoringConfig(enabled=True)),
        (
            'prometheus_config { enable: true, path: "/x" }',
            MonitoringConfig(enabled=True, path="/x"),
        ),
        (
            'prometheus_config { enable: true, path: "x/y" }',
            MonitoringConfig(enabled=True, path="/x/y"),
        ),
    ],
)
def test_monitoring(file: Path, text: str, expected: MonitoringConfig) -> None:
    file.write_text(text)
    assert read_monitoring(str(file)) == expected
    assert MonitoringConfig().path == "/monitoring/prometheus/metrics"


def _pem(kind: str) -> str:
    return rf"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n"


KEY, CERT = _pem("PRIVATE KEY"), _pem("CERTIFICATE")


def test_tls(file: Path) -> None:
    file.write_text(
        f'server_key: "{_pem("EC PARAMETERS")}{_pem("EC PRIVATE KEY")}" server_cert: "{CERT}" '
        f'custom_ca: "{CERT}" client_verify: true'
    )
    config = read_tls(str(file))
    assert config.server_key.endswith("\n-----END EC PRIVATE KEY-----\n")
    assert config.server_cert == config.custom_ca == CERT.replace("\\n", "\n")
    assert repr(config) == "SSLConfig(client_verify=True)"
    assert SSLConfig(server_key=config.server_key, server_cert=config.server_cert)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "server_key: expected PEM contents, -----BEGIN PRIVATE KEY-----, got nothing"),
        (
            'server_key: "/etc/key.pem"',
            "server_key: expected PEM contents, -----BEGIN PRIVATE KEY-----, got 12 characters "
            "that are none; paths are not followed",
        ),
        (
            f'server_key: "{CERT}"',
            "server_key: expected PEM contents, -----BEGIN PRIVATE KEY-----, got PEM of "
            "CERTIFICATE",
        ),
        (
            f'server_key: "{_pem("ENCRYPTED PRIVATE KEY")}"',
            "server_key: expected PEM contents, -----BEGIN PRIVATE KEY-----, got PEM of "
            "ENCRYPTED PRIVATE KEY",
        ),
        (
            f'server_key: "{KEY}"',
            "server_cert: expected PEM contents, -----BEGIN CERTIFICATE-----, got nothing",
        ),
        (
            f'server_key: "{KEY}" server_cert: "{CERT}" custom_ca: "{KEY}"',
            "custom_ca: expected PEM contents, -----BEGIN CERTIFICATE-----, got PEM of PRIVATE KEY",
        ),
        (
            f'server_key: "{KEY}" server_cert: "{CERT}" client_verify: true',
            "custom_ca: client_verify needs the roots of the clients' certificates, got nothing",
        ),
    ],
)
def test_wrong_tls(file: Path, text: str, error: str) -> None:
    assert _error(read_tls, file, text) == error


def test_errors_show_nothing_of_a_key(file: Path) -> None:
    file.write_text('server_key:\n"SECRET\\ud800"')
    with pytest.raises(InvalidConfig) as caught:
        read_tls(str(file))
    assert str(caught.value) == (
        f"Invalid protobuf file: '{file}': Error parsing text-format tensorflow.serving.SSLConfig: "
        "2:1 : not shown, as the file may hold a key"
    )


def test_a_file_that_is_nested_too_deeply(file: Path) -> None:
    name = "tensorflow.serving.ModelServerConfig"
    file.write_text(f"custom_model_config {{ [type.googleapis.com/{name}] {{ " * 3000)
    with pytest.raises(InvalidConfig, match=f"text-format {name}: nested too deeply"):
        read_models(str(file))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(READERS), st.text())
def test_any_text_gives_a_configuration_or_an_error_of_ours(
    file: Path, read: Any, text: str
) -> None:
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        read(str(file))
    except ServingError:
        return
