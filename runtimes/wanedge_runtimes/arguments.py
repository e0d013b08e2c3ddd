"""Checks of what a caller passes against a GraphSpec, the same for every runtime."""

from collections.abc import Iterable, Mapping

import numpy as np

from wanedge_runtimes.dtypes import storage_dtype, stored_value
from wanedge_runtimes.errors import GraphError, InputError, StateError
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec

SEQUENCE_AXIS = 2  # of a KV cache [1, Hkv, C, Dh]

OTHER_GRAPH = "pass a state that new_state() of this executable made"


def check_dims(spec: GraphSpec, dims: Mapping[str, int]) -> dict[str, int]:
    """`dims`, which must name every dynamic axis with a positive size. Raises GraphError."""
    needed = set(spec.dynamic_dims)
    sizes_ok = all(isinstance(n, int) and n > 0 for n in dims.values())
    if dims.keys() != needed or not sizes_ok:
        raise GraphError(
            f"{spec.component} has the dynamic axes {sorted(needed)}, and was given {dict(dims)}",
            hint="pass dims with one positive size for each of them, e.g. prepare(state, {'S': 21})",
        )
    return dict(dims)


def check_bound_names(spec: GraphSpec, names: Iterable[str]) -> None:
    """Raise GraphError for a name that is neither an input nor an output."""
    known = [t.name for t in (*spec.inputs, *spec.outputs)]
    for name in names:
        if name not in known:
            raise GraphError(
                f"{spec.component} has no input or output {name!r} to bind", hint=f"choose from: {', '.join(known)}"
            )


def concrete_shape(spec: GraphSpec, tensor: TensorSpec, dims: dict[str, int]) -> tuple[int, ...]:
    """The tensor's shape at `dims`. Raises GraphError for an output with an axis of its own."""
    try:
        return tensor.concrete(dims)
    except KeyError as e:
        raise GraphError(
            f"{spec.component}: axis {e} of output {tensor.name!r} is not an axis of any input",
            hint="give the output a fixed shape in the spec, or name an input's axis",
        ) from e


def check_shape(spec: GraphSpec, tensor: TensorSpec, shape: tuple[int, ...], array: Array) -> None:
    """Raise GraphError unless `array` can be the tensor's memory, but for its strides."""
    dtype = storage_dtype(tensor.dtype)
    if array.shape != shape or array.dtype != dtype:
        raise GraphError(
            f"{spec.component}: {tensor.name!r} is {dtype} {list(shape)}; "
            f"the array to bind is {array.dtype} {list(array.shape)}",
            hint="bind an array of that dtype and shape",
        )


def check_memory(spec: GraphSpec, tensor: TensorSpec, array: Array, *, written: bool) -> None:
    """Raise GraphError unless a graph can use the array's memory where it lies."""
    if not (array.flags.c_contiguous and array.flags.aligned and (array.flags.writeable or not written)):
        raise GraphError(
            f"{spec.component}: the array to bind to {tensor.name!r} must be C-contiguous, aligned and, "
            "for an output, writeable",
            hint="bind np.ascontiguousarray(array), or a slice along the first axis",
        )


def dims_of(spec: GraphSpec, inputs: Mapping[str, Array]) -> dict[str, int]:
    """Sizes of the dynamic axes, read off `inputs`. Raises InputError when they do not fit the spec."""
    component, dims = spec.component, dict[str, int]()
    names = {t.name for t in spec.inputs}
    if names != inputs.keys():
        raise InputError(
            f"{component} takes the inputs {sorted(names)}, and was given {sorted(inputs)}",
            hint="pass exactly these, by name",
        )
    for t in spec.inputs:
        array, dtype = inputs[t.name], storage_dtype(t.dtype)
        if array.ndim == len(t.shape):
            for axis, size in zip(t.shape, array.shape, strict=True):
                if isinstance(axis, str):
                    dims.setdefault(axis, size)
        if array.ndim != len(t.shape) or array.shape != t.concrete(dims) or array.dtype != dtype:
            raise InputError(
                f"{component}: input {t.name!r} is {dtype} [{', '.join(map(str, t.shape))}], "
                f"not {array.dtype} {list(array.shape)} (with {dims})",
                hint="pass an array of that dtype and shape",
            )
    return dims


def check_snapshot(spec: GraphSpec, tensors: Mapping[str, Array]) -> None:
    """Raise StateError unless `tensors` are what a snapshot of this graph's state holds."""
    hint = "restore into the model and version that saved it, or start a new session"
    states = {s.name: s for s in spec.states}
    for name in sorted(states.keys() ^ tensors.keys()):
        has, lacks = ("the snapshot", "the graph") if name in tensors else ("the graph", "the snapshot")
        raise StateError(f"{spec.component}: state {name!r} is in {has} but not in {lacks}", hint=hint)
    for name, values in tensors.items():
        s = states[name]
        if values.shape != s.shape or values.dtype != storage_dtype(s.dtype):
            raise StateError(
                f"{spec.component}: state {name!r} is {values.dtype} {list(values.shape)} in the snapshot "
                f"but {storage_dtype(s.dtype)} {list(s.shape)} in the graph",
                hint=hint,
            )


def check_slots(spec: GraphSpec, name: str, slots: slice) -> StateSpec:
    """The cache `name`, of which `slots` must be inside. Raises InputError."""
    caches = {s.name: s for s in spec.states if len(s.shape) == 4}
    if name not in caches:
        raise InputError(
            f"{spec.component} has no cache {name!r}", hint=f"choose one of: {', '.join(caches) or 'none'}"
        )
    capacity = caches[name].shape[SEQUENCE_AXIS]
    # A Python slice would quietly clamp or count from the end; a slot outside the cache is a mistake.
    inside = isinstance(slots.start, int) and isinstance(slots.stop, int) and slots.step in (None, 1)
    if not inside or not 0 <= slots.start <= slots.stop <= capacity:
        raise InputError(
            f"{spec.component}: {slots} is outside cache {name!r} of {capacity} slots",
            hint=f"pass slice(start, stop) with 0 <= start <= stop <= {capacity}",
        )
    return caches[name]


def check_slot_values(spec: GraphSpec, cache: StateSpec, slots: slice, values: Array) -> None:
    """Raise InputError unless `values` fit `slots` of the cache."""
    expected = (*cache.shape[:SEQUENCE_AXIS], slots.stop - slots.start, *cache.shape[SEQUENCE_AXIS + 1 :])
    if values.shape != expected or values.dtype != storage_dtype(cache.dtype):
        raise InputError(
            f"{spec.component}: state {cache.name!r} takes {storage_dtype(cache.dtype)} {list(expected)} "
            f"for slots {slots.start}..{slots.stop}, not {values.dtype} {list(values.shape)}",
            hint="pass what read() of the same slots returns",
        )


def initial_value(spec: StateSpec) -> Array:
    """A state tensor before the first unit."""
    return np.full(spec.shape, stored_value(spec.initial, spec.dtype), storage_dtype(spec.dtype))
