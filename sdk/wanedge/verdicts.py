"""Which variant runs by default: a quantized one once its validation has passed, and the float one until then.

`wanedge validate --record` leaves the verdict in the bundle as reports/<variant>.verdict.json:

    {"variant": "int8", "passed": true, "graphs_sha256": "..."}
"""

import hashlib

from pydantic import ValidationError

from wanedge.bundle import Bundle, BundleError, Variant
from wanedge_runtimes.strict import Strict

FLOAT = "fp32"


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


def default_variant(bundle: Bundle, runtime: str, provider: str) -> Variant:
    """The variant to run when none is named.

    On the CPU an 8-bit variant with a passed verdict comes first; a bundle that holds nothing but one variant runs
    that. Otherwise the float one. Raises BundleError, listing what there is.
    """
    ours = [v for v in bundle.manifest.variants if (v.runtime, v.target, v.profile) == (runtime, "cpu", "portable")]
    if provider == "cpu":
        for variant in ours:
            if variant.precision != FLOAT and (verdict := read_verdict(bundle, variant)) and verdict.passed:
                return variant
    if len(ours) == 1:
        return ours[0]
    return bundle.variant(runtime=runtime, target="cpu", precision=FLOAT, profile="portable")
