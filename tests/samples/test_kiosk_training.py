"""Claims about training: the sequence is the stream's, losses fall, an interrupted run ends as an unbroken one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.kiosk.data.speech.intents import World
from samples.kiosk.training import duplex, sequence
from samples.kiosk.training.assemble import scale_latents, take_audio_encoder
from samples.kiosk.training.audio_encoder import AudioEncoderStage
from samples.kiosk.training.dataset import Encoded
from samples.kiosk.training.duplex import DuplexStage, Lesson
from samples.kiosk.training.loop import Losses, Plan, Trainer, orthogonalised
from samples.kiosk.training.sequence import ALL_PARTS, LISTENING_PARTS, Crops, Read, read
from torch import Tensor, nn

from tests.configs import mini
from wanedge.config import ModelConfig
from wanedge.text import Tokenizer
from wanedge_export.model import ReferenceModel
from wanedge_export.model.offline import Clip, encode_user_audio, forward_clip
from wanedge_export.tokenizer import LOBBY
from wanedge_runtimes.errors import InputError

UNITS = 7  # the global ring of the small model holds 5
# float32 sums in another order: one batch against unit by unit.
TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}


def clip_of(config: ModelConfig, seed: int) -> Clip:
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> Tensor:
        return torch.randint(0, config.text.vocabulary, (1, count), generator=generator)

    def latents(tokens: int, width: int) -> Tensor:
        return torch.randn(1, UNITS * tokens, width, generator=generator)

    audio, video, user = config.audio, config.agent_video, config.user_video
    return Clip(
        world=ids(6),
        user_text=ids(UNITS * config.text.user_slots),
        pcm=torch.randn(1, UNITS * audio.samples, generator=generator) * 0.1,
        frames=torch.randint(
            0, 256, (1, 4 * UNITS, user.height, user.width, 3), generator=generator, dtype=torch.uint8
        ),
        thoughts=ids(UNITS * (1 + config.text.agent_slots)),
        audio=latents(audio.tokens, audio.latent),
        video=latents(video.tokens, video.latent),
        noisy_audio=latents(audio.tokens, audio.latent),
        noisy_video=latents(video.tokens, video.latent),
        t=torch.rand(UNITS, generator=generator),
    )


def crops_of(model: ReferenceModel, clips: list[Clip], copies: list[list[int]], parts: tuple[str, ...]) -> Crops:
    config = model.config

    def units(name: str, *shape: int) -> Tensor:
        return torch.cat([getattr(clip, name).view(1, UNITS, *shape) for clip in clips])

    def taken(values: Tensor) -> Tensor:
        return torch.stack([v[c] for v, c in zip(values, copies, strict=True)])

    audio, video = (config.audio.tokens, config.audio.latent), (config.agent_video.tokens, config.agent_video.latent)
    heard = torch.cat([encode_user_audio(model, clip.pcm, UNITS) for clip in clips])
    seen = torch.cat([model.video_encoder({"frames": clip.frames}, {})[0]["tokens"] for clip in clips])
    padding = torch.full((len(clips), 3), 1)
    return Crops(
        parts=parts,
        world=torch.cat([torch.cat([clip.world for clip in clips]), padding], dim=1),
        world_lengths=torch.full((len(clips),), clips[0].world.shape[1]),
        first=np.zeros(len(clips), np.int64),
        user_text=units("user_text", config.text.user_slots),
        heard=heard.view(len(clips), UNITS, config.audio.tokens, -1),
        seen=seen.view(len(clips), UNITS, config.user_video.tokens, -1),
        thoughts=units("thoughts", 1 + config.text.agent_slots),
        audio=units("audio", *audio),
        video=units("video", *video),
        copies=np.array(copies, np.int64).reshape(len(clips), -1),
        noisy_audio=taken(units("noisy_audio", *audio)),
        noisy_video=taken(units("noisy_video", *video)),
        t=torch.stack([clip.t[c] for clip, c in zip(clips, copies, strict=True)]),
    )


@pytest.mark.parametrize("lag", [0, 1])
def test_a_batch_of_crops_gives_what_the_offline_forward_gives(lag: int) -> None:
    model = ReferenceModel(mini(thinker_lag=lag), seed=1)
    clips, copies = [clip_of(model.config, seed) for seed in (1, 2)], [[0, 3, 6], [1, 2, 5]]
    with torch.no_grad():
        made = read(model, crops_of(model, clips, copies, ALL_PARTS))
        for row, clip in enumerate(clips):
            offline = forward_clip(model, clip)
            torch.testing.assert_close(made.logits[row], offline.logits, **TOLERANCE)
            torch.testing.assert_close(made.audio_velocity[row], offline.audio_velocity[copies[row]], **TOLERANCE)
            torch.testing.assert_close(made.video_velocity[row], offline.video_velocity[copies[row]], **TOLERANCE)


def test_parts_that_are_left_out_are_as_if_they_were_masked() -> None:
    model = ReferenceModel(mini(), seed=1)
    clip = clip_of(model.config, 1)
    with torch.no_grad():
        crops = crops_of(model, [clip], [[]], LISTENING_PARTS)
        listening = read(model, crops)
        other = read(model, Crops(**{**vars(crops), "audio": crops.audio + 1.0}))
        whole = read(model, crops_of(model, [clip], [[]], ALL_PARTS))
    assert torch.equal(listening.logits, other.logits)
    assert not torch.allclose(listening.logits, whole.logits)
    # The first unit has no history, so nothing is missing yet.
    torch.testing.assert_close(listening.logits[:, 0], whole.logits[:, 0], **TOLERANCE)


def conversations(config: ModelConfig, count: int, units: int = 48) -> list[Encoded]:
    """Conversations in which the guide speaks as soon as it hears a certain token, always the same latents."""
    rng = np.random.default_rng(0)
    width = config.backbone.width
    speak, listen = 4, 3
    world = np.array(Tokenizer(LOBBY, config).encode_world(World().text, 32))
    sound = rng.standard_normal((config.audio.tokens, config.audio.latent))
    look = rng.standard_normal((config.agent_video.tokens, config.agent_video.latent))
    made = []
    for _ in range(count):
        says = rng.random(units) < 0.3
        heard = np.where(says[:, None, None], 1.0, -1.0) * np.ones((units, config.audio.tokens, width))
        made.append(
            Encoded(
                heard=heard.astype(np.float16),
                seen=np.zeros((units, config.user_video.tokens, width), np.float16),
                audio=np.where(says[:, None, None], sound, -sound).astype(np.float16),
                video=np.broadcast_to(look, (units, *look.shape)).astype(np.float16),
                states=np.where(says, speak, listen),
                texts=np.where(says[:, None], [300, 301], [0, 0]),
                quiet=np.ones(units, np.bool_),
                world=world,
            )
        )
    return made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: a second thread only waits for the first, and on a busy machine for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lessons() -> DuplexStage:
    order: tuple[Lesson, ...] = ("listening", "speaking", "whole", "own history")
    model = ReferenceModel(mini(), seed=0)
    return DuplexStage(model, conversations(model.config, 20), lambda step: order[step % 4])


@pytest.mark.slow
def test_the_backbone_learns_when_to_speak_and_how_it_sounds(lessons: DuplexStage, tmp_path: Path) -> None:
    trainer = Trainer(lessons, Plan(steps=60, rate=5e-3, ema=0.9), tmp_path, "duplex")
    before = trainer.measure()
    trainer.run(say=lambda _: None)
    after = trainer.measure()
    assert after["tokens"] > 0.95 > before["tokens"]
    assert after["audio"] < 0.5 * before["audio"]
    assert after["video"] < 0.5 * before["video"]


def test_its_own_history_is_what_two_steps_make_of_noise(lessons: DuplexStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a velocity that points straight at the truth, the history that the model makes is the truth."""
    batch = lessons.batch(3)
    assert batch.own_history
    crops = batch.crops
    read = sequence.read
    seen: list[Crops] = []

    def straight(model: ReferenceModel, given: Crops) -> Read:
        seen.append(given)
        if len(seen) > 2:  # the two steps are over: this one is learned from
            return read(model, given)
        t = given.t[:, :, None, None]
        assert torch.equal(given.audio, crops.audio)
        return Read(torch.zeros(0), (given.noisy_audio - crops.audio) / t, (given.noisy_video - crops.video) / t)

    monkeypatch.setattr(duplex, "read", straight)
    lessons.losses(batch)
    first, second, learned_from = seen
    assert [float(crops.t.unique()) for crops in (first, second)] == [1.0, 0.5]
    torch.testing.assert_close(learned_from.audio, crops.audio)
    torch.testing.assert_close(learned_from.video, crops.video)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))


