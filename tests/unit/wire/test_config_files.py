"""Text-format files: what they give, and what their mistakes say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingd.errors import InvalidConfig, NotFound
from servingd.wire.config.files import parse_text
from servingd.wire.protos import BatchingParameters, ModelServerConfig, PlatformConfigMap

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.txt"


def test_models(file: Path) -> None:
    file.write_text("""
        # A comment.
        model_config_list {
          config {
            name: "m" base_path: "/models/m" model_platform: "tensorflow"
            model_version_policy { specific { versions: 42 versions: 43 } }
            version_labels { key: "stable" value: 42 }
          }
        }
    """)
    (model,) = parse_text(str(file), ModelServerConfig).model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [42, 43]
    assert dict(model.version_labels) == {"stable": 42}


def test_wrappers_and_lists(file: Path) -> None:
    file.write_text("max_batch_size { value: 8 } allowed_batch_sizes: [4, 8]")
    parameters = parse_text(str(file), BatchingParameters)
    assert parameters.max_batch_size.value == 8
    assert list(parameters.allowed_batch_sizes) == [4, 8]
    assert not parameters.HasField("batch_timeout_micros")


def test_any_is_expanded_from_our_pool(file: Path) -> None:
    file.write_text("""
        platform_configs { key: "tensorflow" value { source_adapter_config {
          [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
            legacy_config { saved_model_tags: "serve" } } } } }
    """)
    entry = parse_text(str(file), PlatformConfigMap).platform_configs["tensorflow"]
    assert entry.source_adapter_config.value


def test_white_space_is_an_empty_message(file: Path) -> None:
    file.write_text(" \n\n")
    assert parse_text(str(file), ModelServerConfig) == ModelServerConfig()


def test_missing_file(file: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.txt; No such file or directory"):
        parse_text(str(file), ModelServerConfig)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("model_config_list {\n  confg { } }", r"2:3 : .*no field named \"confg\""),
        ("model_config_list {", "1:.*"),
        ("model_config_list { config { name: 5 } }", "1:36 : .*"),
        ("custom_model_config { [type.googleapis.com/no.Such] { } }", r"no\.Such"),
    ],
)
def test_mistakes_name_file_place_and_field(file: Path, text: str, detail: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=detail) as caught:
        parse_text(str(file), ModelServerConfig)
    assert str(caught.value).startswith(
        f"Invalid protobuf file: '{file}': "
        "Error parsing text-format tensorflow.serving.ModelServerConfig: "
    )


def test_unreadable_file(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="Invalid protobuf file: "):
        parse_text(str(file), ModelServerConfig)
    with pytest.raises(InvalidConfig, match="Invalid protobuf file: "):
        parse_text(str(file.parent), ModelServerConfig)
