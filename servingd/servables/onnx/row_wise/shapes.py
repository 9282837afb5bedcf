"""Operators that move, cut and join elements, and those that compute with shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from servingd.servables.onnx.row_wise.values import (
    ROWS,
    Counted,
    Dim,
    Mixing,
    Node,
    Rows,
    Rule,
    Same,
    Value,
    axis_of,
    items_of,
    require,
)

_MOVED = "it puts parts of several rows into one"
_COUNTS = "it computes with the number of rows"


def _transpose(node: Node) -> Sequence[Value]:
    """The rows stay in front."""
    rows = node.rows()
    order = node.integers("perm") or tuple(reversed(range(rows.rank)))
    require(order[0] == 0, "it moves the rows to another axis")
    return [Rows(tuple(rows.inner[axis - 1] for axis in order[1:]))]


def _reshape(node: Node) -> Sequence[Value]:
    """Elements keep their order, so each row stays one if the first dimension does.

    That is so where it is copied (0), is the number of rows, or is worked out (-1) behind a row's
    known size.
    """
    rows = node.rows()
    items = items_of(node.input(1) or Same(None, node.integers("shape")))
    require(bool(items), _MOVED)
    first, rest = items[0], items[1:]
    require(ROWS not in rest, _MOVED)
    if first == 0:
        require(node.integer("allowzero", 0) == 0, _MOVED)
    elif first == -1:
        sizes = [rows.inner[i - 1] if s == 0 else s for i, s in enumerate(rest, 1)]
        known = [size for size in (*sizes, *rows.inner) if isinstance(size, int)]
        require(len(known) == len(sizes) + len(rows.inner), "a shape is not known")
        require(math.prod(known[: len(sizes)]) == math.prod(known[len(sizes) :]), _MOVED)
    else:
        require(first == ROWS, _MOVED)
    return [Rows(_sizes_of(rest, rows))]


def _sizes_of(items: Sequence[int | str | None], rows: Rows) -> tuple[Dim, ...]:
    """Return the sizes that a reshape of whole rows gives; one that is -1 may be worked out."""
    sizes: list[Dim] = []
    for place, item in enumerate(items):
        copied = rows.inner[place] if place < len(rows.inner) else None
        sizes.append(copied if item == 0 else item if isinstance(item, int) else None)
    others = [size for size in sizes if size != -1]
    whole = [size for size in rows.inner if size is not None]
    if -1 in sizes:
        size: Dim = None
        by = [size for size in others if size]
        if len(whole) == len(rows.inner) and len(by) == len(others):
            size = math.prod(whole) // math.prod(by)
        sizes[sizes.index(-1)] = size
    return tuple(sizes)


def _flatten(node: Node) -> Sequence[Value]:
    """Into a matrix; the rows stay rows if the first dimension is theirs alone."""
    rows = node.rows()
    axis = node.integer("axis", 1)
    require((axis + rows.rank if axis < 0 else axis) == 1, _MOVED)
    return [Rows(_sizes_of([-1], rows))]


def _squeeze(node: Node) -> Sequence[Value]:
    """Drops dimensions of size 1; without axes the rows' own, where there is one row."""
    axes = node.constant(1, "axes")
    value = node.input(0)
    if isinstance(value, Counted):
        require(len(value.items) == 1, _COUNTS)
        return [Counted(value.items, is_scalar=True)]
    rows = node.rows()
    require(bool(axes), "it drops the rows' dimension where there is one row")
    gone = {axis_of(axis, rows.rank) for axis in axes or ()}
    return [Rows(tuple(size for i, size in enumerate(rows.inner, 1) if i not in gone))]


def _unsqueeze(node: Node) -> Sequence[Value]:
    """Adds dimensions of size 1, behind the first."""
    value = node.input(0)
    axes = node.constant(1, "axes") or ()
    if isinstance(value, Counted):
        require(value.is_scalar and len(axes) == 1, _COUNTS)
        return [Counted(value.items)]
    rows = node.rows()
    rank = rows.rank + len(axes)
    added = {axis_of(axis, rank) for axis in axes}
    sizes = iter(rows.inner)
    return [Rows(tuple(1 if i in added else next(sizes) for i in range(1, rank)))]


def _concat(node: Node) -> Sequence[Value]:
    """Joins behind the first dimension; a list of numbers may be a shape."""
    values = node.inputs
    if any(isinstance(value, Counted) for value in values):
        return [Counted(tuple(item for value in values for item in items_of(value)))]
    rows = [node.rows(place) for place in range(len(values))]
    ranks = {each.rank for each in rows}
    require(len(ranks) == 1, "a shape is not known")
    axis = axis_of(node.integer("axis", 0), ranks.pop())
    sizes = [each.inner[axis - 1] for each in rows]
    known_sizes = [size for size in sizes if size is not None]
    joined = sum(known_sizes) if len(known_sizes) == len(sizes) else None
    inner = list(rows[0].inner)
    inner[axis - 1] = joined
    return [Rows(tuple(inner))]


def _split(node: Node) -> Sequence[Value]:
    """Cuts behind the first dimension."""
    rows = node.rows()
    node.require_same(1)
    axis = axis_of(node.integer("axis", 0), rows.rank)
    inner = list(rows.inner)
    inner[axis - 1] = None
    return [Rows(tuple(inner))] * len(node.outputs)


