"""The message classes that servingd speaks, from `protos.pb`, by their short names.

They carry TensorFlow's and TensorFlow Serving's true names, but live in a descriptor pool of their
own, so that a process may import servingd, `tensorflow` and any `tensorflow_serving` in any order.
Messages of two pools mix only through bytes.

A class is made when it is first asked for: `from servingd.wire.protos import PredictRequest`.

Here: the classes, stubs of them for type checkers (`_pb/`), and what makes both (`compile.py`).
Not here: the `.proto` files (the repository's folder `protos/`), and what messages mean (the other
modules of `wire`). Start with `compile.py`.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import FileDescriptor

    from servingd.wire.protos._pb import *  # noqa: F403


def _load() -> tuple[descriptor_pool.DescriptorPool, list[FileDescriptor]]:
    pool = descriptor_pool.DescriptorPool()
    content = Path(__file__).with_name("protos.pb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(content).file
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool, [pool.FindFileByName(file.name) for file in files]


POOL, _files = _load()
"""The pool of all descriptors that servingd uses, and no others."""

FILES: Mapping[str, FileDescriptor] = MappingProxyType(
    {service.full_name: file for file in _files for service in file.services_by_name.values()}
)
"""The file that declares a service, by the service's full name."""

_MESSAGES = {
    name: message for file in _files for name, message in file.message_types_by_name.items()
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> type:
        """The message class called `name`; AttributeError where there is none."""
        message = _MESSAGES.get(name)
        if message is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        made = globals()[name] = message_factory.GetMessageClass(message)
        return made
