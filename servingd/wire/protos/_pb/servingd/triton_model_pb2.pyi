# Made from protos/ by servingd.wire.protos.compile: do not edit.
# mypy: disable-error-code="metaclass, misc, type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TritonModel(_message.Message):
    __slots__ = ("name", "platform", "backend", "max_batch_size", "version_policy", "instance_group")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    VERSION_POLICY_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_GROUP_FIELD_NUMBER: _ClassVar[int]
    name: str
    platform: str
    backend: str
    max_batch_size: int
    version_policy: TritonVersionPolicy
    instance_group: _containers.RepeatedCompositeFieldContainer[TritonInstanceGroup]
    def __init__(self, name: _Optional[str] = ..., platform: _Optional[str] = ..., backend: _Optional[str] = ..., max_batch_size: _Optional[int] = ..., version_policy: _Optional[_Union[TritonVersionPolicy, _Mapping]] = ..., instance_group: _Optional[_Iterable[_Union[TritonInstanceGroup, _Mapping]]] = ...) -> None: ...

class TritonVersionPolicy(_message.Message):
    __slots__ = ("latest", "all", "specific")
    class Latest(_message.Message):
        __slots__ = ("num_versions",)
        NUM_VERSIONS_FIELD_NUMBER: _ClassVar[int]
        num_versions: int
        def __init__(self, num_versions: _Optional[int] = ...) -> None: ...
    class All(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Specific(_message.Message):
        __slots__ = ("versions",)
        VERSIONS_FIELD_NUMBER: _ClassVar[int]
        versions: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, versions: _Optional[_Iterable[int]] = ...) -> None: ...
    LATEST_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    SPECIFIC_FIELD_NUMBER: _ClassVar[int]
    latest: TritonVersionPolicy.Latest
    all: TritonVersionPolicy.All
    specific: TritonVersionPolicy.Specific
    def __init__(self, latest: _Optional[_Union[TritonVersionPolicy.Latest, _Mapping]] = ..., all: _Optional[_Union[TritonVersionPolicy.All, _Mapping]] = ..., specific: _Optional[_Union[TritonVersionPolicy.Specific, _Mapping]] = ...) -> None: ...

class TritonInstanceGroup(_message.Message):
    __slots__ = ("name", "kind", "count", "gpus")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_AUTO: _ClassVar[TritonInstanceGroup.Kind]
        KIND_GPU: _ClassVar[TritonInstanceGroup.Kind]
        KIND_CPU: _ClassVar[TritonInstanceGroup.Kind]
        KIND_MODEL: _ClassVar[TritonInstanceGroup.Kind]
    KIND_AUTO: TritonInstanceGroup.Kind
    KIND_GPU: TritonInstanceGroup.Kind
    KIND_CPU: TritonInstanceGroup.Kind
    KIND_MODEL: TritonInstanceGroup.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: TritonInstanceGroup.Kind
    count: int
    gpus: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[TritonInstanceGroup.Kind, str]] = ..., count: _Optional[int] = ..., gpus: _Optional[_Iterable[int]] = ...) -> None: ...