class LineStage:
    """y = 3x, with noise that comes from the step's seed."""

    def __init__(self) -> None:
        self.module = Line()
        self.components = {"line": self.module}

    def batch(self, step: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(step).standard_normal(8).astype(np.float32))

    def losses(self, batch: Tensor) -> Losses:
        noise = 0.1 * torch.randn_like(batch)
        return {"square": (self.module.slope * batch - 3 * batch + noise).square().mean()}

    def measure(self, module: Line) -> dict[str, float]:
        return {"slope": float(module.slope)}


def weights(folder: Path) -> Any:
    return torch.load(folder / "last.pt", weights_only=True)


def test_an_interrupted_run_ends_with_the_bytes_of_an_unbroken_one(tmp_path: Path) -> None:
    plan = Plan(steps=60, rate=0.1, ema=0.9)
    Trainer(LineStage(), plan, tmp_path / "whole", "line").run(say=lambda _: None)
    Trainer(LineStage(), plan, tmp_path / "parts", "line").run(until=23, say=lambda _: None)
    resumed = Trainer(LineStage(), plan, tmp_path / "parts", "line")
    assert resumed.step == 23
    resumed.run(say=lambda _: None)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert torch.equal(whole["module"]["slope"], parts["module"]["slope"])
    assert torch.equal(whole["average"]["module.slope"], parts["average"]["module.slope"])
    assert resumed.measure()["slope"] == pytest.approx(3.0, abs=0.3)


