"""The graph of a composite: which steps there are, and what each of them is fed with.

Read from `composite.yaml`:

    steps:
      small: {model: small, inputs: {x: image}}
      large: {model: large, label: stable, signature: classify, inputs: {x: image},
              deadline_share: 0.5}
      best: {cascade: [small, large], confidence: scores, at_least: 0.9}
      both: {mean: [small.scores, large.scores]}
    outputs: {scores: best.scores, mean: both}
    ...

A source is the name of an input of the caller's (`image`), of a step's output (`small.scores`), or
of a step that combines arrays (`both`). The last line is YAML's end of a document: without it the
file is not whole. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from servingd.config.yaml.values import Value, parse_yaml
from servingd.core.types import ModelSpec
from servingd.errors import InvalidConfig

FILE = "composite.yaml"
COMBINING = ("mean", "vote", "weighted")
_MAX_STEPS = 256


@dataclass(frozen=True, slots=True)
class Source:
    """Where an array comes from: an input of the caller's, or an output of a step."""

    name: str
    """The step's output, or the caller's input."""
    step: str = ""
    """The step; empty: the caller."""

    def __str__(self) -> str:
        return f"{self.step}.{self.name}" if self.step and self.name else self.step or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStep:
    """A call of another model."""

    spec: ModelSpec
    inputs: Mapping[str, Source]
    deadline_share: float = 1.0
    """The share of the time that the call has left; 1: all of it."""

    @property
    def sources(self) -> Iterable[Source]:
        """What it needs."""
        return self.inputs.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class CombiningStep:
    """An array made of several: their mean, the most frequent value, or a weighted sum."""

    how: str
    sources: tuple[Source, ...]
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeStep:
    """The answer, row by row, of the first model that is confident; the last one's otherwise."""

    steps: tuple[str, ...]
    confidence: str
    """The output whose largest value in a row is the confidence."""
    at_least: float

    @property
    def sources(self) -> Iterable[Source]:
        """What it may need; models after the first are called only when it is needed."""
        return tuple(Source(self.confidence, step) for step in self.steps)


Step = ModelStep | CombiningStep | CascadeStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A whole composite."""

    steps: Mapping[str, Step]
    outputs: Mapping[str, Source]
    inputs: tuple[str, ...] = field(default=())
    """The caller's inputs, in alphabetical order."""


def parse(content: bytes) -> Graph:
    """Return the graph in a file. Raises InvalidConfig naming the line and the field."""
    text = _decoded(content)
    document = parse_yaml(text, FILE)
    if document is None:
        raise InvalidConfig(f"{FILE}: expected steps and outputs, got nothing")
    entries = document.entries(("steps", "outputs"))
    for name in ("steps", "outputs"):
        if name not in entries or not entries[name].entries():
            raise document.error(f"an entry `{name}` that is not empty")
    given = entries["steps"].entries()
    if len(given) > _MAX_STEPS:
        raise entries["steps"].error(f"at most {_MAX_STEPS} steps")
    for name, value in given.items():
        if not name or "." in name:
            raise value.error(f"a step's name without dots (not {name!r})")
    reader = _Reader(frozenset(given))
    steps = {name: reader.step(value) for name, value in given.items()}
    wanted = entries["outputs"].entries()
    outputs = {name: reader.source(value) for name, value in wanted.items()}
    for name, value in wanted.items():
        _check_source(value, outputs[name], steps)
    _check_sources(given, steps)
    _check_cycles(given, steps)
    inputs = {s.name for s in _all_sources(steps, outputs) if not s.step}
    if not inputs:
        raise document.error("at least one input of the caller's")
    return Graph(steps=steps, outputs=outputs, inputs=tuple(sorted(inputs)))


