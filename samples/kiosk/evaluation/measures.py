"""From records to figures: every measure of the evaluation with its count, its 95 % interval and its threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.speech.intents import expected_reply, is_right_reply, spoken
from samples.kiosk.data.speech.judge import word_errors
from samples.kiosk.evaluation.conversations import (
    SPEAK,
    TEN_MINUTES,
    Purpose,
    Record,
    Said,
    answer,
    cut_into,
    delay,
    has_words,
    replies,
    sounds,
    spoken_by_unit,
)
from wanedge.bundle import Bundle
from wanedge.config import FRAMES_PER_UNIT
from wanedge.verdicts import graphs_digest
from wanedge_calibration.results import Measure, unmeasured
from wanedge_calibration.statistics import bootstrap, percentile, poisson, ratio, resampled, wilson
from wanedge_calibration.validation.behaviour import Outcomes

Measures = dict[str, Measure]
Hearing = Mapping[tuple[str, int], str]  # what the judge heard, by a record's key and a reply's first unit

TALK: Final[tuple[Purpose, ...]] = ("voices", "phrasings", "real")
RIGHT_THRESHOLDS: Final = {"voices": ">= 0.95", "phrasings": None, "real": ">= 0.80"}
GREETS_WITHIN: Final = 6  # units
STOPS_WITHIN: Final = 3  # units
STAYS_SILENT: Final = 2  # units


def behaviour(records: Sequence[Record], heard: Hearing) -> Measures:
    """Everything that the conversations show, but for drift and the comparison with many steps."""
    by = {p: [r for r in records if r.purpose == p] for p in {r.purpose for r in records}}
    talks = [record for purpose in TALK for record in by.get(purpose, [])]
    results: Measures = {}
    for purpose in TALK:
        results[f"right_reply_{purpose}"] = _share(right_replies(by.get(purpose, [])), RIGHT_THRESHOLDS[purpose])
    return (
        results
        | words(talks, heard)
        | delays(talks)
        | false_replies(by.get("nobody", []))
        | stops(by.get("interruptions", []))
        | greetings(by.get("arrivals", []))
        | lip_sync(talks)
    )


def right_replies(records: Iterable[Record]) -> list[bool]:
    """For every answered phrase whether the guide said what it should."""
    return [
        is_right_reply(answer(record, index), phrase.intent, record.world)
        for record in records
        for index, phrase in enumerate(record.asked)
        if phrase.answered
    ]


def words(records: Sequence[Record], heard: Hearing) -> Measures:
    """Word errors of the guide's speech against its own text, and of right replies against what was to be said."""
    own, expected = [], []
    for record in records:
        for reply in judged(record):
            transcript = heard.get((record.key, reply.first))
            if transcript is None:
                continue
            own.append(word_errors(spoken(reply.text), transcript))
            intent = _answered_intent(record, reply)
            if intent is not None:
                expected.append(word_errors(spoken(expected_reply(intent, record.world)), transcript))
    return {
        "guide_word_errors": _word_error_rate(own, "<= 0.15"),
        "guide_word_errors_of_right_replies": _word_error_rate(expected, None),
    }


def judged(record: Record) -> list[Said]:
    """The replies that a judge listens to: those that nobody cuts into."""
    return [reply for reply in replies(record) if not cut_into(record, reply)]


def delays(records: Sequence[Record]) -> Measures:
    """Units from the end of a phrase to the first word of the answer, over the phrases that are answered."""
    results = reply_delays(records)
    if not results:
        return {
            "reply_start_units_median": unmeasured("units", "<= 3"),
            "reply_start_units_p95": unmeasured("units", "<= 6"),
        }
    return {
        "reply_start_units_median": percentile(results, 50).measure("units", "<= 3"),
        "reply_start_units_p95": percentile(results, 95).measure("units", "<= 6"),
    }


def reply_delays(records: Iterable[Record]) -> list[int]:
    each = (delay(r, index) for r in records for index, phrase in enumerate(r.asked) if phrase.answered)
    return [units for units in each if units is not None]


def false_replies(records: Sequence[Record]) -> Measures:
    """Count of the guide's replies with nobody there, scaled to ten minutes. n: units."""
    units = sum(record.units for record in records)
    if not units:
        return {"false_replies_in_10_min": unmeasured("replies", "<= 1")}
    count = sum(onsets(record) for record in records)
    scale = TEN_MINUTES / units
    low, high = (bound * scale for bound in poisson(count))
    return {
        "false_replies_in_10_min": Measure(
            value=count * scale, unit="replies", low=low, high=high, n=units, threshold="<= 1"
        )
    }


