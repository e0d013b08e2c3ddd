"""Files that workstations exchange: whatever they hold, reading them ends soon and in a WanEdgeError."""

import random
from itertools import islice
from pathlib import Path

import pytest

from tests.fuzzing import attempt, mutations
from tests.hostile_files import calibration_targets
from wanedge_calibration.yaml_file import NotYaml, read_yaml

TARGETS = calibration_targets()
INPUTS = 150


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_mutated_file_is_accepted_or_a_wanedge_error(target, tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    for data in islice(mutations(target.seeds(tmp_path / "seeds"), random.Random(1)), INPUTS):
        result = attempt(target, data, tmp_path)
        assert not result.raw, (target.name, data[:500], result.error)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"a: &x 1\nb: *x",
        b"a: {<<: {b: 1}, b: *x}",
        b"a: !!python/object/apply:os.system [ls]",
        b"a: !!timestamp 2026-13-45",
        b"a: 1\na: 2",
        b"a:\n  b: 1\n  'b': 2",
        b"? [a, b]\n: c",
        b"[" * 20 + b"]" * 20,
        b"[" * 100_000,
        b"a: 1\n---\nb: 2",
        b"a: \x00",
        b"x" * 2_000_000,
    ],
)
def test_what_a_yaml_file_may_not_hold(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_bytes(content)
    with pytest.raises(NotYaml):
        read_yaml(tmp_path / "gate.yaml")


def test_plain_values_are_numbers_truths_and_text(tmp_path: Path) -> None:
    text = """
a: 1
b: -2.5e3
c: true
d: null
e: 2026-11-28
f: 12:30:45
g: ">= 32"
h: [0x10, 007, yes, off]
i: {j: .inf, k: "1"}
"""
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml") == {
        "a": 1,
        "b": -2500.0,
        "c": True,
        "d": None,
        "e": "2026-11-28",
        "f": "12:30:45",
        "g": ">= 32",
        "h": ["0x10", "007", "yes", "off"],
        "i": {"j": float("inf"), "k": "1"},
    }
