"""Verdicts: what validation said of a variant, kept in its bundle.

`wanedge validate --record` writes reports/<variant>.verdict.json:

    {"variant": "int8", "passed": true, "graphs_sha256": "..."}
"""

import hashlib

from pydantic import ValidationError

from wanedge.bundle import Bundle, BundleError, Variant
from wanedge_runtimes.strict import Strict


class Verdict(Strict):
    """What validation said of a variant. graphs_sha256: of what it looked at, see `graphs_digest`."""

    variant: str
    passed: bool
    graphs_sha256: str


def verdict_path(variant: str) -> str:
    """Where in a bundle the verdict on a variant lies."""
    return f"reports/{variant}.verdict.json"


def graphs_digest(bundle: Bundle, variant: Variant) -> str:
    """SHA-256 over the files of a variant's graphs: the identity of what runs."""
    files = sorted({p for g in variant.graphs.values() for p in (g.graph, *g.data)})
    listing = "".join(f"{name} {bundle.manifest.files[name].sha256}\n" for name in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def read_verdict(bundle: Bundle, variant: Variant) -> Verdict | None:
    """The verdict on exactly these graphs; None when there is none or the graphs have changed since.

    Raises BundleError when the file is there and cannot be read.
    """
    path = verdict_path(variant.name)
    if path not in bundle.manifest.files:
        return None
    try:
        verdict = Verdict.model_validate_json(bundle.path(path).read_bytes())
    except ValidationError as error:
        raise BundleError(
            f"{bundle.origin}: {path} is not a verdict ({error.errors()[0]['msg']})",
            hint=f"validate again: wanedge validate {bundle.origin} --variant {variant.name} --record",
        ) from error
    same = (verdict.variant, verdict.graphs_sha256) == (variant.name, graphs_digest(bundle, variant))
    return verdict if same else None