def test_a_new_run_begins_with_anothers_averaged_weights_and_its_own_goes_on(tmp_path: Path) -> None:
    plan = Plan(steps=40, rate=0.1, ema=0.9)
    Trainer(LineStage(), plan, tmp_path / "first", "line").run(say=lambda _: None)
    learnt = weights(tmp_path / "first")["average"]["module.slope"]
    checkpoint = tmp_path / "first" / "last.pt"
    second = Trainer(LineStage(), plan, tmp_path / "second", "line", start_from=checkpoint)
    assert second.step == 0
    assert torch.equal(second.stage.module.state_dict()["slope"], learnt)
    assert second.measure()["slope"] == pytest.approx(float(learnt))
    second.run(until=7, say=lambda _: None)
    assert Trainer(LineStage(), plan, tmp_path / "second", "line", start_from=checkpoint).step == 7
    with pytest.raises(InputError, match="no checkpoint") as error:
        Trainer(LineStage(), plan, tmp_path / "third", "line", start_from=tmp_path / "line" / "last.pt")
    assert "training line" in str(error.value.hint)


def test_a_new_run_begins_with_a_whole_models_components(tmp_path: Path) -> None:
    """Audio encoder and backbone go on from what was shipped, without the checkpoints it was made of."""
    config = mini()
    shipped, path = ReferenceModel(config, seed=5), tmp_path / "whole.safetensors"
    shipped.save(path, torch.float16)
    stage = AudioEncoderStage(config)
    Trainer(stage, Plan(steps=1), tmp_path / "audio-encoder", "audio-encoder", start_from=path)
    for name, tensor in shipped.audio_encoder.state_dict().items():
        assert torch.equal(stage.module.encoder.state_dict()[name], tensor.half().float()), name
    with pytest.raises(InputError, match="does not hold line"):
        Trainer(LineStage(), Plan(steps=1), tmp_path / "line", "line", start_from=path)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="does not hold line"):
        Trainer(LineStage(), Plan(steps=1), tmp_path / "line", "line", start_from=tmp_path / "cut.safetensors")


def test_senses_trained_further_replace_the_shipped_audio_encoder_alone(tmp_path: Path) -> None:
    shipped = ReferenceModel(mini(), seed=5)
    stage = AudioEncoderStage(shipped.config, seed=3)
    Trainer(stage, Plan(steps=1), tmp_path / "audio-encoder-further", "audio-encoder").save()
    before = {name: tensor.clone() for name, tensor in shipped.state_dict().items()}
    take_audio_encoder(shipped, tmp_path, "audio-encoder-further")
    changed = {name.split(".")[0] for name, old in before.items() if not torch.equal(shipped.state_dict()[name], old)}
    assert changed == {"audio_encoder"}
    assert torch.equal(shipped.audio_encoder.fold.weight, stage.module.encoder.fold.weight)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    stage = LineStage()
    with torch.no_grad():
        stage.module.slope.fill_(float("nan"))
    with pytest.raises(Exception, match="step 0"):
        Trainer(stage, Plan(steps=3), tmp_path, "line").run(say=lambda _: None)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_scaled_latents_have_spread_one_and_decode_to_the_same(times: int) -> None:
    torch.manual_seed(0)
    out, inp, x = nn.Linear(6, 8), nn.Linear(4 * times, 5), torch.randn(500, 6)

    def coded() -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = out(x).chunk(2, dim=1)
        return mean, log_variance, inp(torch.cat([mean] * times, dim=1))

    with torch.no_grad():
        mean, log_variance, before = coded()
        scale_latents(out, inp, mean)
        scaled, scaled_variance, after = coded()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.std(dim=0), torch.ones(4), rtol=1e-4, atol=0)
    torch.testing.assert_close(scaled_variance.exp(), log_variance.exp() / mean.var(dim=0), rtol=1e-4, atol=1e-6)


def test_an_orthogonalised_matrix_keeps_its_directions_and_has_even_singular_values() -> None:
    torch.manual_seed(0)
    for shape in ((40, 90), (90, 40)):
        matrix = torch.randn(shape)
        made = orthogonalised(matrix)
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.6
        assert values.max() < 1.3
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        assert float((made * (left @ right)).sum()) > 0.95 * float(values.sum())
