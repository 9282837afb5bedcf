"""Small images, as bytes of JPEG and PNG files: made up for graphs that decode images."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_SIZES = (24, 40, 224)
"""Pixels of a side, by kind; images of every second kind differ in size from each other."""

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_DIVISORS = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([16] * 64)
"""What the blocks' numbers are multiplied by."""
_MEANS_CODE = (
    b"\xff\xc4" + struct.pack(">HB", 31, 0) + bytes([0, 0, 0, 12, *[0] * 12]) + bytes(range(12))
)
"""How many bits a mean takes: a number of four bits."""
_REST_CODE = b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1, *[0] * 15]) + b"\0"
"""What a block has besides its mean: nothing, in one bit."""
_SCAN = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 63, 0)


def varied_images(rng: np.random.Generator, seed: int) -> Iterator[bytes]:
    """Yield images without end: JPEGs, or PNGs for an odd `seed`."""
    side = _SIZES[seed // 2 % len(_SIZES)]
    while True:
        height, width = rng.integers(8, side + 1, 2) if seed % 3 == 1 else (side, side)
        yield (_png if seed % 2 else _jpeg)(rng, int(height), int(width))


def _png(rng: np.random.Generator, height: int, width: int) -> bytes:
    """Return an image whose pixels are of any colour."""
    pixels = rng.integers(0, 256, (height, 1 + 3 * width), np.uint8)
    pixels[:, 0] = 0  # each row as it is
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(content), kind)
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _jpeg(rng: np.random.Generator, height: int, width: int) -> bytes:
    """Return an image of grey squares, 8 pixels wide."""
    frame = b"\xff\xc0" + struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0)
    blocks = -(-height // 8) * -(-width // 8)
    means = rng.integers(-60, 60, blocks)
    steps = np.diff(means, prepend=0).tolist()
    bits = "".join(map(_step, steps))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    tables = _DIVISORS + frame + _MEANS_CODE + _REST_CODE
    return _JPEG_START + tables + _SCAN + data + _JPEG_END


def _step(step: int) -> str:
    """Return the bits of a block whose mean differs by `step` from that of the block before."""
    size = abs(step).bit_length()
    value = step if step > 0 else step + (1 << size) - 1
    return f"{size:04b}" + (f"{value:0{size}b}" if size else "") + "0"
