"""Small model configurations: every mechanism of the real ones, wraps after a few units, milliseconds a unit."""

from wanedge.config import AudioConfig, BackboneConfig, FlowConfig, ModelConfig, TextConfig, VideoConfig


def mini(**changes: object) -> ModelConfig:
    """A model whose local ring wraps after 2 units and whose global ring wraps after 5."""
    video = VideoConfig(height=32, width=64, stride=32, latent=4, channels=4)
    parts: dict[str, object] = {
        "name": "mini",
        "audio": AudioConfig(
            sample_rate=8000, hop=80, window=160, channels=8, blocks=2, latent=4, encoder_layers=1, encoder_units=3
        ),
        "user_video": video,
        "agent_video": video,
        "text": TextConfig(),
        "backbone": BackboneConfig(
            width=32,
            heads=4,
            kv_heads=2,
            head_dim=16,
            ffn=48,
            rope_sections=(4, 2, 2),
            windows={"local": 2, "global": 5},
            layout=("local", "global", "local"),
        ),
        "flow": FlowConfig(steps=2),
        "prefill": 12,
    }
    return ModelConfig.model_validate(parts | changes)
