"""The message classes: true names in a pool of their own, and fresh."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool, text_format

from servingd.wire import protos
from servingd.wire.protos import GetModelMetadataResponse, PredictRequest, SignatureDefMap
from servingd.wire.protos import compile as compile_protos


def test_names_are_tensorflow_servings() -> None:
    assert PredictRequest.DESCRIPTOR.full_name == "tensorflow.serving.PredictRequest"
    assert (
        PredictRequest.DESCRIPTOR.fields_by_name["inputs"]
        .message_type.fields_by_name["value"]
        .message_type.full_name
        == "tensorflow.TensorProto"
    )


def test_pool_is_private() -> None:
    name = "tensorflow.serving.internal.SerializedInput"  # in no wheel's Python modules
    assert protos.POOL.FindMessageTypeByName(name) is protos.SerializedInput.DESCRIPTOR
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName(name)


def test_short_names_are_unique() -> None:
    declared = [name for file in protos._files for name in file.message_types_by_name]
    assert sorted(declared) == sorted(protos._MESSAGES)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchMessage'"):
        protos.NoSuchMessage  # noqa: B018
    assert not hasattr(protos, "__wrapped__")


def test_class_is_made_once() -> None:
    assert protos.PredictRequest is PredictRequest
    assert protos.TensorProto is type(PredictRequest().inputs["x"])


def test_round_trip() -> None:
    request = PredictRequest(output_filter=["y"])
    request.model_spec.name = "m"
    request.model_spec.version.value = 0
    request.inputs["x"].float_val.extend([1.0, 2.0])
    again = PredictRequest.FromString(request.SerializeToString())
    assert again == request
    assert again.model_spec.WhichOneof("version_choice") == "version"


def test_what_minimal_messages_do_not_know_survives() -> None:
    unknown = b"\x0a\x03dev\x20\x07"  # ResourceHandleProto: device, hash_code
    content = b"\x72" + bytes([len(unknown)]) + unknown
    assert protos.TensorProto.FromString(content).SerializeToString() == content


def test_any_packs_and_unpacks_within_the_pool() -> None:
    response = GetModelMetadataResponse()
    sent = SignatureDefMap()
    sent.signature_def["serving_default"].method_name = "tensorflow/serving/predict"
    response.metadata["signature_def"].Pack(sent)
    received = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(received)
    assert received == sent
    assert (
        response.metadata["signature_def"].type_url
        == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    )


def test_text_format_expands_any_through_the_pool() -> None:
    text = """
    platform_configs { key: "tensorflow" value { source_adapter_config {
      [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
        legacy_config { saved_model_tags: "serve" session_config { allow_soft_placement: true } }
    } } } }
    """
    parsed = text_format.Parse(text, protos.PlatformConfigMap(), descriptor_pool=protos.POOL)
    adapter = protos.SavedModelBundleSourceAdapterConfig()
    assert parsed.platform_configs["tensorflow"].source_adapter_config.Unpack(adapter)
    assert adapter.legacy_config.session_config.allow_soft_placement


def test_services_are_found_by_full_name() -> None:
    assert set(protos.FILES) == {
        "inference.GRPCInferenceService",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.SessionService",
        "tensorflow.ProfilerService",
        "servingd.PredictionStream",
        "servingd.JobService",
    }
    file = protos.FILES["tensorflow.serving.PredictionService"]
    assert file.name == "tensorflow_serving/apis/prediction_service.proto"


def test_committed_output_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("grpc_tools")
    assert compile_protos.main(["--check"]) == 0, capsys.readouterr().err


def test_stale_output_is_told(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("grpc_tools")
    target = tmp_path_factory.mktemp("wire")
    (target / "_pb").mkdir()
    (target / "_pb" / "old_pb2.pyi").write_text("")
    monkeypatch.setattr(compile_protos, "_WIRE", target)
    assert compile_protos.main(["--check"]) == 1
    assert "run `make protos` and commit its output" in capsys.readouterr().err
    assert compile_protos.main([]) == 0
    assert not (target / "_pb" / "old_pb2.pyi").exists()
    assert compile_protos.main(["--check"]) == 0


def test_mistake_in_a_proto_is_told(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("grpc_tools")
    sources = tmp_path_factory.mktemp("protos")
    (sources / "bad.proto").write_text('syntax = "proto3";\nmessage {\n')
    with pytest.raises(RuntimeError, match="could not compile"):
        compile_protos.compile_protos(sources, tmp_path_factory.mktemp("out"))
    assert "bad.proto" in capfd.readouterr().err
