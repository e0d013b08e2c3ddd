"""Paired outcomes: "no worse" is said only where the items allow it, and only of the graphs that were judged."""

from pathlib import Path

import numpy as np
import pytest

from wanedge.bundle import Bundle
from wanedge.verdicts import graphs_digest
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.validation.behaviour import Outcomes, behaviour_measures, pair_outcomes
from wanedge_calibration.validation.gate import Gate
from wanedge_calibration.validation.report import document
from wanedge_calibration.validation.validate import Plan, compare

DIGEST = "0" * 64


def outcomes(hits: list[bool], per_talk: int = 2, digest: str = DIGEST) -> Outcomes:
    items = {f"talk/{i // per_talk}#{i % per_talk}": bool(hit) for i, hit in enumerate(hits)}
    return Outcomes(variant="v", graphs_sha256=digest, made="test", outcomes={"right_reply": items})


def test_equal_outcomes_are_no_worse_and_lost_items_are() -> None:
    right = [i % 4 > 0 for i in range(80)]
    (same,) = pair_outcomes(outcomes(right), outcomes(right))
    assert (same.points.value, same.lost, same.won, same.p, same.worse) == (0.0, 0, 0, 1.0, False)
    (fewer,) = pair_outcomes(outcomes([hit and i % 8 != 1 for i, hit in enumerate(right)]), outcomes(right))
    assert fewer.points.value == pytest.approx(-100 * 10 / 80)
    assert (fewer.lost, fewer.won, fewer.worse) == (10, 0, True)
    assert fewer.p == pytest.approx(2 * 0.5**10)  # McNemar's exact test by hand
    assert behaviour_measures([same, fewer])["behaviour.worse"].value == 1


def test_chance_is_rarely_called_worse() -> None:
    random = np.random.default_rng(2)
    sides = [(random.random(60) < 0.8, random.random(60) < 0.8) for _ in range(100)]
    called = [pair_outcomes(outcomes(list(a)), outcomes(list(b)))[0].worse for a, b in sides]
    assert sum(called) <= 10  # two one-sided tests of about 2.5 % that mostly agree


def test_the_interval_is_over_conversations_and_not_over_their_items() -> None:
    hits, all_right = [i < 20 for i in range(40)], [True] * 40
    (apart,) = pair_outcomes(outcomes(hits, per_talk=1), outcomes(all_right, per_talk=1))
    (together,) = pair_outcomes(outcomes(hits, per_talk=10), outcomes(all_right, per_talk=10))
    assert apart.points.low is not None
    assert together.points.low is not None
    assert together.points.low < apart.points.low


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    outcomes([True]).write(tmp_path / "a.json")
    assert Outcomes.read(tmp_path / "a.json", DIGEST) == outcomes([True])
    with pytest.raises(ValidationError, match="is of other graphs"):
        Outcomes.read(tmp_path / "a.json", "1" * 64)
    with pytest.raises(ValidationError, match="cannot be read"):
        Outcomes.read(tmp_path / "b.json", DIGEST)
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ValidationError, match="holds no outcomes"):
        Outcomes.read(tmp_path / "c.json", DIGEST)
    other = Outcomes(variant="v", graphs_sha256=DIGEST, made="t", outcomes={"right_reply": {"elsewhere#0": True}})
    with pytest.raises(ValidationError, match="share no item"):
        pair_outcomes(other, outcomes([True]))


def test_a_candidate_that_behaves_worse_fails_though_its_numbers_pass(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    digests = [graphs_digest(quantized, quantized.variant(name)) for name in ("int8", "fp32")]
    outcomes([i % 2 == 0 for i in range(40)], digest=digests[0]).write(tmp_path / "int8.json")
    outcomes([True] * 40, digest=digests[1]).write(tmp_path / "fp32.json")
    gate = Gate(limits={"teacher.video_psnr_db": ">= 20", "behaviour.right_reply_points": ">= -1"})
    plan = Plan(
        quantized,
        quantized.variant("int8"),
        quantized,
        quantized.variant("fp32"),
        clips[:1],
        tmp_path / "clips",
        gate=gate,
        limit=1,
        behaviour=(tmp_path / "int8.json", tmp_path / "fp32.json"),
    )
    results = compare(plan)
    assert set(results.misses) == {"behaviour.right_reply_points"}
    (paired,) = document(results, "test")["behaviour"]
    assert (paired["lost"], paired["won"], paired["worse"]) == (20, 0, True)
