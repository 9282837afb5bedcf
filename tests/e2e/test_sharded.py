"""A table split over two servers: one part here, one there, and a third server that has both."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from zlib import crc32

import grpc
import numpy as np
import pytest

from tests.e2e.process import Process

pytestmark = pytest.mark.e2e

KEYS = [f"k{n}".encode() for n in range(200)]


def write_shard(version: Path, number: int, count: int, value: str) -> None:
    version.mkdir(parents=True)
    rows = [k.decode() for k in KEYS if crc32(k) % count == number]
    (version / "table.csv").write_text("".join(f"{k},{value}-{k}\n" for k in rows))


def write_front(version: Path, text: str) -> None:
    version.mkdir(parents=True)
    (version / "shards.yaml").write_text(text)


@pytest.fixture
def servers(start, tmp_path) -> tuple[Process, Process]:
    """One with shard 0 and the front, one with both shards."""
    write_shard(tmp_path / "there" / "t0" / "1", 0, 2, "one")
    write_shard(tmp_path / "there" / "t1" / "1", 1, 2, "one")
    there = start(f"--model_repository={tmp_path / 'there'}").wait_until_ready()
    write_shard(tmp_path / "here" / "t0" / "1", 0, 2, "one")
    other = f'server: "127.0.0.1:{there.port}"'
    for name, rule in (("table", "fail"), ("lenient", "defaults")):
        write_front(
            tmp_path / "here" / name / "1",
            f"key: keys\nby: hash\non_failure: {rule}\nshards:\n"
            f"- [{{model: t0}}, {{model: t0, {other}}}]\n- [{{model: t1, {other}}}]\n...\n",
        )
    here = start(f"--model_repository={tmp_path / 'here'}").wait_until_ready()
    return here, there


def ask(server: Process, model: str = "table", keys=KEYS) -> dict:
    return server.predict(model, {"keys": np.array(keys, object)}, timeout=5)


def test_a_table_on_two_servers_answers_as_one(servers):
    here, _ = servers
    assert ask(here)["values"].tolist() == [b"one-" + k for k in KEYS]
    two_by_two = np.array(KEYS[:4], object).reshape(2, 2)
    answer = here.predict("table", {"keys": two_by_two})["values"]
    assert answer.tolist() == [[b"one-k0", b"one-k1"], [b"one-k2", b"one-k3"]]


def test_shards_take_their_share_of_one_file(start, tmp_path):
    users = tmp_path / "users" / "1"
    users.mkdir(parents=True)
    (users / "table.csv").write_text("".join(f"{k.decode()},one-{k.decode()}\n" for k in KEYS))
    write_front(
        tmp_path / "front" / "1",
        "key: keys\nby: hash\nshards:\n- [{model: u0}]\n- [{model: u1}]\n- [{model: u2}]\n...\n",
    )
    settings = tmp_path / "servingd.yaml"
    settings.write_text(
        "models:\n"
        f"- {{name: table, base_path: {tmp_path / 'front'}, platform: sharded}}\n"
        + "".join(
            f"- {{name: u{n}, base_path: {tmp_path / 'users'}, "
            f"platform_options: {{shard: {{index: {n}, count: 3}}}}}}\n"
            for n in range(3)
        )
    )
    server = start(f"--servingd_config_file={settings}", "--workers=2").wait_until_ready()
    assert ask(server)["values"].tolist() == [b"one-" + k for k in KEYS]
    mine = [k for k, v in zip(KEYS, ask(server, "u1")["values"], strict=True) if v]
    assert mine == [k for k in KEYS if crc32(k) % 3 == 1]


def test_versions_switch_under_load_without_a_failed_call(servers, tmp_path):
    here, _ = servers
    outcomes: Counter = Counter()
    stop = threading.Event()
    mine = [k for k in KEYS if crc32(k) % 2 == 0]

    def run() -> None:
        while not stop.is_set():
            try:
                values = ask(here)["values"]
            except grpc.RpcError as error:
                outcomes[f"{error.code().name}: {error.details()}"] += 1
                continue
            by_key = dict(zip(KEYS, values, strict=True))
            kinds = {by_key[k].split(b"-")[0] for k in mine}
            right = all(by_key[k].endswith(b"-" + k) for k in KEYS)
            outcomes["right" if right and len(kinds) <= 2 else "wrong"] += 1

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(2, 5):
        write_shard(tmp_path / "here" / "t0" / str(version), 0, 2, f"v{version}")
        write_shard(tmp_path / "there" / "t1" / str(version), 1, 2, f"v{version}")
        here.wait_for(
            "the switch",
            lambda v=version: b"v%d" % v in b"".join(ask(here)["values"].tolist()),
        )
    stop.set()
    for thread in threads:
        thread.join(30)
    assert set(outcomes) == {"right"}, outcomes
    assert outcomes["right"] > 5


def test_a_server_that_is_gone_is_an_error_or_defaults_by_rule(servers):
    here, there = servers
    assert ask(here, "lenient")["answered"].all()
    there.terminate()
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        ask(here)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "shard 1 (model t1 at 127.0.0.1:" in caught.value.details()
    answer = ask(here, "lenient")
    for key, value, answered in zip(KEYS, answer["values"], answer["answered"], strict=True):
        here_too = crc32(key) % 2 == 0
        assert (value, bool(answered)) == ((b"one-" + key) if here_too else b"", here_too)
    only_mine = [k for k in KEYS if crc32(k) % 2 == 0]
    for _ in range(6):  # the replica that is gone is not waited for
        assert ask(here, keys=only_mine)["values"].tolist() == [b"one-" + k for k in only_mine]
    assert time.monotonic() - started < 10
