"""`python -m samples.quantization BUNDLE --clips ...`: how many sabotages does the gate catch, whom does it wrong?"""

import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from samples.quantization.sabotage import Sabotage, sabotage
from wanedge.bundle import Bundle, Variant
from wanedge.cli.console import stdout, table
from wanedge.cli.outcome import reported
from wanedge.figures import Figures, Measure, machine_facts, made
from wanedge_calibration.clips import Clip, find_clips
from wanedge_calibration.errors import NotFinite
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.validation.gate import DEFAULTS, Gate
from wanedge_calibration.validation.measures import judged
from wanedge_calibration.validation.validate import compare, inspect_files
from wanedge_runtimes.errors import WanEdgeError

_METHODS = ("max", "percentile", "entropy", "mse")


def main(
    bundle: Annotated[Path, typer.Argument(help="A calibrated bundle.")],
    clips: Annotated[list[Path], typer.Option(help="Clips to validate with.")],
    gate: Annotated[Path | None, typer.Option(help="By default that of int8.")] = None,
    sabotages: Annotated[int, typer.Option(min=1)] = 200,
    honest: Annotated[int, typer.Option(min=1)] = 50,
    units: Annotated[int, typer.Option(min=1, help="Units of a clip.")] = 12,
    out: Annotated[Path, typer.Option(help="Where gate.json goes.")] = Path("out/gate"),
) -> None:
    """Sabotage and re-quantize a bundle many times, and judge each by the gate."""
    with reported():
        judge = Gate.read(gate) if gate else DEFAULTS["int8"]
        source, found = Source.of(Bundle.open(bundle)), find_clips(clips)
        with TemporaryDirectory(prefix="wanedge-gate-") as folder:
            bench = _Bench(source, found, judge, units, Path(folder))
            missed = [what for seed in range(sabotages) if (what := bench.sabotaged(seed)) is not None]
            wronged = [why for seed in range(honest) if (why := bench.requantized(seed))]
        measures = {
            "gate_caught": Measure(value=1 - len(missed) / sabotages, unit="ratio", n=sabotages, bar=">= 0.99"),
            "gate_wronged": Measure(value=float(len(wronged)), unit="bundles", n=honest, bar="== 0"),
        }
        command = shlex.join(["python", "-m", "samples.quantization", bundle.name, *sys.argv[2:]])
        figures = Figures(
            machine=machine_facts() | {"model": source.bundle.model.name, "weights": source.bundle.manifest.weights},
            made=made(command, None, source.bundle.digest),
            measures=measures,
        )
        figures.write(out / "gate.json")
        stdout().print(table("not caught", ("kind", "component", "what"), [vars(m).values() for m in missed]))
        stdout().print(table("rejected, though honest", ("why",), [(why,) for why in wronged]))
        rows = [(name, f"{m.value:.3f}", m.bar, m.met) for name, m in measures.items()]
        stdout().print(table("the gate", ("measure", "value", "bar", "met"), rows))


class _Bench:
    def __init__(self, source: Source, clips: list[Clip], gate: Gate, units: int, folder: Path) -> None:
        self._source, self._clips, self._gate, self._units, self._folder = source, clips, gate, units, folder
        self._quantized = apply_recipe(source, default_recipe(source, "int8"), folder / "int8", only=True)

    def sabotaged(self, seed: int) -> Sabotage | None:
        """What was done, if the gate did not catch it."""
        variant = self._quantized.variant("int8")
        broken, what = sabotage(self._quantized, variant, seed, self._folder / f"broken-{seed}")
        return what if not self._misses(broken, broken.variant("int8"), f"broken-{seed}") else None

    def requantized(self, seed: int) -> str:
        """Why an honest re-quantization was rejected; empty when it was not."""
        recipe = _honest_recipe(self._source, seed)
        made_bundle = apply_recipe(self._source, recipe, self._folder / f"honest-{seed}", only=True)
        misses = self._misses(made_bundle, made_bundle.variant("int8"), f"honest-{seed}")
        return f"{recipe.calibrator} {recipe.smooth}: {', '.join(misses)}" if misses else ""

    def _misses(self, candidate: Bundle, variant: Variant, name: str) -> list[str]:
        """The missed limits. What the files alone betray is not streamed any more."""
        source, of = self._source.bundle, self._source.variant
        files = judged(inspect_files(candidate, variant, source, of).measures, self._gate.limits)
        if missed := [n for n, m in files.items() if m.met is False]:
            return missed
        try:
            found = compare(
                candidate,
                variant,
                source,
                of,
                self._clips,
                self._folder / f"{name}-clips",
                gate=self._gate,
                limit=self._units,
            )
        except NotFinite as error:
            return [error.what]
        except WanEdgeError as error:  # a graph that does not even load or run is caught, too
            return [error.what]
        return sorted(found.misses)


def _honest_recipe(source: Source, seed: int) -> Recipe:
    """Any calibrator, any smoothing, a few layers left in float: choices that an engineer may make."""
    random = np.random.default_rng(seed)
    recipe = default_recipe(source, "int8")
    for component, layers in recipe.components.items():
        if layers and random.random() < 0.3:
            recipe = recipe.changed(component, {str(random.choice(list(layers))): "fp32"})
    smooth = float(random.choice([0.3, 0.5, 0.7])) if random.random() < 0.5 else None
    changes = {
        "calibrator": str(random.choice(_METHODS)),
        "kept": float(random.choice([99.99, 99.999, 100.0])),
        "smooth": smooth,
    }
    return recipe.model_copy(update=changes)


if __name__ == "__main__":
    typer.run(main)
