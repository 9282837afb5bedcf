"""When to try again: what the client reads of a server's status."""

from __future__ import annotations

import pytest

from servingd.client.hints import DETAILS, retry_after_s
from servingd.wire import protos


def status(url: str, seconds: int, nanos: int = 0) -> bytes:
    info = protos.RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    found = protos.StatusDetails()
    found.details.add(type_url="type.googleapis.com/google.rpc.DebugInfo", value=b"\xff")
    found.details.add(type_url=url, value=info.SerializeToString())
    return found.SerializeToString()


URL = "type.googleapis.com/google.rpc.RetryInfo"
AS_GOOGLE_WRITES_IT = bytes.fromhex(
    "080812046661696c"  # code: 8, message: "fail"
    "1a30" "0a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e5265747279496e666f"
    "1204" "0a020803"  # retry_delay { seconds: 3 }
)  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ([], None),
        ([("retry-after-ms", "1500")], 1.5),
        ([("grpc-retry-pushback-ms", "-1")], 0),
        ([("retry-after-ms", "soon")], None),
        ([(DETAILS, status(URL, 2, 500_000_000))], 2.5),
        ([(DETAILS, status(URL, -2))], 0),
        ([(DETAILS, AS_GOOGLE_WRITES_IT)], 3),
        ([(DETAILS, status("x/other.RetryInfo", 2))], None),
        ([(DETAILS, b"\xff\xff")], None),
        ([(DETAILS, "text")], None),
        ([(DETAILS, status(URL, 2)), ("retry-after-ms", "100")], 0.1),
        ([("x", b"1"), (DETAILS, status(URL, 0))], 0),
    ],
)
def test_hints(metadata, seconds):
    assert retry_after_s(metadata) == seconds
