"""Claims about the shipped weights: they are what their card says, and exported they answer as they do in torch."""

import hashlib
import json

import numpy as np
import pytest
from samples.kiosk.training.assemble import SHIPPED

from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.config import PRESETS
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.text import Tokenizer
from wanedge_export.bundling import export_bundle
from wanedge_export.model import ReferenceModel
from wanedge_export.tokenizer import LOBBY
from wanedge_export.torch_runtime import torch_model

WEIGHTS = SHIPPED / "kiosk-tiny.safetensors"
LIMIT = 25_000_000  # bytes that the repository gives to weights
UNITS = 60  # the local rings wrap ten times, the global one once
WORLD = "The guide's name is Anna. Open from eight to five."


@pytest.fixture(scope="module")
def model() -> ReferenceModel:
    return ReferenceModel.load(PRESETS["tiny"], WEIGHTS)


@pytest.fixture(scope="module")
def bundle(model: ReferenceModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(model, tmp_path_factory.mktemp("kiosk") / "kiosk.wanedge", trained=True)


def test_the_weights_are_small_and_have_the_hash_that_is_beside_them() -> None:
    about = json.loads(WEIGHTS.with_suffix(".json").read_text("utf-8"))
    assert WEIGHTS.stat().st_size <= LIMIT
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == about["sha256"]


@pytest.mark.slow
def test_the_exported_bundle_answers_as_torch_does(model: ReferenceModel, bundle: Bundle) -> None:
    """The same tokens in every unit; media differ by float32 sums in another order, fed back for 60 units."""
    tokenizer = Tokenizer(LOBBY, model.config)
    eager = Streamer(torch_model(model, tokenizer), WORLD, seed=1)
    exported = Streamer(Model.load(bundle), WORLD, seed=1)
    for user in user_units(model.config, UNITS):
        expected, made = eager.step(user), exported.step(user)
        assert (made.state, made.tokens) == (expected.state, expected.tokens), f"unit {user.index}"
        np.testing.assert_allclose(made.audio, expected.audio, rtol=0, atol=1e-3)
        off = np.abs(made.frames.astype(int) - expected.frames.astype(int))
        assert off.max() <= 2, f"unit {user.index}"
