# Made from protos/ by servingd.wire.protos.compile: do not edit.
# mypy: disable-error-code="metaclass, misc, type-arg"
from servingd.wire.protos._pb.tensorflow.core.grappler.optimizers.inference import batch_op_rewriter_pb2 as _batch_op_rewriter_pb2
from servingd.wire.protos._pb.tensorflow.core.tfrt.graph_executor import config_pb2 as _config_pb2
from servingd.wire.protos._pb.tensorflow_serving.tools.remote_op_remap import remote_op_remap_config_pb2 as _remote_op_remap_config_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionOverrides(_message.Message):
    __slots__ = ("remote_op_remap_config", "batch_op_rewriter_config", "disable_meta_optimizer")
    REMOTE_OP_REMAP_CONFIG_FIELD_NUMBER: _ClassVar[int]
    BATCH_OP_REWRITER_CONFIG_FIELD_NUMBER: _ClassVar[int]
    DISABLE_META_OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    remote_op_remap_config: _remote_op_remap_config_pb2.RemoteOpRemapConfig
    batch_op_rewriter_config: _batch_op_rewriter_pb2.BatchOpRewriteConfig
    disable_meta_optimizer: bool
    def __init__(self, remote_op_remap_config: _Optional[_Union[_remote_op_remap_config_pb2.RemoteOpRemapConfig, _Mapping]] = ..., batch_op_rewriter_config: _Optional[_Union[_batch_op_rewriter_pb2.BatchOpRewriteConfig, _Mapping]] = ..., disable_meta_optimizer: _Optional[bool] = ...) -> None: ...

class SavedModelConfig(_message.Message):
    __slots__ = ("session_overrides", "tfrt_runtime_config", "critical")
    SESSION_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    TFRT_RUNTIME_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_FIELD_NUMBER: _ClassVar[int]
    session_overrides: SessionOverrides
    tfrt_runtime_config: _config_pb2.RuntimeConfigProto
    critical: bool
    def __init__(self, session_overrides: _Optional[_Union[SessionOverrides, _Mapping]] = ..., tfrt_runtime_config: _Optional[_Union[_config_pb2.RuntimeConfigProto, _Mapping]] = ..., critical: _Optional[bool] = ...) -> None: ...
