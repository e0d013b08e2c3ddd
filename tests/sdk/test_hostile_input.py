"""Hostile input: whatever a file holds, reading it ends soon, in a WanEdgeError, and in little memory."""

import json
import math
import random
import shutil
from itertools import islice
from pathlib import Path

import pytest

from tests.bundles import edit_manifest, write_bundle
from tests.fuzzing import Target, attempt, mutations
from tests.hostile_files import sdk_targets
from wanedge.bundle import Bundle, BundleError, DamagedBundle
from wanedge.bundle.manifest import parse_manifest
from wanedge.model import Model
from wanedge.session import Session
from wanedge.streaming import Streamer
from wanedge_runtimes.errors import GraphError, InputError
from wanedge_runtimes.strict import parse_json, repeated

FORMATS = 9
INPUTS = 150  # of each format; python -m tests.acceptance.fuzz reads a million


@pytest.fixture(scope="module")
def targets(mini_bundle: Bundle) -> list[Target]:
    return sdk_targets(Streamer(Model.load(mini_bundle), "A lobby."), mini_bundle.tokenizer())


@pytest.mark.parametrize("number", range(FORMATS))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_mutated_file_is_accepted_or_a_wanedge_error(number: int, targets: list[Target], tmp_path: Path) -> None:
    assert len(targets) == FORMATS
    target = targets[number]
    if target.name == "public key":
        pytest.importorskip("cryptography")
    (tmp_path / "seeds").mkdir()
    inputs = mutations(target.seeds(tmp_path / "seeds"), random.Random(number))
    for data in islice(inputs, INPUTS):
        result = attempt(target, data, tmp_path)
        assert not result.raw, (target.name, data[:500], result.error)


def test_a_manifest_of_very_many_keys_is_refused_and_the_test_ends() -> None:
    """A search of every key among all others would take an hour for this; the tests' time limit is five minutes."""
    raw = json.dumps({"schema_version": 1} | {f"key{i}": i for i in range(200_000)}).encode()
    with pytest.raises(BundleError):
        parse_manifest(raw, Path("kiosk"))


def test_repeated_names_are_found_among_many_and_reported_once_each() -> None:
    names = [str(i) for i in range(100_000)] + ["7", "7", "9"]
    assert repeated(names) == ["7", "9"]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 1}}',
        "NaN",
        '{"a": Infinity}',
        '{"a": "\\ud800"}',
        '{"\\uD800": 1}',
        "[" * 100_000,
        "9" * 5_000,
        "",
    ],
)
def test_json_that_two_readers_could_take_for_two_things_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each has a text of its own
        parse_json(text)


def test_json_in_utf_8_keeps_its_text() -> None:
    text = '{"a": "\\ud83d\\ude00 é"}'
    assert parse_json(text) == parse_json(text.encode()) == {"a": "\U0001f600 é"}
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(b'"\xff"')


HUGE = 10**9
CHANGES = {
    "prefill": HUGE,
    "audio.tokens": 4 * HUGE,
    "text.vocabulary": HUGE,
    "text.user_slots": 7,
    "text.agent_slots": 1,
    "backbone.width": HUGE,
    "backbone.kv_heads": 1,
    "backbone.windows": {"local": HUGE, "global": 5},
    "backbone.layout": ["local"] * 3,
    "audio.latent": HUGE,
    "audio.encoder_units": HUGE,
    "agent_video.height": 32 * HUGE,
    "agent_video.latent": HUGE,
    "user_video.width": 32 * HUGE,
    "flow.steps": HUGE,
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_configuration_that_is_not_its_graphs_is_refused_before_anything_is_allocated(
    field: str, mini_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk"))

    def change(manifest: dict[str, dict[str, dict[str, object]]]) -> None:
        *above, name = ["model", *field.split(".")]
        part: dict[str, object] = manifest  # type: ignore[assignment]
        for each in above:
            part = part[each]  # type: ignore[assignment]
        part[name] = CHANGES[field]

    edit_manifest(bundle, change)
    with pytest.raises((GraphError, DamagedBundle)):
        Session.open(bundle)


def test_states_larger_than_the_machine_are_refused(mini_bundle: Bundle, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(mini_bundle.root, tmp_path / "kiosk"))

    def change(manifest: dict[str, dict[str, dict[str, dict[str, list[dict[str, object]]]]]]) -> None:
        for spec in manifest["components"]["audio_decoder"].values():
            spec["states"][0]["shape"] = [1, 2**30, 2**30]

    edit_manifest(bundle, change)
    with pytest.raises(GraphError, match="this machine has"):
        Session.open(bundle)


@pytest.mark.parametrize("value", ["1e999", "-1", "0", "NaN"])
def test_numbers_of_a_configuration_are_finite_and_positive(value: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "kiosk")
    raw = (tmp_path / "kiosk" / "manifest.json").read_text()
    with pytest.raises(BundleError):
        parse_manifest(raw.replace('"rope_base": 10000.0', f'"rope_base": {value}').encode(), tmp_path)
    assert math.isfinite(Bundle.open(tmp_path / "kiosk").model.backbone.rope_base)


def test_a_source_date_that_is_no_time_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    from wanedge.bundle import Provenance

    for wrong in ("yesterday", "1e9", "9" * 30, ""):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
            Provenance.now("wanedge export")
