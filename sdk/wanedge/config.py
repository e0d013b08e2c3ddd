"""Model configuration: the numbers that fix a model's shapes, units and rhythm.

What the Wan-Streamer papers fix is marked "paper"; everything else is this project's own choice.
"""

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from wanedge_runtimes.strict import Strict

AgentState = Literal["<idle>", "<listen>", "<speak>", "<stop>"]
"""What the agent does in a unit: nobody is there; it listens; it speaks; it was interrupted."""

UNIT_MS = 160  # paper: the streaming unit
FPS = 25  # paper: so a unit holds 4 video frames
FRAMES_PER_UNIT = UNIT_MS * FPS // 1000


class AudioConfig(Strict):
    """Audio codecs. Networks run at frame rate; samples exist only in fixed transforms.

    sample_rate: Hz, one channel. hop: samples per network frame. window: samples seen by one frame's transform.
    tokens: latents (and user tokens) per unit. latent: channels of one latent.
    """

    sample_rate: PositiveInt = 16_000
    hop: PositiveInt = 160
    window: PositiveInt = 640
    tokens: PositiveInt = 4
    latent: PositiveInt = 32
    channels: PositiveInt = 192
    blocks: PositiveInt = 4
    encoder_layers: PositiveInt = 2  # causal attention layers of the user's audio encoder
    encoder_units: PositiveInt = 12  # their window, in units

    @property
    def samples(self) -> int:
        """PCM samples per unit."""
        return self.sample_rate * UNIT_MS // 1000

    @property
    def frames(self) -> int:
        """Network frames per unit."""
        return self.samples // self.hop

    @property
    def frames_per_token(self) -> int:
        return self.frames // self.tokens

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.sample_rate * UNIT_MS % 1000 or self.samples % self.hop or self.frames % self.tokens:
            raise ValueError("a unit must hold a whole number of samples, hops and tokens")
        if self.window % self.hop:
            raise ValueError("window must be a multiple of hop")
        return self


class VideoConfig(Strict):
    """Video codec of one side. `stride` is the pixels per token along each axis."""

    height: PositiveInt
    width: PositiveInt
    stride: Literal[16, 32] = 32
    latent: PositiveInt = 32
    channels: PositiveInt = 32  # at the finest feature level; doubles towards the coarsest

    @property
    def rows(self) -> int:
        return self.height // self.stride

    @property
    def columns(self) -> int:
        return self.width // self.stride

    @property
    def tokens(self) -> int:
        """Tokens per unit: one latent frame for the unit's 4 frames."""
        return self.rows * self.columns

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.height % self.stride or self.width % self.stride:
            raise ValueError(f"{self.height}x{self.width} does not divide by the token stride {self.stride}")
        return self


class TextConfig(Strict):
    """Text slots per unit and the vocabulary. State tokens are part of the vocabulary."""

    vocabulary: PositiveInt = 1024
    user_slots: PositiveInt = 2
    agent_slots: PositiveInt = 2
    states: tuple[AgentState, ...] = ("<idle>", "<listen>", "<speak>", "<stop>")


class BackboneConfig(Strict):
    """The one Transformer, after Qwen3: RMSNorm, SwiGLU, grouped-query attention, q/k norm, RoPE.

    windows: window name -> units that a layer of that window sees, the current one included.
    layout: the window name of each layer.
    """

    width: PositiveInt = 256
    heads: PositiveInt = 4
    kv_heads: PositiveInt = 2
    head_dim: PositiveInt = 64
    ffn: PositiveInt = 768
    rope_base: float = Field(default=10_000.0, gt=0.0, allow_inf_nan=False)
    # pairs of the head's half that rotate with time, row and column (multimodal RoPE, as in Qwen2-VL)
    rope_sections: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 8, 8)
    # share of the half's pairs that rotate at all. The slowest others stand still (p-RoPE, arXiv 2410.06205), so that
    # the pinned world text can be found by what it says however long a session has run.
    rope_share: float = Field(default=1.0, gt=0.0, le=1.0)
    windows: dict[str, PositiveInt] = Field(default_factory=lambda: {"local": 6, "global": 48})
    layout: tuple[str, ...] = ("local", "local", "global", "local", "local", "global")
    norm_eps: float = Field(default=1e-6, ge=0.0, allow_inf_nan=False)

    @property
    def layers(self) -> int:
        return len(self.layout)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if sum(self.rope_sections) * 2 != self.head_dim:
            raise ValueError("rope_sections must add up to half of head_dim")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        unknown = set(self.layout) - set(self.windows)
        if unknown or not self.layout:
            raise ValueError(f"layout names windows that do not exist: {sorted(unknown)}")
        return self


