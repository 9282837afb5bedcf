# Made from protos/ by servingd.wire.protos.compile: do not edit.
# mypy: disable-error-code="metaclass, misc, type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RemoteOpRemapConfig(_message.Message):
    __slots__ = ("model_name_remap", "target_address_remap", "propagate_version", "propagate_model_name", "backend_model_name_to_target_address_remap")
    class ModelNameRemapEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TargetAddressRemapEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class BackendModelNameToTargetAddressRemapEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_NAME_REMAP_FIELD_NUMBER: _ClassVar[int]
    TARGET_ADDRESS_REMAP_FIELD_NUMBER: _ClassVar[int]
    PROPAGATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROPAGATE_MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    BACKEND_MODEL_NAME_TO_TARGET_ADDRESS_REMAP_FIELD_NUMBER: _ClassVar[int]
    model_name_remap: _containers.ScalarMap[str, str]
    target_address_remap: _containers.ScalarMap[str, str]
    propagate_version: bool
    propagate_model_name: bool
    backend_model_name_to_target_address_remap: _containers.ScalarMap[str, str]
    def __init__(self, model_name_remap: _Optional[_Mapping[str, str]] = ..., target_address_remap: _Optional[_Mapping[str, str]] = ..., propagate_version: _Optional[bool] = ..., propagate_model_name: _Optional[bool] = ..., backend_model_name_to_target_address_remap: _Optional[_Mapping[str, str]] = ...) -> None: ...
