"""Weights beside the graph: each distinct tensor once, on a page of its own, in one file for several graphs."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx
import onnx_ir as ir

from wanedge_runtimes.weights import content_name

# A runtime maps weights into memory instead of reading them only where they start on a page.
PAGE = 4096
# Smaller tensors stay in the graph file: a page each would cost more than it saves.
INLINE_BELOW = 1024


class WeightFile:
    """One external data file and the graphs that point into it.

        with WeightFile(folder / "backbone.weights") as weights:
            export_component(backbone, folder, weights=weights)
            export_component(backbone, folder, weights=weights, profile="decomposed")

    The file gets the digest of its content into its name, "backbone.3f2a9c01b4d7.weights", so that no later export can
    change what an earlier graph reads; runtimes check the digest. by_content=False keeps the name as it is: in a bundle
    the manifest ties graphs to weights.

    Everything is written to a hidden folder beside the file, one for each process. Leaving the block moves the weights
    and then the graphs into place; leaving it by an error leaves nothing. `path` is then the file's final name.
    """

    def __init__(self, path: Path, *, by_content: bool = True) -> None:
        self.path = path
        self._name, self.by_content = path.name, by_content
        self._staging = path.parent / f".{path.name[:64]}.{os.getpid()}-{secrets.token_hex(4)}.exporting"
        self._offsets: dict[tuple[str, int], int] = {}  # (SHA-256, bytes) -> offset
        self._end = 0
        self._graphs: list[str] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self.path.parent)
        self._staging.mkdir()
        self._staged.touch()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self._publish()
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def _publish(self) -> None:
        """Weights first: a graph that is there finds its weights."""
        if self._end:
            if self.by_content:
                self.path = content_name(self.path, self._staged)
                for name in self._graphs:
                    _point_to(self._staging / name, self.path.name)
            self._staged.replace(self.path)
        for name in self._graphs:
            (self._staging / name).replace(self.path.parent / name)

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
        return self._staging / self._name

    def _move_out(self, model: ir.Model) -> None:
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes >= INLINE_BELOW:
                value.const_value = ir.ExternalTensor(
                    self._name,
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


def _point_to(graph: Path, weights: str) -> None:
    """Let every external tensor of a graph lie in the file `weights`."""
    model = onnx.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = weights
    graph.write_bytes(model.SerializeToString(deterministic=True))


def _remove_abandoned(folder: Path) -> None:
    """Remove staging folders of processes that were killed; those of living ones stay."""
    for staging in folder.glob(".*.exporting"):
        process = staging.name.removesuffix(".exporting").rpartition(".")[2].partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(staging, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def has_outside_weights(model: ir.Model) -> bool:
    """Return True when a written model points into a weight file."""
    return any(isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values())
