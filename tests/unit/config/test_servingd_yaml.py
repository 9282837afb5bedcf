"""servingd.yaml: what it gives, and that its mistakes name file, line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingd.cli.config_reference import reference as config_reference
from servingd.config.flags.parser import FLAGS, TYPES
from servingd.config.models import ModelConfig
from servingd.config.request_log import LoggingConfig
from servingd.config.server import ServerConfig
from servingd.config.yaml.document import (
    MODEL_FIELDS,
    NOT_IN_FILE,
    merge_models,
    read_servingd_yaml,
)
from servingd.core.lifecycle.versions import All, Latest, Specific
from servingd.errors import InvalidConfig, NotFound, ServingError
from servingd.wire.config.models import configured_models


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "servingd.yaml"


def _models(file: Path, text: str, *listed: ModelConfig) -> tuple[ModelConfig, ...]:
    file.write_text(text)
    return merge_models(listed, read_servingd_yaml(str(file)).models)


def test_flags_and_models(file: Path) -> None:
    file.write_text("""\
# A comment.
port: 9000
drain_timeout_s: 5
enable_batching: true
models:
  - name: a
    base_path: /models/a
    platform: tensorflow
    version_policy: {specific: [1, 2]}
    version_labels: {stable: 1, canary: 2}
    logging: {type: tfrecord, filename_prefix: /logs/a, sampling_rate: 1}
  - {name: b, base_path: /models/b}
