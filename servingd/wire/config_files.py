"""Configuration files in protobuf's text format."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from servingd.errors import InvalidConfig, NotFound
from servingd.wire.protos import POOL

M = TypeVar("M", bound=Message)


def parse_text(path: str, message_class: type[M]) -> M:
    """The message in a file; a file of white space is an empty message.

    Raises:
        NotFound: there is no such file.
        InvalidConfig: it cannot be read or parsed; the text names the file, the line and the field.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path}; No such file or directory") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"Invalid protobuf file: '{path}': {error}") from error
    try:
        message: M = text_format.Parse(text, message_class(), descriptor_pool=POOL)
    except text_format.ParseError as error:
        raise InvalidConfig(
            f"Invalid protobuf file: '{path}': Error parsing text-format "
            f"{message_class.DESCRIPTOR.full_name}: {error}"
        ) from error
    return message