def _decoded(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{FILE} is not UTF-8: {error}") from error
    if not text.endswith("\n...\n"):
        raise InvalidConfig(f"{FILE} does not end with a line of three dots")
    return text


class _Reader:
    """Reads steps; knows the names of all."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def step(self, value: Value) -> Step:
        keys = value.entries().keys()
        if "model" in keys:
            return self._model(value)
        if "cascade" in keys:
            return self._cascade(value)
        for how in COMBINING:
            if how in keys:
                return self._combining(value, how)
        raise value.error(f"one of model, cascade, {', '.join(COMBINING)}")

    def _model(self, value: Value) -> ModelStep:
        known = ("model", "version", "label", "signature", "inputs", "deadline_share")
        entries = value.entries(known)
        if "version" in entries and "label" in entries:
            raise value.error("a version or a label, not both")
        if "inputs" not in entries:
            raise value.error("inputs")
        share = entries["deadline_share"].scalar(float) if "deadline_share" in entries else 1.0
        if not 0 < share <= 1:
            raise entries["deadline_share"].error("a share above 0, up to 1")
        spec = ModelSpec(
            entries["model"].scalar(str),
            entries["version"].scalar(int) if "version" in entries else None,
            entries["label"].scalar(str) if "label" in entries else None,
            entries["signature"].scalar(str) if "signature" in entries else "serving_default",
        )
        inputs = {alias: self.source(v) for alias, v in entries["inputs"].entries().items()}
        return ModelStep(spec=spec, inputs=inputs, deadline_share=share)

    def _cascade(self, value: Value) -> CascadeStep:
        entries = value.entries(("cascade", "confidence", "at_least"))
        for name in ("confidence", "at_least"):
            if name not in entries:
                raise value.error(name)
        steps = tuple(item.scalar(str) for item in entries["cascade"].items())
        if len(steps) < 2 or len(set(steps)) < len(steps):
            raise entries["cascade"].error("two steps or more, each once")
        return CascadeStep(
            steps=steps,
            confidence=entries["confidence"].scalar(str),
            at_least=entries["at_least"].scalar(float),
        )

    def _combining(self, value: Value, how: str) -> CombiningStep:
        entries = value.entries((how, "weights") if how == "weighted" else (how,))
        sources = tuple(self.source(item) for item in entries[how].items())
        if len(sources) < 2:
            raise entries[how].error("two sources or more")
        weights: tuple[float, ...] = ()
        if how == "weighted":
            if "weights" not in entries:
                raise value.error("weights")
            weights = tuple(item.scalar(float) for item in entries["weights"].items())
            if len(weights) != len(sources) or not sum(weights) or min(weights) < 0:
                raise entries["weights"].error(f"{len(sources)} numbers that are not negative")
        return CombiningStep(how=how, sources=sources, weights=weights)

    def source(self, value: Value) -> Source:
        text = value.scalar(str)
        step, dot, name = text.partition(".")
        if dot:
            if step not in self._names or not name:
                raise value.error(f"STEP.OUTPUT with one of the steps {', '.join(self._names)}")
            return Source(name, step)
        return Source("", text) if text in self._names else Source(text)


def _all_sources(steps: Mapping[str, Step], outputs: Mapping[str, Source]) -> Iterable[Source]:
    yield from outputs.values()
    for step in steps.values():
        yield from step.sources


def _check_sources(given: Mapping[str, Value], steps: Mapping[str, Step]) -> None:
    """Raise InvalidConfig for a source that its step does not have, as far as the file tells."""
    for name, step in steps.items():
        if isinstance(step, CascadeStep):
            for other in step.steps:
                if not isinstance(steps.get(other), ModelStep):
                    raise given[name].error(f"a cascade of steps with a model (not {other!r})")
            continue
        for source in step.sources:
            _check_source(given[name], source, steps)


def _check_source(value: Value, source: Source, steps: Mapping[str, Step]) -> None:
    if not source.step:
        return
    combines = isinstance(steps[source.step], CombiningStep)
    if combines == bool(source.name):
        wanted = source.step if combines else f"{source.step}.OUTPUT"
        raise value.error(f"{wanted} as a source (not {source})")


def _check_cycles(given: Mapping[str, Value], steps: Mapping[str, Step]) -> None:
    """Raise InvalidConfig naming the steps of a cycle."""
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise given[name].error(f"steps without a cycle ({cycle})")
        if name in done:
            return
        for source in steps[name].sources:
            if source.step:
                visit(source.step, (*path, name))
        done.add(name)

    for name in steps:
        visit(name, ())
