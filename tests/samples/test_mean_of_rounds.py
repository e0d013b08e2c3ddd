"""The mean of two rounds' weights: every tensor once, tied ones too."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from samples.kiosk.training.assemble import app
from typer.testing import CliRunner

from wanedge.config import TINY
from wanedge_export.model import ReferenceModel


@pytest.mark.slow
def test_every_tensor_is_the_mean_of_both(tmp_path: Path) -> None:
    saved = []
    for seed in (0, 1):
        saved.append(tmp_path / f"{seed}.safetensors")
        ReferenceModel(TINY, seed=seed).save(saved[-1])
    result = CliRunner().invoke(app, ["mean", *map(str, saved), "--out", str(tmp_path / "mean")])
    assert result.exit_code == 0, result.output
    one, other = (load_file(path) for path in saved)
    path = tmp_path / "mean" / "kiosk-tiny.safetensors"
    mean = load_file(path)
    assert mean.keys() == one.keys()
    for name, tensor in mean.items():
        assert torch.equal(tensor, ((one[name] + other[name]) / 2).half()), name
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["sha256"][:8] in result.output
