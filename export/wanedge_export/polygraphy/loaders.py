"""One data-loader script per graph, and the arrays that it yields.

loaders/inputs/backbone.npz     recorded once
loaders/fp16/backbone.py        casts them to what the graph of this variant takes; needs NumPy only
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wanedge.atomic import staged_file
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.units import UserUnit
from wanedge_export.polygraphy.record import Feed, record_runs
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import GraphSpec

INPUTS = "inputs"

_SCRIPT = '''"""Inputs and states of {component} ({variant}), recorded in a stream by wanedge export --polygraphy.

polygraphy run {graph} --onnxrt --data-loader-script {script}
"""

from pathlib import Path

import numpy as np

DTYPES = {dtypes}


def load_data():
    """Yields one dictionary of all graph inputs per recorded run."""
    with np.load(Path(__file__).parent.parent / "{inputs}" / "{component}.npz") as held:
        for run in range({runs}):
            yield {{name: held[f"{{run}}/{{name}}"].astype(dtype, copy=False) for name, dtype in DTYPES.items()}}
'''


def write_loaders(bundle: Bundle, folder: Path, visitor: Sequence[UserUnit], world: str = "") -> tuple[Path, ...]:
    """Stream `visitor` through the bundle's graphs and write a script for every graph of every variant.

    visitor: at least one unit; the runs of the last one are kept, and those of the prefill.

    Returns the scripts. Raises WanEdgeError where the graphs cannot be loaded or run.
    """
    variants = [variant for variant in bundle.manifest.variants if not variant.engines]
    # Any variant's stream would do; the float32 graphs are the fastest on a CPU.
    source = next((v for v in variants if v.precision == "fp32"), variants[0])
    model = Model.load(bundle, "onnxruntime", source.name, RuntimeOptions())
    runs = record_runs(model, visitor, world)
    (folder / INPUTS).mkdir(parents=True, exist_ok=True)
    scripts: list[Path] = []
    for component in model.graphs:
        feeds = runs.of(component)
        _write_inputs(folder / INPUTS / f"{component}.npz", feeds)
        for variant in variants:
            if component in variant.graphs:
                path, spec = bundle.graph(component, variant)
                script = folder / variant.name / f"{component}.py"
                scripts.append(script)
                _write_script(script, path.relative_to(bundle.root), variant.name, spec, len(feeds))
    return tuple(scripts)


def _write_inputs(path: Path, feeds: Sequence[Feed]) -> None:
    arrays = {f"{run}/{name}": array for run, feed in enumerate(feeds) for name, array in feed.items()}
    with staged_file(path) as staged, staged.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _write_script(path: Path, graph: Path, variant: str, spec: GraphSpec, runs: int) -> None:
    dtypes = {t.name: storage_dtype(t.dtype).name for t in spec.inputs}
    dtypes |= {s.past: storage_dtype(s.dtype).name for s in spec.states}
    listed = "".join(f"    {name!r}: {dtype!r},\n" for name, dtype in dtypes.items())
    text = _SCRIPT.format(
        component=spec.component,
        variant=variant,
        graph=graph.as_posix(),
        script=path.name,
        dtypes=f"{{\n{listed}}}",
        inputs=INPUTS,
        runs=runs,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(path) as staged:
        staged.write_text(text, encoding="utf-8")
