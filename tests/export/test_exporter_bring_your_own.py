"""docs/bring-your-own-component.md begins with an example; a person's own GRU takes the road exactly as written."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wanedge_export.exporter import ExportedGraph
from wanedge_runtimes.ort import OrtRuntime

DOCUMENT = Path(__file__).parents[2] / "docs" / "bring-your-own-component.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the document's first code block leaves behind."""
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("example"))
        exec(compile(code[1], str(DOCUMENT), "exec"), names)
        names["graph_path"] = names["graph"].path.resolve()
    return names


def test_the_document_begins_with_its_example(example: dict[str, Any]) -> None:
    assert DOCUMENT.read_text().splitlines()[:3] == ["# Bring your own component", "", "```python"]
    assert example["clean"].shape == (1, 16, 80)


def test_a_streaming_gru_of_300_units_equals_torch_over_the_whole_clip(example: dict[str, Any]) -> None:
    graph: ExportedGraph = example["graph"]
    denoise = OrtRuntime().load(example["graph_path"], graph.spec)
    state = denoise.new_state()
    clip = np.random.default_rng(0).random((1, 300 * 16, 80), dtype=np.float32)
    streamed = [denoise.run({"noisy": clip[:, i : i + 16]}, state)["clean"] for i in range(0, 300 * 16, 16)]

    component = example["component"]
    with torch.inference_mode():
        whole, _ = component({"noisy": torch.from_numpy(clip)}, component.init_state())
    # float32 sums in another order, through a recurrence that forgets.
    np.testing.assert_allclose(np.concatenate(streamed, axis=1), whole["clean"], rtol=1e-4, atol=1e-5)
