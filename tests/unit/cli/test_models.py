"""What `servingd models` asks of a server."""

from __future__ import annotations

import contextlib
import inspect

from typer.testing import CliRunner

from servingd.cli.operating.models import models, wait
from servingd.cli.options import Server
from servingd.client import VersionStatus
from servingd.errors import DeadlineExceeded


class Silent:
    """A server that does not answer whoever asks first."""

    timeout_s = 20.0

    def __init__(self) -> None:
        self.asked = 0

    @contextlib.contextmanager
    def client(self):
        self.asked += 1
        if self.asked == 1:
            raise DeadlineExceeded("it did not answer within 5 s")
        yield self

    def versions(self, model: str) -> list[VersionStatus]:
        return [VersionStatus(1, "AVAILABLE")]


def test_a_server_that_does_not_answer_yet_is_waited_for() -> None:
    server = Silent()
    inspect.unwrap(wait)(server, "m")
    assert server.asked == 2


def test_an_added_path_is_sent_as_it_is_typed(monkeypatch) -> None:
    sent = []
    monkeypatch.setattr(Server, "act", lambda server, path, content: sent.append(content) or {})
    result = CliRunner().invoke(models, ["add", "m", "file:///m"])
    assert result.exit_code == 0, result.output
    assert sent == [{"name": "m", "base_path": "file:///m"}]