""")
    found = read_servingd_yaml(str(file))
    assert found.flags == {"port": 9000, "drain_timeout_s": 5.0, "enable_batching": True}
    assert merge_models((), found.models) == (
        ModelConfig(
            name="a",
            base_path="/models/a",
            version_policy=Specific((1, 2)),
            version_labels={"stable": 1, "canary": 2},
            logging=LoggingConfig(type="tfrecord", filename_prefix="/logs/a", sampling_rate=1.0),
        ),
        ModelConfig(name="b", base_path="/models/b", platform=""),
    )


@pytest.mark.parametrize("text", ["", "# only this\n", "---\n", "models:\n"])
def test_nothing_said(file: Path, text: str) -> None:
    file.write_text(text)
    found = read_servingd_yaml(str(file))
    assert (dict(found.flags), found.models) == ({}, ())


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("all", All()),
        ("{latest: 2}", Latest(2)),
        ("{specific: [3]}", Specific((3,))),
        ("{specific: []}", Specific(())),
    ],
)
def test_version_policies(file: Path, text: str, policy: Any) -> None:
    (model,) = _models(file, f"models: [{{name: m, base_path: /m, version_policy: {text}}}]")
    assert model.version_policy == policy


@pytest.mark.parametrize("name", sorted(FLAGS.keys() - set(NOT_IN_FILE)))
def test_every_flag_can_be_said_and_its_type_is_checked(file: Path, name: str) -> None:
    good = {bool: "true", int: "7", float: "0.5", str: "'a=b'"}
    texts = {
        "grpc_transport": "native",
        "optimize_models": "wait",
        "map_large_weights": "auto",
        "device": "GPU:1",
        "replicas": "per_device",
        "workers": "auto",
        "transition": "auto",
        "log_level": "debug",
        "log_format": "json",
        "host": "'::1'",
        "op_libraries": __file__,
        "python_imports": "a.b",
        "plugin": "a.b:C",
        "job_webhooks": "https://a/",
    }
    file.write_text(f"{name}: {texts.get(name, good[TYPES[name]])}\n")
    assert type(read_servingd_yaml(str(file)).flags[name]) is TYPES[name]
    file.write_text(f"\n{name}: [1]\n")
    with pytest.raises(InvalidConfig, match=rf"servingd.yaml:2: {name}: expected .*, got a list"):
        read_servingd_yaml(str(file))


@pytest.mark.parametrize(("said", "read"), [("2", "2"), ("per_device", "per_device")])
def test_where_a_model_is_loaded(file: Path, said: str, read: str) -> None:
    fields = f"device: 'GPU:0, gpu:1', replicas: {said}, transition: resource_preserving"
    (model,) = _models(file, f"models: [{{name: m, base_path: /m, {fields}}}]")
    assert (model.device, model.replicas, model.transition) == (
        "GPU:0, gpu:1",
        read,
        "resource_preserving",
    )


MODEL = "models:\n- name: m\n  base_path: /m\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("prot: 1", "1: prot: unknown key; did you mean port?"),
        ("\nversion: true", "2: version: unknown key"),
        ("servingd_config_file: /x", "1: servingd_config_file: unknown key"),
        ("port: 1\nport: 2", "2: port: stands twice; first in line 1"),
        ("port: '1'", "1: port: expected a whole number, got '1'"),
        ("port: true", "1: port: expected a whole number, got 'true'"),
        ("port:", "1: port: expected a whole number, got nothing"),
        ("port: 99999", "1: port: expected a port between 0 and 65535, got '99999'"),
        ("drain_delay_s: .nan", "1: drain_delay_s: expected a number, got '.nan'"),
        ("drain_delay_s: -1", "1: drain_delay_s: expected a number of at least 0, got '-1'"),
        ("enable_batching: 1", "1: enable_batching: expected true or false, got '1'"),
        (
            "model_name: 5",
            "1: model_name: expected a text, got '5'; a text that looks like something else needs "
            "quotes",
        ),
        ("model_name: !!python/name:os.system x", "1: model_name: expected a text, got 'x'"),
        ("port: !!int x", "1: port: expected a whole number, got 'x'"),
        ("- port", "1: expected a mapping, got a list"),
        ("7: 8", "1: expected a text, got '7'"),
        ("? [a]\n: b", "1: expected a text, got a list"),
        ("<<: {port: 1}", "1: expected a text, got '<<'"),
        ("models: 5", "1: models: expected a list, got '5'"),
        ("models:\n- 5", "2: models[0]: expected a mapping, got '5'"),
        ("models:\n- base_path: /m", "2: models[0]: expected a name, got a mapping"),
        (
            'models:\n- name: "a\\0b"\n  base_path: /m',
            "2: models[0].name: expected a name without control characters, got 'a\\x00b'",
        ),
        (
            'models:\n- name: m\n  base_path: "/m\\0"',
            "3: models[0].base_path: expected a path without NUL bytes, got '/m\\x00'",
        ),
        ("models:\n- name: ''", "2: models[0].name: expected a text that is not empty, got ''"),
        (f"{MODEL}  base_pth: /x", "4: models[0].base_pth: unknown key; did you mean base_path?"),
        (f"{MODEL}  x: /x", "4: models[0].x: unknown key; known: base_path, device, "),
        (f"{MODEL}  name: m", "4: models[0].name: stands twice; first in line 2"),
        (f"{MODEL}- name: m", "4: models[1].name: 'm' stands twice; first at "),
        (f"{MODEL}- name: n\n  base_path: x", "5: models[1].base_path: expected an absolute path,"),
        (f"{MODEL}  platform: 1", "4: models[0].platform: expected a text, got '1'"),
        (f"{MODEL}  version_policy: some", "4: models[0].version_policy: expected `all`, `latest"),
        (f"{MODEL}  version_policy: []", "4: models[0].version_policy: expected a mapping, got a "),
        (f"{MODEL}  version_policy: {{}}", "4: models[0].version_policy: expected one of `all`, "),
        (
            f"{MODEL}  version_policy:\n    latest: 0",
            "5: models[0].version_policy.latest: expected a number of versions, at least 1, got",
        ),
        (
            f"{MODEL}  version_policy:\n    specific:\n    - 1\n    - -1",
            "7: models[0].version_policy.specific[1]: expected a version between 0 and 92233",
        ),
        (
            f"{MODEL}  version_labels:\n    a: x",
            "5: models[0].version_labels.a: expected a whole number, got 'x'",
        ),
        (
            f"{MODEL}  logging:\n    sampling_rate: 2",
            "5: models[0].logging.sampling_rate: expected a number from 0 to 1, got '2'",
        ),
        (
            f"{MODEL}  logging: {{type: kafka}}",
            "4: models[0].logging: log_collector_config.type: expected tfrecord or nothing, got ",
        ),
        (f"{MODEL}  logging: {{kind: x}}", "4: models[0].logging.kind: unknown key; known: "),
        (
            f"{MODEL}  device: GPU:x",
            "4: models[0].device: expected auto, CPU, GPU, or names such as GPU:1 with commas, got",
        ),
        (f"{MODEL}  replicas: 300", "4: models[0].replicas: expected a whole number from 1 to 256"),
        (f"{MODEL}  replicas: 1.5", "4: models[0].replicas: expected a text, got '1.5'"),
        (f"{MODEL}  transition: x", "4: models[0].transition: expected one of auto, availability"),
        ("port: [", "1: expected the node content, but found '<stream end>'"),
        ("a: b: c", "1: mapping values are not allowed here"),
        ("port: 1\n---\nport: 2", "2: but found another document"),
        ("a: *b", "1: found undefined alias 'b'"),
        ("a: \x00", " unacceptable character"),
        ("[" * 100_000, " nested too deeply"),
    ],
)
def test_mistakes_name_file_line_and_field(file: Path, text: str, error: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        merge_models((), read_servingd_yaml(str(file)).models)
    assert str(caught.value).startswith(f"{file}:{error}")


def test_long_values_are_cut(file: Path) -> None:
    file.write_text(f"port: {'x' * 1000}")
    with pytest.raises(InvalidConfig, match=r"got 'x{60}\.\.\.'$"):
        read_servingd_yaml(str(file))


def test_missing_and_unreadable_files(file: Path) -> None:
    with pytest.raises(NotFound, match=r"servingd\.yaml; No such file or directory"):
        read_servingd_yaml(str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match=r"servingd\.yaml: "):
        read_servingd_yaml(str(file))
    with pytest.raises(InvalidConfig, match="Is a directory"):
        read_servingd_yaml(str(file.parent))


LISTED = ModelConfig(name="m", base_path="/m", version_policy=All())


def test_an_entry_without_a_path_adds_to_the_listed_model(file: Path) -> None:
    merged = _models(file, "models: [{name: m, version_labels: {stable: 3}}]", LISTED)
    assert merged == (
        ModelConfig(name="m", base_path="/m", version_policy=All(), version_labels={"stable": 3}),
    )


def test_a_path_in_both_is_refused(file: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        _models(file, "models:\n- {name: m, base_path: /x}", LISTED)
    assert str(caught.value) == (
        f"{file}:2: models[0]: base_path: model 'm' has one already, '/m'; leave it out here or "
        "there"
    )


def test_an_entry_without_a_path_needs_a_listed_model(file: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        _models(file, "models:\n- {name: n}", LISTED)
    assert str(caught.value) == (
        f"{file}:2: models[0]: base_path: model 'n' is in no other source, so it needs one"
    )
    entries = read_servingd_yaml(str(file)).models
    assert merge_models((LISTED,), entries, others_may_come=True) == (LISTED,)


def test_all_sources_together(file: Path, tmp_path: Path) -> None:
    listed = tmp_path / "models.config"
    listed.write_text(
        "model_config_list { config { name: 'm' base_path: '/m' model_platform: 'tensorflow' } }"
    )
    file.write_text("models: [{name: m, version_policy: all}, {name: n, base_path: /n}]")
    flags: dict[str, Any] = {"servingd_config_file": str(file)}
    config = ServerConfig(model_config_file=str(listed), **flags)
    assert configured_models(config) == (
        LISTED,
        ModelConfig(name="n", base_path="/n", platform=""),
    )
    config = ServerConfig(model_base_path="/m", model_name="m", **flags)
    assert configured_models(config)[0] == LISTED
    file.write_text("models: [{name: n, base_path: /n}]")
    assert [model.name for model in configured_models(ServerConfig(**flags))] == ["n"]


def test_no_source_names_a_model(file: Path) -> None:
    file.write_text("port: 1")
    with pytest.raises(InvalidConfig, match=r"model_config_file are empty! .*names no models"):
        configured_models(ServerConfig(servingd_config_file=str(file)))


def test_the_reference_names_everything() -> None:
    reference = config_reference()
    assert all(f"| `--{name}` |" in reference for name in FLAGS)
    assert all(f"| `{name}` |" in reference for name in MODEL_FIELDS)
    assert {name for name in MODEL_FIELDS if name not in ModelConfig.__slots__} == set()


KEYS = ["models", "name", "base_path", "version_policy", "latest", "port"]
MARKS = [":", ": ", "- ", "\n", "\n  ", "{", "}", "[", "]", ", ", "&a ", "*a", "!!int ", "'", "0x"]
WORDS = st.sampled_from([*KEYS, *MARKS, "/m", "1", "-1", "m", "_"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(), st.lists(WORDS).map("".join)))
def test_any_text_gives_a_configuration_or_an_error_of_ours(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        merge_models((), read_servingd_yaml(str(file)).models)
    except ServingError:
        return
