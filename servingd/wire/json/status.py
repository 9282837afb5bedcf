"""Responses of the REST API about a model: the state of its versions, and its signatures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import orjson
from google.protobuf import json_format

from servingd.errors import Code
from servingd.wire.json.layout import quoted_text

if TYPE_CHECKING:
    from servingd.wire.protos import SignatureDefMap


class NamedState(Protocol):
    """A public state."""

    @property
    def name(self) -> str:
        """What clients see."""


class VersionStatusLike(Protocol):
    """The state of one version."""

    @property
    def version(self) -> int:
        """The version's number."""

    @property
    def state(self) -> NamedState:
        """Its public state."""

    @property
    def code(self) -> Code:
        """OK, or the error's code."""

    @property
    def message(self) -> str:
        """The error's message; empty for OK."""


_STATUS = b"""\
  {
   "version": "%d",
   "state": "%b",
   "status": {
    "error_code": "%b",
    "error_message": %b
   }
  }"""

_MODEL_SPEC = b"""\
{
 "name": %b,
 "signature_name": "",
 "version": "%d"
}
"""

_METADATA = b"""\
{
"model_spec":%b,
"metadata": {"signature_def": %b
}
}
"""


def encode_status(statuses: Sequence[VersionStatusLike]) -> bytes:
    """Return a GetModelStatusResponse in protobuf's JSON, in the order given."""
    if not statuses:
        return b'{\n "model_version_status": []\n}\n'
    shown = [
        _STATUS
        % (
            status.version,
            status.state.name.encode(),
            status.code.name.encode(),
            quoted_text(status.message),
        )
        for status in statuses
    ]
    return b'{\n "model_version_status": [\n%b\n ]\n}\n' % b",\n".join(shown)


def encode_metadata(name: str, version: int, signature_def_map: SignatureDefMap) -> bytes:
    """Return ModelSpec and SignatureDefMap in protobuf's JSON, laid out as by the original."""
    signatures: str = json_format.MessageToJson(
        signature_def_map,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=1,
        ensure_ascii=False,
    )
    spec = _MODEL_SPEC % (quoted_text(name), version)
    return _METADATA % (spec, signatures.encode())


def encode_models(models: Sequence[tuple[str, Sequence[VersionStatusLike]]]) -> bytes:
    """Return all models, in the shapes that KServe's and OpenAI's clients expect.

    `models` has their names; `data` an object for each, with whether it is `ready` and the
    `versions` as `encode_status` shows them.
    """
    document = {
        "models": [_shown(name) for name, _ in models],
        "object": "list",
        "data": [
            {
                "id": _shown(name),
                "object": "model",
                "ready": any(status.state.name == "AVAILABLE" for status in statuses),
                "versions": json.loads(encode_status(statuses))["model_version_status"],
            }
            for name, statuses in models
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _shown(name: str) -> str:
    """Return a name as JSON can hold it, whatever bytes it came from."""
    return name.encode("utf-8", "replace").decode()
