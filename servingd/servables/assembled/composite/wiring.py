"""The signature of a composite, from those of its parts; what does not fit names the edge. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from servingd.core.call_protocols import ServableHandle
from servingd.core.shapes import shape_text
from servingd.core.types import DataType, ModelSpec, Signature, TensorSpec
from servingd.errors import FailedPrecondition
from servingd.servables.assembled.composite.graph import (
    CascadeStep,
    CombiningStep,
    Graph,
    ModelStep,
    Source,
)

_NUMBERS = frozenset({DataType.FLOAT, DataType.DOUBLE, DataType.HALF, DataType.BFLOAT16})


def signature_of(graph: Graph, parts: Mapping[str, Signature]) -> Signature:
    """Return the composite's signature. `parts` has that of each step with a model.

    Raises FailedPrecondition naming the edge whose types or shapes do not fit, or the input or
    output that a part does not have.
    """
    wiring = _Wiring(graph, parts)
    outputs = {
        name: wiring.spec_of(source, f"output {name}") for name, source in graph.outputs.items()
    }
    wiring.check()
    inputs = {name: wiring.taken[name] for name in graph.inputs if name in wiring.taken}
    return Signature(
        name="serving_default",
        inputs={name: _named(name, spec) for name, spec in inputs.items()},
        outputs={name: _named(name, spec) for name, spec in outputs.items()},
    )


def signatures_of(
    handles: Mapping[ModelSpec, ServableHandle], specs: Mapping[str, ModelSpec]
) -> dict[str, Signature]:
    """Return the signature that each step calls. Raises FailedPrecondition naming the step."""
    found = {}
    for step, spec in specs.items():
        runners = handles[spec._replace(signature_name="")].runners
        if spec.signature_name not in runners:
            raise FailedPrecondition(
                f"step {step}: model {spec.name} has the signatures "
                f"{', '.join(sorted(runners))}, not {spec.signature_name}"
            )
        found[step] = runners[spec.signature_name].signature
    return found


def _named(name: str, spec: TensorSpec) -> TensorSpec:
    return TensorSpec(spec.data_type, spec.shape, f"{name}:0")


class _Wiring:
    def __init__(self, graph: Graph, parts: Mapping[str, Signature]) -> None:
        self._graph = graph
        self._parts = parts
        self.taken: dict[str, TensorSpec] = {}
        """What is known of the caller's inputs, from the parts that they are fed to."""

    def check(self) -> None:
        """Check every edge into a step, and that each part gets all that it needs."""
        for name, step in self._graph.steps.items():
            match step:
                case ModelStep():
                    self._check_model(name, step)
                case CombiningStep():
                    specs = [self.spec_of(s, f"step {name}") for s in step.sources]
                    for source, spec in zip(step.sources, specs, strict=True):
                        self._fits(f"step {name}, {source}", spec, specs[0])
                    if step.how != "vote" and specs[0].data_type not in _NUMBERS:
                        raise FailedPrecondition(
                            f"step {name}: {step.how} expects floating-point numbers, got "
                            f"{specs[0].data_type.name}"
                        )
                case CascadeStep():
                    self.spec_of(Source(step.confidence, name), f"step {name}")

    def _check_model(self, name: str, step: ModelStep) -> None:
        signature = self._parts[name]
        for alias, source in step.inputs.items():
            edge = f"step {name} (model {step.spec.name}), input {alias}"
            if alias not in signature.inputs:
                known = ", ".join(sorted(signature.inputs))
                raise FailedPrecondition(f"{edge}: expected one of {known}")
            wanted = signature.inputs[alias]
            if source.step:
                self._fits(f"{edge} from {source}", self.spec_of(source, edge), wanted)
            else:
                self._take(source.name, wanted, edge)
        absent = signature.inputs.keys() - step.inputs.keys() - signature.defaults.keys()
        if absent:
            raise FailedPrecondition(
                f"step {name} (model {step.spec.name}): input {min(absent)} is not given"
            )

    def _take(self, name: str, wanted: TensorSpec, edge: str) -> None:
        known = self.taken.get(name)
        if known is None:
            self.taken[name] = wanted
            return
        self._fits(f"{edge} from the caller's {name}", known, wanted)
        self.taken[name] = TensorSpec(known.data_type, _narrower(known.shape, wanted.shape))

    def _fits(self, edge: str, given: TensorSpec, wanted: TensorSpec) -> None:
        """Raise FailedPrecondition unless some tensor is of both specs."""
        same = given.data_type == wanted.data_type
        if not same or not _compatible(given.shape, wanted.shape):
            raise FailedPrecondition(f"{edge}: expected {_text(wanted)}, got {_text(given)}")

    def spec_of(self, source: Source, where: str) -> TensorSpec:
        """Return the spec of what a source gives."""
        if not source.step:
            if source.name not in self.taken:
                raise FailedPrecondition(f"{where}: {source.name} is an input of no step")
            return self.taken[source.name]
        step = self._graph.steps[source.step]
        match step:
            case ModelStep():
                outputs = self._parts[source.step].outputs
                if source.name not in outputs:
                    raise FailedPrecondition(
                        f"{where}: step {source.step} (model {step.spec.name}) has the outputs "
                        f"{', '.join(sorted(outputs))}, not {source.name}"
                    )
                return outputs[source.name]
            case CombiningStep():
                return self.spec_of(step.sources[0], where)
            case CascadeStep():
                specs = [self.spec_of(Source(source.name, s), where) for s in step.steps]
                for other, spec in zip(step.steps, specs, strict=True):
                    self._fits(f"step {source.step}, {other}.{source.name}", spec, specs[0])
                return specs[0]


def _compatible(one: tuple[int | None, ...] | None, other: tuple[int | None, ...] | None) -> bool:
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(one, other, strict=True)
    )


def _narrower(
    one: tuple[int | None, ...] | None, other: tuple[int | None, ...] | None
) -> tuple[int | None, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    return tuple(b if a is None else a for a, b in zip(one, other, strict=True))


def _text(spec: TensorSpec) -> str:
    shape = "any shape" if spec.shape is None else shape_text(spec.shape)
    return f"{spec.data_type.name} of {shape}"
