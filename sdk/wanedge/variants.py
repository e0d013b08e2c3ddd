"""The choice of a variant: a quantized one once its validation has passed, and the float one until then."""

from wanedge.bundle import Bundle, Variant
from wanedge.verdicts import read_verdict
from wanedge_runtimes.runtime import RuntimeOptions

FLOAT = "fp32"


def choose_variant(bundle: Bundle, name: str | None, runtime: str, provider: str, options: RuntimeOptions) -> Variant:
    """Return the variant to load: the named one, or the best; of engines, the one that preflight accepts here.

    Raises BundleError or RuntimeUnavailable, listing what there is.
    """
    if runtime == "onnxruntime":
        return bundle.variant(name) if name else default_variant(bundle, runtime, provider)
    from wanedge_runtimes.doctor import collect, machine_of
    from wanedge_runtimes.tensorrt.preflight import Candidate, choose

    candidates = [
        Candidate(v.name, v.target, v.precision, v.engines)
        for v in bundle.manifest.variants
        if v.engines and v.runtime == runtime and name in (None, v.name)
    ]
    machine = machine_of(collect())
    return bundle.variant(choose(candidates, machine, device=options.device, bundle=str(bundle.origin)).variant)


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