def onsets(record: Record) -> int:
    """Count of the times that the guide begins to speak or to write words; sound alone does not count."""
    texts = spoken_by_unit(record.texts)
    now = [has_words(text) or state == SPEAK for text, state in zip(texts, record.states, strict=True)]
    return sum(is_now and not before for before, is_now in zip([False, *now], now, strict=False))


def stops(records: Iterable[Record]) -> Measures:
    """Delay of the guide's silence after somebody cuts in. One that never stops is as late as the conversation."""
    results = [units for record in records for units in stop_delays(record)]
    if not results:
        return {
            "stops_within_3_units": unmeasured("share", ">= 0.90"),
            "stop_units_median": unmeasured("units"),
        }
    return {
        "stops_within_3_units": _share([units <= STOPS_WITHIN for units in results], ">= 0.90"),
        "stop_units_median": percentile(results, 50).measure("units"),
    }


def stop_delays(record: Record) -> list[int]:
    """Units to silence of each time that somebody cuts in."""
    return [silence_after(record, phrase.first_unit) for phrase in record.asked if phrase.cuts_in]


def silence_after(record: Record, unit: int) -> int:
    """Units until the guide is silent and stays so for STAYS_SILENT units; what is left of the record if never."""
    quiet = [not sounds(level) for level in record.level_dbfs[unit:]]
    calm = (at for at in range(len(quiet) - STAYS_SILENT + 1) if all(quiet[at : at + STAYS_SILENT]))
    return next(calm, len(quiet))


def greetings(records: Iterable[Record]) -> Measures:
    """Shares of those who appear and are greeted in time and rightly, and to whom anything is said in time."""
    results = [each for record in records for each in greeted(record)]
    begun, right = [begun for begun, _ in results], [right for _, right in results]
    return {
        "greets_within_6_units": _share(right, ">= 0.95"),
        "begins_to_speak_within_6_units": _share(begun, None),
    }


def greeted(record: Record) -> list[tuple[bool, bool]]:
    """For everybody who appears and stays: whether the guide begins to say anything in time, and greets rightly."""
    results, texts = [], spoken_by_unit(record.texts)
    for index, came in enumerate(record.came):
        if came.until - came.unit <= GREETS_WITHIN:
            continue  # gone again, or the record over, before a greeting is due
        later = [c.unit for c in record.came[index + 1 :]]
        begun = any(has_words(texts[k]) for k in range(came.unit, came.unit + GREETS_WITHIN + 1))
        whole = "".join(record.texts[came.unit : later[0] if later else record.units])
        results.append((begun, begun and is_right_reply(whole, "greeting", record.world)))
    return results


def lip_sync(records: Iterable[Record]) -> Measures:
    """Correlation of mouth and voice over replies with sound, and the lag at which it is best."""
    results = syncs(records)
    if not results:
        return {
            "lip_sync_correlation": unmeasured("correlation", ">= 0.6"),
            "lip_sync_lag_frames_median": unmeasured("frames", f"<= {NEAR}"),
        }
    lags = [abs(one.lag) for one in results]
    return {
        "lip_sync_correlation": bootstrap(_mean, [one.correlation for one in results]).measure("correlation", ">= 0.6"),
        "lip_sync_lag_frames_median": percentile(lags, 50).measure("frames", f"<= {NEAR}"),
    }


def syncs(records: Iterable[Record]) -> list[Sync]:
    each = (sync(record, reply) for record in records for reply in replies(record))
    return [one for one in each if one is not None]


