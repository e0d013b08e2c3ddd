"""Export a streaming component of your own to ONNX and run it chunk by chunk; its state stays in the runtime.

    python samples/export_a_component.py out/denoiser

Prints where the graph is and how far the exported stream is from torch on 100 chunks:

    out/denoiser/denoiser.onnx: 100 chunks, largest difference to torch 2e-07

Needs the extra export. docs/bring-your-own-component.md explains every step.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wanedge_export.component import initial_state
from wanedge_export.exporter import export_component
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec

Tensors = dict[str, Tensor]

FRAMES, BANDS, HIDDEN = 16, 80, 64
CHUNKS = 100
TOLERANCE = 1e-4  # float32 sums in another order, over a recurrence of 1600 frames


class Denoiser(nn.Module):
    """A recurrent mask over spectra [1, 16, 80]; the hidden state lives from chunk to chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.gain = nn.GRU(BANDS, HIDDEN, batch_first=True), nn.Linear(HIDDEN, BANDS)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """A pure function: what is remembered comes in and goes out."""
        memory, hidden = self.gru(inputs["noisy"], state["hidden"])
        return {"clean": inputs["noisy"] * self.gain(memory).sigmoid()}, {"hidden": hidden}

    def spec(self) -> GraphSpec:
        """Names, dtypes and shapes of everything that enters, leaves or stays."""
        hidden = StateSpec(
            name="hidden",
            past="past_states.hidden",
            present="present_states.hidden",
            dtype="float32",
            shape=(1, 1, HIDDEN),
            update="swap",
        )
        return GraphSpec(
            component="denoiser",
            opset=24,
            states=(hidden,),
            inputs=(TensorSpec(name="noisy", dtype="float32", shape=(1, FRAMES, BANDS)),),
            outputs=(TensorSpec(name="clean", dtype="float32", shape=(1, FRAMES, BANDS)),),
        )

    def init_state(self) -> Tensors:
        """The state before the first chunk."""
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, _dims: dict[str, int]) -> Tensors:
        """Inputs to export and compare with."""
        return {"noisy": torch.rand(1, FRAMES, BANDS, generator=generator)}


def main() -> None:
    """Export, then stream through torch and through the graph side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    torch.manual_seed(0)
    component = Denoiser().eval()
    graph = export_component(component, parser.parse_args().folder)
    denoise = open_runtime("onnxruntime").load(graph.path, graph.spec)
    state, expected_state, worst = denoise.new_state(), component.init_state(), 0.0
    random = np.random.default_rng(0)
    for _ in range(CHUNKS):
        noisy = random.random((1, FRAMES, BANDS), dtype=np.float32)
        actual = denoise.run({"noisy": noisy}, state)["clean"]
        with torch.inference_mode():
            expected, expected_state = component({"noisy": torch.from_numpy(noisy)}, expected_state)
        worst = max(worst, float(np.abs(actual - expected["clean"].numpy()).max()))
    print(f"{graph.path}: {CHUNKS} chunks, largest difference to torch {worst:.0e}")
    raise SystemExit(0 if worst < TOLERANCE else 1)


if __name__ == "__main__":
    main()
