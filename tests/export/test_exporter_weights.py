"""The weight file: every distinct tensor once, each on a page, the same bytes for the same tensors."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanedge_export.exporter.weights import INLINE_BELOW, PAGE, WeightFile


def model_of(arrays: list[np.ndarray]) -> ir.Model:
    tensors = [ir.tensor(array, name=f"w{i}") for i, array in enumerate(arrays)]
    graph = ir.Graph([], [], nodes=[], initializers=[ir.Value(name=t.name, const_value=t) for t in tensors], name="g")
    return ir.Model(graph, ir_version=10)


def blob(size: int, content: int) -> np.ndarray:
    return np.random.default_rng(content).integers(0, 256, size, dtype=np.uint8)


# Few contents and sizes around a page, so that equal tensors and shared edges come up often.
blobs = st.lists(
    st.builds(
        blob, st.sampled_from([1, INLINE_BELOW - 1, INLINE_BELOW, PAGE - 1, PAGE, PAGE + 1, 9000]), st.integers(0, 2)
    ),
    max_size=6,
)


def write(folder: Path, graphs: list[list[np.ndarray]]) -> None:
    with WeightFile(folder / "all.weights") as weights:
        for i, arrays in enumerate(graphs):
            with weights.staged_graph(model_of(arrays), f"{i}.onnx"):
                pass


@given(st.lists(blobs, min_size=1, max_size=3))
def test_every_graph_reads_back_its_own_weights_and_equal_ones_lie_once(graphs: list[list[np.ndarray]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, graphs)
        places: dict[bytes, set[int]] = {}
        for i, arrays in enumerate(graphs):
            model = ir.load(folder / f"{i}.onnx")
            for j, array in enumerate(arrays):
                tensor = model.graph.initializers[f"w{j}"].const_value
                assert tensor is not None
                np.testing.assert_array_equal(tensor.numpy(), array)
                assert isinstance(tensor, ir.ExternalTensor) == (array.nbytes >= INLINE_BELOW)
                if isinstance(tensor, ir.ExternalTensor):
                    places.setdefault(array.tobytes(), set()).add(tensor.offset or 0)
        assert all(len(offsets) == 1 for offsets in places.values())
        assert all(offset % PAGE == 0 for offsets in places.values() for offset in offsets)
        assert len(list(folder.glob("all.*.weights"))) == bool(places)


@pytest.mark.slow
@given(blobs, blobs, blobs)
def test_a_graph_taken_back_leaves_no_bytes(
    first: list[np.ndarray], refused: list[np.ndarray], second: list[np.ndarray]
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "without", [first, second])
        with WeightFile(folder / "with" / "all.weights") as weights:
            with weights.staged_graph(model_of(first), "0.onnx"):
                pass
            with pytest.raises(RuntimeError), weights.staged_graph(model_of(refused), "refused.onnx"):
                raise RuntimeError
            with weights.staged_graph(model_of(second), "1.onnx"):
                pass
        contents = [{p.name: p.read_bytes() for p in (folder / kind).iterdir()} for kind in ("with", "without")]
        assert contents[0] == contents[1]


def test_an_error_leaves_the_files_of_the_last_export(tmp_path: Path) -> None:
    write(tmp_path, [[blob(PAGE, 0)]])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def write_and_fail() -> None:
        with WeightFile(tmp_path / "all.weights") as weights:
            with weights.staged_graph(model_of([blob(PAGE, 1)]), "0.onnx"):
                pass
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
