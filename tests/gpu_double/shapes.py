"""Base of TensorRT's objects: shapes as pybind has them, and their place in the device's list of what is alive."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.gpu_double.gpu import Gpu


class Dims(Sequence[int]):
    """Shape as pybind has it: a sequence that equals a tuple and is none."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._shape = tuple(int(size) for size in shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]

    def __len__(self) -> int:
        return len(self._shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Dims, tuple, list)) and tuple(other) == self._shape

    def __hash__(self) -> int:
        return hash(self._shape)

    def __repr__(self) -> str:
        return str(self._shape)


@dataclass(eq=False)
class Alive:
    """What of a TensorRT object the device knows, until the object goes."""

    kind: str
    name: str

    def __str__(self) -> str:
        return self.name


def register(gpu: Gpu, thing: object, kind: str, name: str) -> None:
    handle = gpu.new_handle()
    gpu.objects[handle] = Alive(kind, name)
    weakref.finalize(thing, gpu.objects.pop, handle, None)
