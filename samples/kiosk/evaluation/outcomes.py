"""Item by item, what went well: what `wanedge validate --behaviour` compares two bundles by."""

from collections.abc import Iterable

from samples.kiosk.evaluation.measures import STOPS_WITHIN, TALK, greeted, right_replies, stop_delays
from samples.kiosk.evaluation.record import Record
from wanedge.bundle import Bundle
from wanedge.verdicts import graphs_digest
from wanedge_calibration.validation.behaviour import Outcomes


def outcomes(records: Iterable[Record], guide: Bundle, variant: str, command: str) -> Outcomes:
    """Right replies, stops and greetings of all conversations. Items are named by conversation and number."""
    found: dict[str, dict[str, bool]] = {"right_reply": {}, "stops": {}, "greets": {}}
    for record in records:
        if record.purpose in TALK:
            _add(found["right_reply"], record, right_replies([record]))
        if record.purpose == "interruptions":
            _add(found["stops"], record, [units <= STOPS_WITHIN for units in stop_delays(record)])
        if record.purpose == "arrivals":
            _add(found["greets"], record, [right for _, right in greeted(record)])
    digest = graphs_digest(guide, guide.variant(variant))
    return Outcomes(variant=variant, graphs_sha256=digest, made=command, outcomes=found)


def _add(into: dict[str, bool], record: Record, hits: list[bool]) -> None:
    into |= {f"{record.key}#{number}": hit for number, hit in enumerate(hits)}
