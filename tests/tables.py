"""Tables as TensorFlow's BundleWriter writes them: the form of `variables.index`.

Blocks of prefix-compressed keys, an index block, and a footer.
"""

import cramjam
import google_crc32c

FOOTER = 48
MAGIC = 0xDB4775248B80FB57
PLAIN, SNAPPY = b"\0", b"\1"


def varint(value):
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes((*groups, value))


def block(pairs, interval=16):
    """A block: entries, restart points, their number."""
    content, restarts, last = bytearray(), [], b""
    for count, (key, value) in enumerate(pairs):
        shared = 0
        if count % interval == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += key[shared:] + value
        last = key
    for number in (*(restarts or [0]), len(restarts) or 1):
        content += number.to_bytes(4, "little")
    return bytes(content)


def masked_crc(content):
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def table(pairs, per_block=4, kind=PLAIN):
    """A whole table of sorted pairs; `kind` says how its blocks are."""
    content, handles = bytearray(), []

    def add(body):
        if kind == SNAPPY:
            body = bytes(cramjam.snappy.compress_raw(body))
        handle = varint(len(content)) + varint(len(body))
        content.extend(body + kind + masked_crc(body + kind))
        return handle

    for start in range(0, len(pairs), per_block):
        some = pairs[start : start + per_block]
        handles.append((some[-1][0], add(block(some))))
    footer = add(block([]))  # the meta index
    footer += add(block(handles, interval=1))
    return bytes(content + footer.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little"))
