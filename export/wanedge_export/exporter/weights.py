"""Weights beside the graph: each distinct tensor once, on a page of its own, in one file for several graphs."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx_ir as ir

# A runtime maps weights into memory instead of reading them only where they start on a page.
PAGE = 4096
# Smaller tensors stay in the graph file: a page each would cost more than it saves.
INLINE_BELOW = 1024


class WeightFile:
    """One external data file and the graphs that point into it.

        with WeightFile(folder / "backbone.weights") as weights:
            export_component(backbone, folder, weights=weights)
            export_component(backbone, folder, weights=weights, profile="decomposed")

    Everything is written to a hidden folder beside the file. Leaving the block moves the weights and then the
    graphs into place; leaving it by an error leaves nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._staging = path.parent / f".{path.name}.exporting"
        self._offsets: dict[tuple[str, int], int] = {}  # (SHA-256, bytes) -> offset
        self._end = 0
        self._graphs: list[str] = []

    def __enter__(self) -> Self:
        shutil.rmtree(self._staging, ignore_errors=True)  # of an export that was killed
        self._staging.mkdir(parents=True)
        self._staged.touch()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            if self._end:
                self._staged.replace(self.path)
            for name in self._graphs:
                (self._staging / name).replace(self.path.parent / name)
        shutil.rmtree(self._staging)

    @contextmanager
    def staged_graph(self, model: ir.Model, name: str) -> Iterator[Path]:
        """Write `model` as `name`; inside the block it can be checked; an error there removes it again."""
        graph, end, offsets = self._staging / name, self._end, dict(self._offsets)
        try:
            self._move_out(model)
            graph.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
            yield graph
        except BaseException:
            graph.unlink(missing_ok=True)
            os.truncate(self._staged, end)
            self._end, self._offsets = end, offsets
            raise
        self._graphs.append(name)

    @property
    def _staged(self) -> Path:
        return self._staging / self.path.name

    def _move_out(self, model: ir.Model) -> None:
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes >= INLINE_BELOW:
                value.const_value = ir.ExternalTensor(
                    self.path.name,
                    self._offset_of(tensor.tobytes()),
                    tensor.nbytes,
                    tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=str(value.name),
                    base_dir=self._staging,
                )

    def _offset_of(self, content: bytes) -> int:
        key = (hashlib.sha256(content).hexdigest(), len(content))
        if key not in self._offsets:
            self._offsets[key] = -(-self._end // PAGE) * PAGE
            with self._staged.open("r+b") as file:
                file.seek(self._offsets[key])  # the gap reads as zeros
                file.write(content)
            self._end = self._offsets[key] + len(content)
        return self._offsets[key]


def has_outside_weights(model: ir.Model) -> bool:
    """Return True when a written model points into a weight file."""
    return any(isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values())
