"""What tests of placement share, on virtual CPUs and on GPUs: models, sessions, versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from servingd.config.saved_model import SavedModelOptions
from servingd.core.call_protocols import Completion
from servingd.core.types import Device, Placement, ServableId, VersionData
from servingd.errors import ServingError
from servingd.servables.saved_model.files.meta_graph import read_meta_graph
from servingd.servables.saved_model.listener import NullListener
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.servables.saved_model.session.opening import open_plain
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.synthetic_inputs import synthetic_inputs

TAGS = ("serve",)
ID = ServableId("m", 1)


def loop_and_branch(path: Path) -> None:
    """Functions within functions."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable([[1.0, 0.5], [0.25, 2.0]])

    def f(x: Any) -> Any:
        loop = tf.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, y @ module.w), [tf.constant(0), x]
        )
        return {"y": tf.cond(tf.reduce_sum(x) > 1.0, lambda: loop[1] + 1.0, lambda: loop[1] * 2.0)}

    spec = tf.TensorSpec([None, 2], tf.float32, name="x")
    module.f = tf.function(f, input_signature=[spec])
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})


def stubborn(path: Path) -> None:
    """Names devices that are not here, in nodes and in the bodies of functions."""
    from tensorflow.core.protobuf import saved_model_pb2

    loop_and_branch(path)
    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = saved.meta_graphs[0].graph_def
    for node in graph.node:
        node.device = "/job:worker/task:3/device:GPU:0"
    for function in graph.library.function:
        for node in function.node_def:
            node.device = "/device:GPU:1"
    file.write_bytes(saved.SerializeToString())


def plain(path: Path, options: SessionOptions) -> Any:
    meta_graph = read_meta_graph(str(path), TAGS)
    safe_to_run = dict.fromkeys(meta_graph.signatures, True)
    return open_plain(str(path), TAGS, options, meta_graph, safe_to_run)


def answers(session: Any, path: Path) -> list[Any]:
    found: list[Any] = []
    for name, signature in read_meta_graph(str(path), TAGS).signatures.items():
        inputs = synthetic_inputs(signature, 1, seed=5)
        assert inputs is not None
        try:
            found += session.calls[name].run(inputs).values()
        except Exception as error:  # some of `examples` cannot be called so
            found.append(np.array(len(type(error).__name__)))
    return found


class Outcome(Completion):
    deadline = None

    def alive(self) -> bool:
        return True

    def succeed(self, outputs: Any) -> None:
        self.outputs = outputs

    def fail(self, error: ServingError) -> None:
        raise error


class Version(NullListener):
    """One version, loaded with a placement, and what it tells its listener."""

    def __init__(
        self, path: Path, placement: Placement, mode: str = "off", cache: str = "", cpus: int = 4
    ) -> None:
        self.graph_states: list[str] = []
        self.reports: list[Any] = []
        self.failed: list[Device] = []
        self.warmed: list[Any] = []
        options = SavedModelOptions(optimize_models=mode, cache_dir=cache, virtual_cpu_devices=cpus)
        self.platform = SavedModelPlatform(options, self)
        self.loader: Any = self.platform.loader(ID, VersionData(str(path), "tensorflow"))
        self.body: Any = self.loader.load(placement)

    def graph_state_changed(self, servable_id: Any, state: str) -> None:
        self.graph_states.append(state)

    def warm_up(self, servable_id: Any, data: Any, servable: Any) -> None:
        self.warmed.append(servable)

    def replicas_changed(self, servable_id: Any, replicas: Any) -> None:
        self.reports.append(list(replicas))

    def replica_failed(self, servable_id: Any, device: Device) -> None:
        self.failed.append(device)

    def ask(self, x: float = 2.0) -> float:
        outcome = Outcome()
        signature = self.body.signatures["serving_default"]
        self.body.run(signature, {"x": np.float32([x])}, outcome)
        return float(outcome.outputs["y"][0])

    def devices(self, state: str = "serving") -> list[str]:
        return [r.device.name for r in self.reports[-1] if r.state == state]


def fail(served: Version, times: int) -> None:
    failures = 0
    while failures < times:
        try:
            served.ask()
        except ServingError:
            failures += 1
