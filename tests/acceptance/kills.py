"""kill -9 during sign, install, rollback and pack: python -m tests.acceptance.kills [--trials N] [--out FILE].

Each trial starts one of them in a process of its own and kills it after a time drawn from the seed. Afterwards what
runs must be whole, and the old or the new; the next start must find no leftovers.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep

from tests.bundles import edit_manifest, write_bundle
from wanedge.bundle import Bundle, pack, sign_release, verify
from wanedge.trust.slots import Store

LARGE = 8 << 20  # bytes of weights, so that copying takes a while


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.kills", description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore", DeprecationWarning)
    os.environ.pop("WANEDGE_TRUST", None)
    rng, counts = random.Random(asked.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name))
        for number in range(asked.trials):
            kind = list(KINDS)[number % len(KINDS)]
            counts[trial(world, kind, rng.expovariate(1 / 0.03))] += 1
    print(json.dumps(counts))
    if asked.out is not None:
        asked.out.write_text(json.dumps({"seed": asked.seed, "trials": asked.trials, "outcomes": counts}, indent=1))
    return int(any("broken" in outcome for outcome in counts))


class World:
    """Two bundles, a key and a store in which one of the two runs."""

    def __init__(self, root: Path) -> None:
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self.key, self.store, self.archive = root / "key.pem", Store(root / "store"), root / "packed.wanedge"
        private = ed25519.Ed25519PrivateKey.generate()
        self.key.write_bytes(private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
        self.update = root / "two"
        self.bundles = [self._bundle(root / name, name) for name in ("one", "two")]
        for bundle in self.bundles:
            self.store.install(bundle, lambda _: None)
            self.store.mark_good()

    def _bundle(self, path: Path, note: str) -> Path:
        from wanedge.bundle import BundleWriter

        write_bundle(path)
        with BundleWriter.extend(Bundle.open(path)) as writer:
            writer.add_file("reports/large.bin", os.urandom(LARGE))
            writer.finish(Bundle.open(path).manifest.contents)
        edit_manifest(path, lambda manifest: manifest.update(weights_note=note))
        return path

    def other(self) -> Path:
        """The bundle that does not run."""
        running = Bundle.open(self.store.link).manifest.weights_note
        return next(bundle for bundle in self.bundles if bundle.name != running)


KINDS: dict[str, Callable[[World], object]] = {
    "install": lambda w: w.store.install(w.update, lambda _: None),
    "rollback": lambda w: w.store.rollback(),
    "sign": lambda w: sign_release(w.bundles[0], w.key, 7),
    "pack": lambda w: pack(w.bundles[0], w.archive, overwrite=True),
}


def trial(world: World, kind: str, after_s: float) -> str:
    """Kill one command after some time, and look at what is left."""
    world.update = _fresh(world.other())
    process = multiprocessing.get_context("fork").Process(target=KINDS[kind], args=(world,))
    process.start()
    sleep(after_s)
    process.kill()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    folder = world.store.start()
    whole = verify(folder).ok and all(verify(bundle).ok for bundle in world.bundles)
    whole = whole and (not world.archive.exists() or verify(world.archive).ok)
    left = [*world.store.root.glob(".*.part"), *(world.store.root / "slots").glob(".*.part")]
    world.store.mark_good()
    for bundle in world.bundles:  # what sign and pack leave beside a bundle is hidden and named .part
        for part in [*bundle.glob(".*.part"), *bundle.parent.glob(".*.part")]:
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    state = "whole" if whole and not left else "broken"
    return f"{kind}: {'killed' if killed else 'finished'}, {state}"


def _fresh(bundle: Path) -> Path:
    """The same bundle as another release: one that is installed already is refused."""
    edit_manifest(bundle, lambda manifest: manifest["made"].update(command=os.urandom(8).hex()))
    return bundle


if __name__ == "__main__":
    sys.exit(main())
