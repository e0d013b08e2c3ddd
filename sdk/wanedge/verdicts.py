"""Verdicts: what validation said of a variant, kept in its bundle.

`wanedge validate --record` leaves the verdict in the bundle as reports/<variant>.verdict.json: the answer and the
evidence that it stands on. Only "passed" makes a variant the default. See `Verdict`.
"""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from wanedge.bundle import Bundle, BundleError, Variant
from wanedge_runtimes.strict import Strict, parse_json

Answer = Literal["passed", "failed", "incomplete"]
"""incomplete: nothing speaks against the variant, but the evidence does not suffice to call it passed."""

_SHA256 = r"^[0-9a-f]{64}$"


class ClipEvidence(Strict):
    """A clip that was streamed. sha256: of its file."""

    name: str
    sha256: str = Field(pattern=_SHA256)
    units: int = Field(ge=0)


class Verdict(Strict):
    """Answer of a validation, and its evidence.

    reason: one sentence; for "incomplete" what to do next. graphs_sha256, reference_sha256: `graphs_digest` of both
    sides. weights_sha256: of the weights that the reference was exported from, where its bundle says so.
    gate_sha256: of the thresholds, which stand in `thresholds`. coverage: units by fill level of the caches.
    not_covered: levels that no clip reached.
    """

    wanedge_verdict: Literal[2] = 2
    variant: str
    answer: Answer
    reason: str
    graphs_sha256: str = Field(pattern=_SHA256)
    reference: str
    reference_sha256: str = Field(pattern=_SHA256)
    weights_sha256: str | None = Field(None, pattern=_SHA256)
    gate_sha256: str = Field(pattern=_SHA256)
    thresholds: dict[str, str]
    clips: tuple[ClipEvidence, ...]
    coverage: dict[str, int]
    not_covered: tuple[str, ...]
    wanedge: str
    date: AwareDatetime

    @property
    def passed(self) -> bool:
        return self.answer == "passed"


def verdict_path(variant: str) -> str:
    """Return the path in a bundle of the verdict on a variant."""
    return f"reports/{variant}.verdict.json"


def graphs_digest(bundle: Bundle, variant: Variant) -> str:
    """SHA-256 over the files of a variant's graphs: the identity of what runs."""
    files = sorted({p for g in variant.graphs.values() for p in (g.graph, *g.data)})
    listing = "".join(f"{name} {bundle.manifest.files[name].sha256}\n" for name in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def read_verdict(bundle: Bundle, variant: Variant) -> Verdict | None:
    """The verdict on exactly these graphs; None when there is none or the graphs have changed since.

    A verdict of the first format says "passed" without evidence, and counts as none.

    Raises BundleError when the file is there and cannot be read.
    """
    path = verdict_path(variant.name)
    if path not in bundle.manifest.files:
        return None
    verdict = parse_verdict(bundle.path(path).read_bytes(), bundle.origin / path)
    if verdict is None or (verdict.variant, verdict.graphs_sha256) != (variant.name, graphs_digest(bundle, variant)):
        return None
    return verdict


def parse_verdict(raw: bytes, where: Path) -> Verdict | None:
    """The verdict in a file's content; None for one of the first format. where: of the file, for messages.

    Raises BundleError when it is no verdict.
    """
    if _is_without_evidence(raw):
        return None
    try:
        return Verdict.model_validate_json(raw)
    except ValidationError as error:
        raise BundleError(
            f"{where} is not a verdict ({error.errors()[0]['msg']})",
            hint="validate again: wanedge validate BUNDLE --variant NAME --record",
        ) from error


def _is_without_evidence(raw: bytes) -> bool:
    try:
        content = parse_json(raw)
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() == {"variant", "passed", "graphs_sha256"}
