"""Our .proto files say what TensorFlow's and TensorFlow Serving's compiled ones say."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from servingd.wire import protos

pytestmark = pytest.mark.tf

ALL = frozenset({"*"})

# What ours leave out on purpose; the .proto files say so as well.
LEFT_OUT: dict[str, frozenset[str]] = {
    "tensorflow.ResourceHandleProto": ALL,
    "tensorflow.VariantTensorDataProto": ALL,
    "tensorflow.TypeSpecProto": ALL,
    "tensorflow.RunMetadata": ALL,
    "tensorflow.RewriterConfig": frozenset(
        {
            "custom_optimizers",
            "inter_optimizer_verifier_config",
            "post_optimization_verifier_config",
        }
    ),
    "tensorflow.ConfigProto": frozenset({"rpc_options", "cluster_def"}),
    "tensorflow.ConfigProto.Experimental": frozenset({"session_metadata", "coordination_config"}),
    "tensorflow.ProfileOptions": frozenset(
        {
            "advanced_configuration",
            "device_type",
            "override_hostname",
            "raise_error_on_start_failure",
            "session_id",
            "trace_options",
        }
    ),
    "tensorflow.RunOptions": frozenset({"debug_options", "experimental"}),
}

# Twins carry names of their own; they leave out fields, and keep messages and enums unparsed.
TWINS = {
    "servingd.SavedModel": "tensorflow.SavedModel",
    "servingd.MetaGraph": "tensorflow.MetaGraphDef",
    "servingd.SavedModelText": "tensorflow.SavedModel",
    "servingd.MetaGraphText": "tensorflow.MetaGraphDef",
    "servingd.MetaInfo": "tensorflow.MetaGraphDef.MetaInfoDef",
    "servingd.SaverDef": "tensorflow.SaverDef",
    "servingd.CollectionDef": "tensorflow.CollectionDef",
    "servingd.CollectionDef.NodeList": "tensorflow.CollectionDef.NodeList",
    "servingd.CollectionDef.BytesList": "tensorflow.CollectionDef.BytesList",
    "servingd.CollectionDef.AnyList": "tensorflow.CollectionDef.AnyList",
    "servingd.BundleHeader": "tensorflow.BundleHeaderProto",
    "servingd.BundleEntry": "tensorflow.BundleEntryProto",
    "servingd.Graph": "tensorflow.GraphDef",
    "servingd.Node": "tensorflow.NodeDef",
    "servingd.Attr": "tensorflow.AttrValue",
    "servingd.Attr.List": "tensorflow.AttrValue.ListValue",
    "servingd.Argument": "tensorflow.OpDef.ArgDef",
    "servingd.NamedFunction": "tensorflow.NameAttrList",
    "servingd.FunctionLibrary": "tensorflow.FunctionDefLibrary",
    "servingd.Function": "tensorflow.FunctionDef",
    "servingd.Operation": "tensorflow.OpDef",
    "servingd.OnnxModel": "onnx.ModelProto",
    "servingd.OnnxOperatorSet": "onnx.OperatorSetIdProto",
    "servingd.OnnxGraph": "onnx.GraphProto",
    "servingd.OnnxNode": "onnx.NodeProto",
    "servingd.OnnxAttribute": "onnx.AttributeProto",
    "servingd.OnnxTensor": "onnx.TensorProto",
    "servingd.OnnxEntry": "onnx.StringStringEntryProto",
    "servingd.OnnxValue": "onnx.ValueInfoProto",
    "servingd.OnnxType": "onnx.TypeProto",
    "servingd.OnnxType.Tensor": "onnx.TypeProto.Tensor",
    "servingd.OnnxShape": "onnx.TensorShapeProto",
    "servingd.OnnxShape.Dimension": "onnx.TensorShapeProto.Dimension",
    "servingd.StatusDetails.Detail": "google.protobuf.Any",
    "servingd.RetryInfo.Delay": "google.protobuf.Duration",
    "servingd.ExamplesRequest": "tensorflow.serving.ClassificationRequest",
    "servingd.MultiExamplesRequest": "tensorflow.serving.MultiInferenceRequest",
    "servingd.InputsRequest": "tensorflow.serving.PredictRequest",
    "servingd.InputTensor": "tensorflow.TensorProto",
    "tensorflow.serving.internal.SerializedExampleList": "tensorflow.serving.ExampleList",
    "tensorflow.serving.internal.SerializedExampleListWithContext": (
        "tensorflow.serving.ExampleListWithContext"
    ),
    "tensorflow.serving.internal.SerializedInput": "tensorflow.serving.Input",
}

# In no wheel: written from the reference tables, which were dumped from the C++ tree.
NOWHERE_TO_COMPARE = {
    "servingd.Job",
    "servingd.JobRequest",
    "servingd.RetryInfo",
    "servingd.StatusDetails",
    "servingd.TritonInstanceGroup",
    "servingd.TritonModel",
    "servingd.TritonVersionPolicy",
    "servingd.TritonVersionPolicy.All",
    "servingd.TritonVersionPolicy.Latest",
    "servingd.TritonVersionPolicy.Specific",
    "tensorflow.ProfileRequest",
    "tensorflow.ProfileResponse",
    "tensorflow.ProfileToolData",
    "tensorflow.TerminateRequest",
    "tensorflow.TerminateResponse",
    "tensorflow.serving.BatchOpRewriteConfig",
    "tensorflow.serving.BatchingParameters",
    "tensorflow.serving.ModelWarmupOptions",
    "tensorflow.serving.MonitoringConfig",
    "tensorflow.serving.PrometheusConfig",
    "tensorflow.serving.SSLConfig",
    "tensorflow.serving.SavedModelBundleSourceAdapterConfig",
    "tensorflow.serving.SavedModelConfig",
    "tensorflow.serving.SessionBundleConfig",
    "tensorflow.serving.SessionOverrides",
    "tensorflow.serving.ThreadPoolFactoryConfig",
    "tensorflow.serving.tools.RemoteOpRemapConfig",
    "tensorflow.tfrt_stub.RuntimeConfigProto",
}

IN_NO_WHEEL = {
    "inference.GRPCInferenceService",  # tests/e2e/test_oip.py compares it with tritonclient's
    "servingd.JobService",
    "servingd.PredictionStream",
    "tensorflow.ProfilerService",
}


def _our_messages() -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}

    def walk(message: Descriptor) -> None:
        if not message.GetOptions().map_entry:
            found[message.full_name] = message
            for nested in message.nested_types:
                walk(nested)

    for message in protos._MESSAGES.values():
        if not message.full_name.startswith(("google.", "inference.")):
            walk(message)
    return found


OURS = _our_messages()


@pytest.fixture(scope="module")
def theirs() -> descriptor_pool.DescriptorPool:
    """The default pool, with everything that the two wheels declare, and ONNX's."""
    importlib.import_module("onnx")
    for package in (
        "tensorflow.core.framework",
        "tensorflow.core.protobuf",
        "tensorflow.core.example",
        "tensorflow.core.profiler",
        "tensorflow_serving.apis",
        "tensorflow_serving.config",
    ):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name.endswith("_pb2"):
                importlib.import_module(f"{package}.{module.name}")
    return descriptor_pool.Default()


