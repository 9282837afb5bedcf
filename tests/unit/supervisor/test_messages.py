"""What supervisor and workers tell each other survives the way, and nothing else is taken."""

import dataclasses

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from servingd.config.models import MERGING, ModelConfig
from servingd.config.request_log import LoggingConfig, PerTaskSampling
from servingd.config.server import ServerConfig
from servingd.core.lifecycle import events
from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.lifecycle.versions import All, Latest, Specific
from servingd.core.resources.footprints import Estimate, Footprint, Measured
from servingd.core.resources.placement import ReplicaReport
from servingd.core.types import Device, Placement, Resources, ServableId, VersionData
from servingd.errors import Cancelled, DataLoss, Internal, ServingError
from servingd.supervisor.link import messages
from servingd.supervisor.link.messages import (
    COMMANDS,
    EVENTS,
    decode,
    encode,
    pack,
    pack_models,
    unpack,
    unpack_models,
)

A = ServableId("modèle", 2**63 - 1)
DATA = VersionData("/a/1", "tensorflow", "x")
GPU = Device("GPU", 1)
MODEL = ModelConfig(name="m", base_path="/m")

ALL = [
    messages.Configuration(1, ServerConfig(model_repository="/models", workers="3"), 2, 3),
    messages.Settings(pack_models((MODEL,))),
    messages.LabelsAre({"m": {"stable": 3}}),
    messages.Expect(("a", "b")),
    messages.Settle("a"),
    messages.Announced(ServableState(A, PublicState.END, DataLoss("torn"))),
    messages.Announced(ServableState(A, PublicState.AVAILABLE)),
    messages.IncompleteAre("m", {3: "no file"}),
    messages.AbsentBecause("m", "nothing there"),
    messages.ConfiguredAre(("m",)),
    messages.Facts(True, ("m",), False, True),
    messages.Preload(),
    messages.OpenPorts(),
    messages.Leave(2.5),
    messages.Drain(1.0),
    messages.EndRuns(),
    messages.Exit(),
    messages.Ping(),
    messages.Hello(1),
    messages.Published(A),
    messages.PortsOpen(),
    messages.Idle(),
    messages.LastMetrics(b"\0\xff"),
    messages.PlacementsAre(
        ((A, (ReplicaReport(GPU, "serving", "plain", 4),)),),
        {GPU: "a card"},
        {GPU: 7},
    ),
    messages.Pong(1 << 40),
    messages.Ask(1, "page", b"x"),
    messages.Answer(1, b"y"),
    messages.Answer(1, error=Cancelled("gone")),
    events.StartEstimate(A, DATA),
    events.StartLoad(A, DATA, Placement((GPU,), may_grow=False)),
    events.CancelLoad(A),
    events.LetGrow(A),
    events.Relocate(A, GPU, None),
    events.Relocate(A, GPU, Device("CPU", 0)),
    events.Publish(A),
    events.Quiesce(A),
    events.StartUnload(A),
    events.Discard(A),
    events.Estimated(A, Estimate(steady=Footprint(1, 2, 3), on_devices=True), {GPU: 5}),
    events.LoadSucceeded(A, Measured(Resources(1, {GPU: 2}), Resources(3))),
    events.LoadSucceeded(A),
    events.LoadFailed(A, Internal("x"), retriable=False),
    events.LoadOverdue(A, 60.0),
    events.PublishFailed(A, Internal("x")),
    events.Drained(A),
    events.Unloaded(A),
    events.Grown(A, True),
    events.ReplicaFailed(A, GPU),
    events.Relocated(A, (GPU,)),
]


def plain(value):
    """A value to compare: errors are not equal to their copies."""
    if isinstance(value, ServingError):
        return type(value), value.message
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return type(value), {f.name: plain(getattr(value, f.name)) for f in fields}
    return value


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_way(message):
    assert plain(decode(encode(message))) == plain(message)


def test_no_kind_of_message_is_missing_here():
    assert {type(message) for message in ALL} == set(messages._TYPES.values())
    assert {type(message) for message in ALL} >= COMMANDS | EVENTS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93",
        pack("Ping"),
        pack(["Ping"]),
        pack(["os.system", ["true"]]),
        pack(["ServerConfig", {}]),
        pack(["Pong", {"resident": "much"}]),
        pack(["Pong", {}]),
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 -- msgspec's errors are ValueErrors too
        decode(data)


def test_a_first_message_of_a_newer_version_can_be_read_for_its_number():
    """Newer code may say more in it; the version must be legible all the same."""
    newer = msgspec.msgpack.encode(["Hello", {"wire": 99, "more": [1, 2]}])
    assert decode(newer) == messages.Hello(99)


def test_what_cannot_be_sent_says_so():
    with pytest.raises(TypeError, match="a object cannot be sent"):
        pack(object())


def test_a_file_name_that_is_no_text_stops_no_message():
    """Else a worker that joins would never be told the rest, and never open."""
    reason = "shard \udcff is short"
    sent = decode(encode(messages.IncompleteAre("m", {3: reason})))
    assert sent == messages.IncompleteAre("m", {3: "shard \\udcff is short"})
    state = ServableState(A, PublicState.END, DataLoss(reason))
    sent = decode(encode(messages.Announced(state)))
    assert (sent.state.state, sent.state.error.message) == (state.state, "shard \\udcff is short")
    assert decode(encode(messages.Ask(1, "\udcff", b"\xff"))).body == b"\xff"


def test_plain_data_survives():
    body = {"a": [1, 2.5, None, "x", b"y"], "b": {3: True}}
    assert unpack(pack(body)) == body


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8)
rates = st.floats(0, 1)
tasks = st.builds(
    PerTaskSampling,
    sampling_rate=rates,
    dc=names,
    task_index=st.none() | st.integers(0, 9),
)
logs = st.builds(
    LoggingConfig,
    type=st.sampled_from(["", "tfrecord"]),
    filename_prefix=st.just("/log/x"),
    sampling_rate=rates,
    attributes=st.integers(0, 3),
    per_task=st.lists(tasks, max_size=2).map(tuple),
)
versions = st.integers(0, 2**63 - 1)
policies = (
    st.builds(Latest, st.integers(0, 5))
    | st.just(All())
    | st.lists(versions, max_size=3).map(lambda found: Specific(tuple(found)))
)
models = st.builds(
    ModelConfig,
    name=names,
    base_path=st.just("/models/é"),
    platform=st.sampled_from(["", "tensorflow", "x"]),
    version_policy=policies,
    version_labels=st.dictionaries(names, versions, max_size=2),
    logging=st.none() | logs,
    latency_goal_ms=st.floats(0, 1e6),
    merging=st.sampled_from(MERGING),
    device=st.sampled_from(["", "auto", "CPU:0"]),
    replicas=st.sampled_from(["", "2", "per_device"]),
    transition=st.sampled_from(["", "auto"]),
)


@given(st.lists(models, max_size=3).map(tuple))
def test_models_settings_survive_the_way(wanted):
    sent = decode(encode(messages.Settings(pack_models(wanted))))
    assert unpack_models(sent.models) == wanted
    assert unpack_models(unpack(pack(pack_models(wanted)))) == wanted
