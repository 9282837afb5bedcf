"""Where models and files lie: paths, and `file://` addresses; what is not read is refused."""

from __future__ import annotations

import pytest

from servingd.config.flags.parser import parse_flags
from servingd.config.models import ModelConfig
from servingd.config.paths import NotLocal, local_path
from servingd.errors import InvalidConfig
from servingd.sources.catalogs import make_catalog
from servingd.wire.config.files import read_monitoring
from servingd.wire.config.models import configured_models


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/models/m", "/models/m"),
        ("models/m", "models/m"),
        ("file:///models/m", "/models/m"),
        ("FILE://localhost/models/m", "/models/m"),
        ("/odd/gs:/x", "/odd/gs:/x"),
        ("a:b", "a:b"),
    ],
)
def test_what_is_of_this_machine(text, path):
    assert local_path(text) == path


@pytest.mark.parametrize("text", ["gs://bucket/m", "s3://b/m", "hdfs://n:1/m", "https://x/m"])
def test_schemes_that_are_not_read_are_told(text):
    scheme = text.partition(":")[0]
    with pytest.raises(NotLocal, match=f"{scheme}:// is not read here"):
        local_path(text)


@pytest.mark.parametrize("text", ["file://otherhost/m", "file://"])
def test_a_file_of_another_machine_is_told(text):
    with pytest.raises(NotLocal, match="of this machine"):
        local_path(text)


def flags(*more: str):
    return parse_flags("servingd", list(more))


def test_base_paths_may_be_addresses():
    assert ModelConfig(name="m", base_path="file:///models/m").base_path == "/models/m"
    (model,) = configured_models(flags("--model_base_path=file:///models/m"))
    assert model.base_path == "/models/m"


def test_a_repository_may_be_an_address(tmp_path):
    assert make_catalog(flags(f"--model_repository=file://{tmp_path}")).watched() == str(tmp_path)


def test_a_configuration_file_may_be_an_address(tmp_path):
    file = tmp_path / "monitoring.config"
    file.write_text("prometheus_config { enable: true }")
    assert read_monitoring(f"file://{file}").enabled


@pytest.mark.parametrize("flag", ["model_base_path", "model_repository", "model_config_file"])
def test_an_address_that_is_not_read_ends_the_start(flag):
    with pytest.raises(InvalidConfig, match="gs:// is not read here, got 'gs://bucket/m'"):
        make_catalog(flags(f"--{flag}=gs://bucket/m"))


@pytest.mark.parametrize("flag", ["model_config_file", "servingd_config_file"])
def test_files_name_the_model_whose_address_is_not_read(flag, tmp_path):
    file = tmp_path / "models"
    text = {
        "model_config_file": "model_config_list { config { name: 'm' base_path: 's3://b/m' "
        "model_platform: 'tensorflow' } }",
        "servingd_config_file": "models:\n- name: m\n  base_path: s3://b/m\n",
    }
    file.write_text(text[flag])
    with pytest.raises(InvalidConfig, match=r"base_path.*s3:// is not read here, got .s3://b/m"):
        make_catalog(flags(f"--{flag}={file}"))