def _slice(node: Node) -> Sequence[Value]:
    """Cuts out behind the first dimension; of a shape, some numbers."""
    value = node.input(0)
    starts, ends = node.constant(1, "starts") or (), node.constant(2, "ends") or ()
    axes = node.constant(3, "axes") or tuple(range(len(starts)))
    steps = node.constant(4) or (1,) * len(starts)
    if isinstance(value, Counted):
        require(not value.is_scalar and axes in ((0,), (-1,)), _COUNTS)
        return [Counted(value.items[starts[0] : _end(ends[0]) : steps[0]])]
    rows = node.rows()
    inner = list(rows.inner)
    for axis in axes:
        inner[axis_of(axis, rows.rank) - 1] = None
    return [Rows(tuple(inner))]


def _end(number: int) -> int | None:
    return None if number >= 1 << 31 else number


def _gather(node: Node) -> Sequence[Value]:
    """Picks from something that is the same by rows (an embedding), or within each row."""
    data, places = node.input(0), node.input(1)
    axis = node.integer("axis", 0)
    if isinstance(data, Counted):
        chosen = node.constant(1) or ()
        require(all(-len(data.items) <= i < len(data.items) for i in chosen), _COUNTS)
        scalar = isinstance(places, Same) and places.dims == ()
        return [Counted(tuple(data.items[i] for i in chosen), scalar)]
    if isinstance(data, Rows):
        require(isinstance(places, Same) and places.dims is not None, "it picks rows by places")
        assert isinstance(places, Same)
        at = axis_of(axis, data.rank)
        return [Rows((*data.inner[: at - 1], *(places.dims or ()), *data.inner[at:]))]
    rows = node.rows(1)
    require(isinstance(data, Same) and bool(data.dims), "a shape is not known")
    assert isinstance(data, Same)
    assert data.dims
    require(axis in (0, -len(data.dims)), "it moves the rows to another axis")
    return [Rows((*rows.inner, *data.dims[1:]))]


def _gather_elements(node: Node) -> Sequence[Value]:
    """Picks within each row, by places of that row."""
    data, places = node.rows(0), node.rows(1)
    require(data.rank == places.rank, "a shape is not known")
    axis_of(node.integer("axis", 0), data.rank)
    return [places]


def _pad(node: Node) -> Sequence[Value]:
    """Adds elements behind the first dimension."""
    rows = node.rows()
    node.require_same(2)
    require(node.input(3) is None, "no rule says what it does to rows")
    pads = node.constant(1, "pads") or ()
    require(len(pads) == 2 * rows.rank, "a shape is not known")
    require(pads[0] == 0 == pads[rows.rank], "it adds rows")
    sides = zip(rows.inner, pads[1:], pads[rows.rank + 1 :], strict=False)
    return [Rows(tuple(None if s is None else s + a + b for s, a, b in sides))]


def _expand(node: Node) -> Sequence[Value]:
    """Repeats dimensions of size 1: those behind the first, or something for each row."""
    value, target = node.input(0), node.input(1)
    items = items_of(target)
    require(ROWS not in items[1:], _MOVED)
    sizes = tuple(item if isinstance(item, int) and item != 1 else None for item in items[1:])
    if isinstance(value, Same):
        dims = value.dims
        require(dims is not None and items[:1] == (ROWS,), "a shape is not known")
        assert dims is not None
        fits = len(dims) < len(items) or (len(dims) == len(items) and dims[0] == 1)
        require(fits, "it sets rows against a fixed number of them")
        return [Rows(sizes)]
    rows = node.rows()
    require(len(items) <= rows.rank, _MOVED)
    if len(items) < rows.rank:
        require(ROWS not in items, _MOVED)
    else:
        require(items[0] in (1, ROWS), "it sets rows against a fixed number of them")
    return [Rows((None,) * (rows.rank - 1))]


def _constant_of_shape(node: Node) -> Sequence[Value]:
    """The same element everywhere."""
    target = node.input(0)
    require(isinstance(target, Counted), "rows decide a parameter of it")
    assert isinstance(target, Counted)
    require(target.items[:1] == (ROWS,) and ROWS not in target.items[1:], _MOVED)
    return [Rows(tuple(i if isinstance(i, int) else None for i in target.items[1:]))]


def _tile(node: Node) -> Sequence[Value]:
    """Repeats each row's parts."""
    rows = node.rows()
    repeats = node.constant(1) or (0,)
    require(repeats[0] == 1 and len(repeats) == rows.rank, "it repeats the rows")
    return [Rows((None,) * (rows.rank - 1))]


def _shape(node: Node) -> Sequence[Value]:
    """The sizes; the first is the number of rows."""
    rows = node.rows()
    items = (ROWS, *rows.inner)
    end = node.attributes.get("end")
    return [Counted(items[node.integer("start", 0) : None if end is None else int(end.i)])]


def _one_hot(node: Node) -> Sequence[Value]:
    """A vector for each element."""
    rows = node.rows()
    node.require_same(1, 2)
    axis = axis_of(node.integer("axis", -1), rows.rank + 1)
    return [Rows((*rows.inner[: axis - 1], None, *rows.inner[axis - 1 :]))]


def _blocks(node: Node) -> Sequence[Value]:
    """Moves elements between channels and places of a row."""
    require(node.rows().rank == 4, "a shape is not known")
    return [Rows((None, None, None))]


def _identity(node: Node) -> Sequence[Value]:
    value = node.input(0)
    if value is None:
        raise Mixing("no rule says what it does to rows")
    return [value]


RULES: Mapping[str, Rule] = {
    "Identity": _identity,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Tile": _tile,
    "Shape": _shape,
    "OneHot": _one_hot,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
}