def two_steps(few: Sequence[Record], many: Sequence[Record], heard: Hearing) -> Measures:
    """The same conversations with the bundle's steps and with many: differences in points, resampling pairs."""
    thresholds = {"two_steps_right_reply_over_many": ">= -2", "two_steps_word_errors_over_many": "<= 3"}
    same = {_about(record): record for record in few}
    pairs = [(same[_about(record)], record) for record in many if _about(record) in same]
    tallies = np.array([[*_tally(a, heard), *_tally(b, heard)] for a, b in pairs], np.float64)  # [pairs, 8]
    if not pairs:
        return {name: unmeasured("points", threshold) for name, threshold in thresholds.items()}

    def over(part: int) -> Measure:
        def difference(i: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
            right, asked = tallies[i][:, part::4].sum(axis=0), tallies[i][:, part + 1 :: 4].sum(axis=0)
            shares = right / np.maximum(asked, 1)
            return float(100 * (shares[0] - shares[1]))

        name = list(thresholds)[part // 2]
        if not (tallies[:, part + 1 :: 4].sum(axis=0) > 0).all():
            return unmeasured("points", thresholds[name])
        return resampled(difference, len(pairs)).measure("points", thresholds[name])

    return {name: over(2 * number) for number, name in enumerate(thresholds)}


def _tally(record: Record, heard: Hearing) -> tuple[int, int, int, int]:
    """Right replies, phrases, word errors, words."""
    right = right_replies([record])
    errors = [
        word_errors(spoken(s.text), heard[key]) for s in judged(record) if (key := (record.key, s.first)) in heard
    ]
    return sum(right), len(right), sum(e for e, _ in errors), sum(w for _, w in errors)


def _about(record: Record) -> tuple[str, int]:
    return record.kind, record.seed


def _answered_intent(record: Record, reply: Said) -> str | None:
    """The intent of the phrase that a reply rightly answers, whole and alone."""
    for index, phrase in enumerate(record.asked):
        right = phrase.answered and is_right_reply(answer(record, index), phrase.intent, record.world)
        if right and is_right_reply(reply.text, phrase.intent, record.world) and reply.first >= phrase.last_unit:
            return phrase.intent
    return None


def _word_error_rate(counts: Sequence[tuple[int, int]], threshold: str | None) -> Measure:
    if not counts:
        return unmeasured("ratio", threshold)
    return ratio([errors for errors, _ in counts], [total for _, total in counts]).measure("ratio", threshold)


def _share(hits: Sequence[bool], threshold: str | None) -> Measure:
    return wilson(sum(hits), len(hits)).measure("share", threshold) if hits else unmeasured("share", threshold)


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(values.mean())


NEAR: Final = 1  # frames by which a mouth may be off and still be in time
FAR: Final = 6  # frames of lag that are looked at
MARGIN: Final = 1  # units around a reply, in which the mouth opens and closes
_FLAT: Final = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sync:
    """correlation: the best within NEAR frames of lag. lag: frames at which it is best within FAR; positive: late."""

    correlation: float
    lag: int


def sync(record: Record, reply: Said) -> Sync | None:
    """Lip-sync of a reply; None where nothing sounds. A mouth that does not move has a correlation of 0."""
    if not any(sounds(level) for level in record.level_dbfs[reply.first : reply.end]):
        return None
    first = max(0, reply.first - MARGIN) * FRAMES_PER_UNIT
    end = min(record.units, reply.end + MARGIN) * FRAMES_PER_UNIT
    mouth, voice = (np.asarray(values[first:end], np.float64) for values in (record.mouth, record.envelope))
    results = {lag: _at(mouth, voice, lag) for lag in range(-FAR, FAR + 1)}
    near = max(results[lag] for lag in range(-NEAR, NEAR + 1))
    return Sync(near, max(results, key=lambda lag: (results[lag], -abs(lag))))


def _at(mouth: Floats, voice: Floats, lag: int) -> float:
    """Correlation of the mouth with the voice `lag` frames before."""
    if lag >= 0:
        mouth, voice = mouth[lag:], voice[: voice.size - lag]
    else:
        mouth, voice = mouth[:lag], voice[-lag:]
    if mouth.size < 2 or mouth.std() < _FLAT or voice.std() < _FLAT:
        return 0.0
    return float(np.corrcoef(mouth, voice)[0, 1])


def outcomes(records: Iterable[Record], guide: Bundle, variant: str, command: str) -> Outcomes:
    """Right replies, stops and greetings of all conversations. Items are named by conversation and number."""
    results: dict[str, dict[str, bool]] = {"right_reply": {}, "stops": {}, "greets": {}}
    for record in records:
        if record.purpose in TALK:
            _add(results["right_reply"], record, right_replies([record]))
        if record.purpose == "interruptions":
            _add(results["stops"], record, [units <= STOPS_WITHIN for units in stop_delays(record)])
        if record.purpose == "arrivals":
            _add(results["greets"], record, [right for _, right in greeted(record)])
    digest = graphs_digest(guide, guide.variant(variant))
    return Outcomes(variant=variant, graphs_sha256=digest, made=command, outcomes=results)


def _add(into: dict[str, bool], record: Record, hits: list[bool]) -> None:
    into |= {f"{record.key}#{number}": hit for number, hit in enumerate(hits)}