def _kind(field: FieldDescriptor) -> tuple[object, ...]:
    """What a field's type is, names of messages and enums included; a map's by its parts."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return ("map", *(_kind(part) for part in field.message_type.fields))
    named = field.message_type or field.enum_type
    return (field.type, named.full_name if named is not None else None)


def _shape(field: FieldDescriptor) -> dict[str, object]:
    oneof = field.containing_oneof
    return {
        "number": field.number,
        "repeated": field.is_repeated,
        "packed": field.is_packed,
        "presence": field.has_presence,
        "oneof": oneof.name if oneof is not None else None,
        "json": field.json_name,
        "deprecated": field.GetOptions().deprecated,
    }


def _values(enum: EnumDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


@pytest.mark.parametrize("name", sorted(OURS.keys() - TWINS.keys() - NOWHERE_TO_COMPARE))
def test_message_matches(name: str, theirs: descriptor_pool.DescriptorPool) -> None:
    if name.startswith("servingd."):
        pytest.fail(f"{name} is not declared as a twin of anything")
    ours, reference = OURS[name], theirs.FindMessageTypeByName(name)
    left_out = LEFT_OUT.get(name, frozenset())
    expected = {
        field.name: (_shape(field), _kind(field))
        for field in reference.fields
        if left_out is not ALL and field.name not in left_out
    }
    assert {field.name: (_shape(field), _kind(field)) for field in ours.fields} == expected


@pytest.mark.parametrize("name", sorted(TWINS))
def test_twin_reads_the_same_fields(name: str, theirs: descriptor_pool.DescriptorPool) -> None:
    reference = theirs.FindMessageTypeByName(TWINS[name])
    loose = {"presence": None, "oneof": None}
    unparsed = {FieldDescriptor.TYPE_MESSAGE: FieldDescriptor.TYPE_BYTES}
    unparsed[FieldDescriptor.TYPE_ENUM] = FieldDescriptor.TYPE_INT32
    for field in OURS[name].fields:
        twin = reference.fields_by_name[field.name]
        # Whether a field is set does not matter to a reader of twins.
        assert _shape(field) | loose == _shape(twin) | loose
        if field.message_type is None or field.message_type.full_name not in TWINS:
            assert field.type in (twin.type, unparsed.get(twin.type)), field.full_name


@pytest.mark.parametrize("name", sorted(NOWHERE_TO_COMPARE))
def test_no_wheel_declares_the_rest(name: str, theirs: descriptor_pool.DescriptorPool) -> None:
    with pytest.raises(KeyError):
        theirs.FindMessageTypeByName(name)


def test_enums_match(theirs: descriptor_pool.DescriptorPool) -> None:
    enums = {
        enum.full_name: enum
        for message in OURS.values()
        for enum in (*message.enum_types, *(field.enum_type for field in message.fields))
        if enum is not None and not enum.full_name.startswith("servingd.Triton")
    }
    assert len(enums) == 15
    for name, enum in enums.items():
        assert _values(enum) == _values(theirs.FindEnumTypeByName(name)), name


def test_services_match(theirs: descriptor_pool.DescriptorPool) -> None:
    for name, file in protos.FILES.items():
        if name in IN_NO_WHEEL:
            continue
        ours = file.services_by_name[name.rpartition(".")[2]]
        assert [
            (method.name, method.input_type.full_name, method.output_type.full_name)
            for method in ours.methods
        ] == [
            (method.name, method.input_type.full_name, method.output_type.full_name)
            for method in theirs.FindServiceByName(name).methods
        ]


def test_ours_cover_all_of_theirs(theirs: descriptor_pool.DescriptorPool) -> None:
    names = {
        message.full_name
        for package in ("tensorflow_serving.apis", "tensorflow_serving.config")
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
        if module.name.endswith("_pb2")
        for message in importlib.import_module(
            f"{package}.{module.name}"
        ).DESCRIPTOR.message_types_by_name.values()
    }
    assert names <= OURS.keys()
