"""The reference model: presets, seeds, weights files, and components that do not care how a clip is cut."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.configs import mini
from wanedge.config import PRESETS, ModelConfig
from wanedge.layout import UnitLayout
from wanedge.ring import audio_encoder_ring
from wanedge.rope import Rope, token_positions
from wanedge_export.component import Component, Tensors
from wanedge_export.model import ReferenceModel
from wanedge_export.model.offline import encode_user_audio
from wanedge_export.model.reference import WeightsError

# float32 convolutions and products over sequences of other lengths add up in another order.
TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}

COMPONENTS = {
    "audio_encoder", "video_encoder", "backbone", "text_embed", "text_head", "flow_in", "flow_out",
    "audio_decoder", "video_decoder", "audio_vae_encoder", "video_vae_encoder",
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> ReferenceModel:
    return ReferenceModel(mini(), seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "edge"])
def test_every_component_of_a_preset_keeps_its_own_spec(name: str) -> None:
    components = ReferenceModel(PRESETS[name]).components()
    assert set(components) == COMPONENTS
    for component in components.values():
        spec, state = component.spec(), component.init_state()
        with torch.inference_mode():
            outputs, present = component(component.sample_inputs(torch.Generator().manual_seed(0), {"S": 5}), state)
        for tensor in spec.outputs:
            assert tuple(outputs[tensor.name].shape) == tensor.concrete({"S": 5}), tensor.name
        assert {n: t.shape for n, t in present.items()} == {s.name: s.shape for s in spec.states}


@pytest.mark.parametrize(("name", "size", "tokens"), [("paper-v0.1", (192, 336), 252), ("paper-v0.2", (368, 640), 920)])
def test_the_paper_presets_have_the_papers_resolutions_and_tokens(
    name: str, size: tuple[int, int], tokens: int
) -> None:
    config = PRESETS[name]
    with torch.device("meta"):  # 1.9 billion parameters, of which only the shapes matter here
        components = ReferenceModel(config).components()
    assert (config.agent_video.height, config.agent_video.width) == size
    assert config.agent_video.tokens == config.user_video.tokens == tokens
    block = components["backbone"].spec().inputs[0].concrete({"S": UnitLayout(config).slots})
    assert block == (1, 2 * tokens + 2 * config.audio.tokens + 9, 2048)


def test_the_backbones_parameters_have_qwen3s_names(model: ReferenceModel) -> None:
    layer = {name.removeprefix("layers.0.") for name in model.backbone.state_dict() if name.startswith("layers.0.")}
    assert layer == {
        "input_layernorm.weight", "post_attention_layernorm.weight",
        "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight",
        "self_attn.q_norm.weight", "self_attn.k_norm.weight",
        "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_randomness_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, second, other = (ReferenceModel(mini(), seed=s).state_dict() for s in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["flow_in.audio.weight"], other["flow_in.audio.weight"])


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 0.0), (torch.float16, 1e-3)])
def test_weights_survive_a_file(model: ReferenceModel, tmp_path: Path, dtype: torch.dtype, error: float) -> None:
    model.save(tmp_path / "weights.safetensors", dtype)
    loaded = ReferenceModel.load(model.config, tmp_path / "weights.safetensors")
    assert loaded.text_head.table.weight is loaded.text_embed.table.weight
    for name, tensor in model.state_dict().items():
        assert (loaded.state_dict()[name] - tensor).abs().max() <= error * max(1.0, float(tensor.abs().max())), name


def test_weights_of_another_model_or_no_weights_at_all_are_refused(model: ReferenceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "mini.safetensors")
    with pytest.raises(WeightsError, match="does not fit model 'tiny'"):
        ReferenceModel.load(PRESETS["tiny"], tmp_path / "mini.safetensors")
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        ReferenceModel.load(model.config, tmp_path / "noise")
    with pytest.raises(WeightsError):
        ReferenceModel.load(model.config, tmp_path / "missing")


def cut(tensor: torch.Tensor, sizes: list[int], per_unit: int) -> list[torch.Tensor]:
    """Pieces of `sizes` units each along axis 1."""
    return list(tensor.split([size * per_unit for size in sizes], dim=1))


def streamed(component: Component, name: str, pieces: list[torch.Tensor]) -> Tensors:
    """Outputs of all pieces, state carried on, put together along axis 1."""
    state, outputs = component.init_state(), []
    for piece in pieces:
        out, state = component({name: piece}, state)
        outputs.append(out)
    return {key: torch.cat([out[key] for out in outputs], dim=1) for key in outputs[0]}


partitions = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@pytest.mark.slow
@settings(max_examples=15)
@given(sizes=partitions, seed=st.integers(0, 1000))
@pytest.mark.parametrize(
    ("name", "input_name"),
    [
        ("audio_vae_encoder", "pcm"),
        ("audio_decoder", "latents"),
        ("video_encoder", "frames"),
        ("video_vae_encoder", "frames"),
        ("video_decoder", "latents"),
    ],
)
def test_a_codec_gives_the_same_for_any_cutting_of_a_clip_into_units(
    model: ReferenceModel, name: str, input_name: str, sizes: list[int], seed: int
) -> None:
    component = model.components()[name]
    generator = torch.Generator().manual_seed(seed)
    units = [component.sample_inputs(generator, {})[input_name] for _ in range(sum(sizes))]
    clip = torch.cat(units, dim=1)
    with torch.inference_mode():
        whole, _ = component({input_name: clip}, {})
        parts = streamed(component, input_name, cut(clip, sizes, units[0].shape[1]))
    for key, expected in whole.items():
        if expected.dtype == torch.uint8:
            assert (parts[key].int() - expected.int()).abs().max() <= 1  # rounding at a tie
        else:
            torch.testing.assert_close(parts[key], expected, **TOLERANCE)


@pytest.mark.slow
@settings(max_examples=10)
@given(units=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_audio_encoders_ring_equals_its_window_offline(model: ReferenceModel, units: int, seed: int) -> None:
    config: ModelConfig = model.config
    pcm = 0.1 * torch.randn(1, units * config.audio.samples, generator=torch.Generator().manual_seed(seed))
    ring, rope = audio_encoder_ring(config), Rope(config.backbone)
    state, tokens = model.audio_encoder.init_state(), []
    with torch.inference_mode():
        for unit, piece in enumerate(cut(pcm, [1] * units, config.audio.samples)):
            cos, sin = rope(token_positions(unit * ring.slots, ring.slots))
            mask = torch.from_numpy(ring.visible(unit, ring.slots, 0)).expand(1, 1, ring.slots, -1)
            inputs = {
                "pcm": piece,
                "cos": torch.from_numpy(cos),
                "sin": torch.from_numpy(sin),
                "mask": mask,
                "write_index": torch.tensor([ring.start(unit)]),
            }
            out, state = model.audio_encoder(inputs, state)
            tokens.append(out["tokens"])
        expected = encode_user_audio(model, pcm, units)
    torch.testing.assert_close(torch.cat(tokens, dim=1), expected, **TOLERANCE)