class FlowConfig(Strict):
    """The solver. Euler steps of joint conditional flow matching from t = 1 (noise) to t = 0 (paper)."""

    steps: PositiveInt = Field(default=2, le=1_000)


class ModelConfig(Strict):
    """Numbers that fix a model's graphs and its rhythm.

    prefill: slots pinned in front of every cache for the world text (paper v0.3 prefills it once).
    unit_positions: how far RoPE's time advances per unit.
    thinker_lag: 0 if the thinker at unit k has all of y_<k; 1 if it lacks audio and video of unit k-1.
    """

    name: str
    audio: AudioConfig = AudioConfig()
    user_video: VideoConfig
    agent_video: VideoConfig
    text: TextConfig = TextConfig()
    backbone: BackboneConfig = BackboneConfig()
    flow: FlowConfig = FlowConfig()
    prefill: PositiveInt = 128
    unit_positions: PositiveInt = 8
    thinker_lag: Literal[0, 1] = 0

    @model_validator(mode="after")
    def _text_fits(self) -> Self:
        if self.unit_positions < self.text.user_slots + 1 + self.text.agent_slots:
            raise ValueError("unit_positions must leave a position for every text and state slot")
        return self


def _preset(
    name: str, size: tuple[int, int], stride: Literal[16, 32], channels: int = 32, latent: int = 32, **parts: object
) -> ModelConfig:
    video = VideoConfig(height=size[0], width=size[1], stride=stride, channels=channels, latent=latent)
    return ModelConfig.model_validate(
        {"name": name, "user_video": video, "agent_video": video, **parts},
    )


# Real time on two CPU cores, and small enough to be trained on them: six tokens are enough to see who stands there.
TINY = _preset(
    "tiny",
    (96, 160),
    32,
    channels=24,
    latent=16,
    user_video=VideoConfig(height=64, width=96, channels=16),
    backbone=BackboneConfig(rope_share=0.75),
)

# For a small GPU.
EDGE = _preset(
    "edge",
    (192, 320),
    32,
    channels=48,
    audio=AudioConfig(channels=256, blocks=6),
    text=TextConfig(vocabulary=4096),
    backbone=BackboneConfig(
        width=512,
        heads=8,
        kv_heads=2,
        ffn=1536,
        windows={"local": 6, "global": 64},
        layout=("local", "local", "local", "global") * 3,
    ),
    prefill=256,
)

# The papers give resolutions and no sizes; the Transformer is Qwen3-1.7B's shape (its family is the paper's).
_QWEN3_1_7B = BackboneConfig(
    width=2048,
    heads=16,
    kv_heads=8,
    head_dim=128,
    ffn=6144,
    rope_base=1_000_000.0,
    rope_sections=(24, 20, 20),
    windows={"local": 8, "global": 64},
    layout=("local", "local", "local", "global") * 7,
)
_PAPER: dict[str, Any] = {
    "channels": 64,
    "latent": 64,
    "audio": AudioConfig(sample_rate=24_000, hop=240, window=960, channels=512, blocks=8, latent=64),
    "text": TextConfig(vocabulary=151_936, user_slots=4, agent_slots=4),
    "backbone": _QWEN3_1_7B,
    "flow": FlowConfig(steps=4),
    "prefill": 512,
    "unit_positions": 16,
    "thinker_lag": 1,
}
PAPER_V01 = _preset("paper-v0.1", (192, 336), 16, **_PAPER)
PAPER_V02 = _preset("paper-v0.2", (368, 640), 16, **_PAPER)

PRESETS = {c.name: c for c in (TINY, EDGE, PAPER_V01, PAPER_V02)}
