"""Millions of mutated files against every format that wanedge reads: python -m tests.acceptance.fuzz [--inputs N].

Each must be accepted or raise a WanEdgeError, within a second. The inputs follow from --seed, so a failure can be had
again; its file is kept. Prints one line a format, and writes the counts as JSON with --out.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter

from tests.bundles import kept_bundle
from tests.configs import mini
from tests.fuzzing import Target, attempt, mutations
from tests.hostile_files import calibration_targets, sdk_targets, weights_target
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer

LONGEST_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="part of a format's name")
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="folder for inputs that failed")
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore", UserWarning)  # of zipfile, about the names that are repeated on purpose
    bundle = _small_bundle()
    streamer = Streamer(Model.load(bundle), "A lobby.")
    targets = [*sdk_targets(streamer, bundle.tokenizer()), *calibration_targets(), weights_target()]
    targets = [target for target in targets if asked.only is None or asked.only in target.name]
    counts = {}
    for number, target in enumerate(targets):
        each = asked.inputs // len(targets) + (number < asked.inputs % len(targets))
        counts[target.name] = count(target, each, asked.seed + number, asked.keep)
        print(f"{target.name:24} {json.dumps(counts[target.name])}", flush=True)
    total = {key: sum(c[key] for c in counts.values()) for key in ("inputs", "raw_errors", "slow")}
    total["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(total))
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"seed": asked.seed, "total": total, "formats": counts}, indent=1) + "\n")
    return int(bool(total["raw_errors"] or total["slow"]))


def count(target: Target, inputs: int, seed: int, keep: Path) -> dict[str, float]:
    """Let a target read `inputs` files. raw_errors: that were no WanEdgeError. slow: that took over a second."""
    result = {"inputs": inputs, "accepted": 0, "raw_errors": 0, "slow": 0, "slowest_s": 0.0}
    started = perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        seeds = target.seeds(folder / "seeds")
        for data in islice(mutations(seeds, random.Random(seed)), inputs):
            one = attempt(target, data, folder)
            result["accepted"] += one.error is None
            result["raw_errors"] += one.raw
            result["slow"] += one.seconds > LONGEST_S
            result["slowest_s"] = max(result["slowest_s"], round(one.seconds, 3))
            if one.raw or one.seconds > LONGEST_S:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{target.name}-{int(result['raw_errors'] + result['slow'])}").write_bytes(data)
                print(f"{target.name}: {one.seconds:.2f} s, {one.error!r:.300}", file=sys.stderr)
    return result | {"seconds": round(perf_counter() - started, 1)}


def _small_bundle() -> Bundle:
    if elsewhere := os.environ.get("WANEDGE_TEST_BUNDLE"):
        return Bundle.open(Path(elsewhere))

    def export(path: Path) -> Bundle:
        from wanedge_export.bundling import export_bundle
        from wanedge_export.model import ReferenceModel

        model = ReferenceModel(mini(), seed=0)
        return export_bundle(model, path, profiles=("portable", "decomposed"), note="seeded, for tests", overwrite=True)

    return kept_bundle("mini", export)


if __name__ == "__main__":
    sys.exit(main())
