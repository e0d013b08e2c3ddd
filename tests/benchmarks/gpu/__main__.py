"""Measure everything that only a GPU can show, in one command. Not run on one yet.

Needs wanedge itself, numpy and torch. Without onnx, which counts the arithmetic of graphs, the roofline is left out.

python -m tests.benchmarks.gpu kiosk.wanedge --weights samples/kiosk/weights/kiosk-tiny.safetensors --out out/gpu
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks.gpu.backends import BACKENDS, REFERENCE, Available, Backend, unavailable_reason
from tests.benchmarks.gpu.compare import Measures, agree, measures, session_measures, timed, timed_session
from tests.benchmarks.gpu.report import gpu_table
from tests.repository import commit
from wanedge.atomic import staged_file
from wanedge.benchmark import document, machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import FAILED, report_errors, require_bundle, require_file
from wanedge.model import Model
from wanedge_runtimes.doctor import Facts, collect, machine_of
from wanedge_runtimes.errors import RuntimeUnavailable, WanEdgeError
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.tensorrt.preflight import matching_targets, pick_gpu

UNITS = 300


def gpu(
    bundle: Annotated[Path, typer.Argument(help="With the variants fp32 and fp16; it gets an engine for this GPU.")],
    weights: Annotated[
        Path | None, typer.Option(help="What the bundle was exported from, for torch; without it torch is left out.")
    ] = None,
    units: Annotated[int, typer.Option(min=1, help="Units to compare, and again to time.")] = UNITS,
    out: Annotated[Path, typer.Option(help="Where gpu.json and gpu.md go.")] = Path("out/gpu"),
) -> None:
    """Compare every backend of this machine's GPU with ONNX Runtime on its CPU, and time each.

    A backend that is not available is listed with the reason. Example:

    python -m tests.benchmarks.gpu kiosk.wanedge --units 300
    """
    with report_errors():
        opened = Bundle.open(require_bundle(bundle))
        facts = collect()
        available = Available(machine_of(facts), facts.onnxruntime.providers, _torch_cuda())
        if not available.machine.gpus:
            raise RuntimeUnavailable(
                "no NVIDIA GPU answers here, and this measures nothing else", hint="wanedge doctor"
            )
        if weights is not None:
            require_file(weights, "--weights")
        run = _Run(opened, weights, units, facts, available)
        for backend in BACKENDS:
            run.measure(backend)
            table = _write(out, opened, run)  # after each: the next one may take the process with it
        typer.echo(table)
        if not run.measured:
            raise typer.Exit(FAILED)


def _write(out: Path, bundle: Bundle, run: _Run) -> str:
    """Results so far as gpu.json and, returned as well, gpu.md."""
    results = document(
        shlex.join(["python", "-m", "tests.benchmarks.gpu", *sys.argv[1:]]),
        bundle.digest,
        machine_facts() | {"model": bundle.manifest.model.name, "weights": bundle.manifest.weights},
        run.measures,
        commit(),
    )
    out.mkdir(parents=True, exist_ok=True)
    with staged_file(out / "gpu.json") as staged:
        staged.write_text(json.dumps(results, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    table = gpu_table(results, run.measured, run.skipped)
    (out / "gpu.md").write_text(table, encoding="utf-8")
    return table


class _Run:
    """measured: names of backends. skipped: name -> why."""

    def __init__(self, bundle: Bundle, weights: Path | None, units: int, facts: Facts, available: Available) -> None:
        self.measures: Measures = {}
        self.measured: list[str] = []
        self.skipped: dict[str, str] = {}
        self._bundle, self._weights, self._units = bundle, weights, units
        self._available, self._machine = available, machine_of(facts)
        self._reference = Model.load(bundle, "onnxruntime", "fp32", RuntimeOptions(provider=REFERENCE.provider))
        self._roofline = self._roofline_ms()

    def measure(self, backend: Backend) -> None:
        """Measure one backend, or keep why not. One that fails does not take the others with it."""
        why = unavailable_reason(backend, self._available)
        if why is None and backend.kind == "torch" and self._weights is None:
            why = "no --weights were given"
        if why is None:
            typer.echo(f"{backend.name}: {self._units} units", err=True)
            try:
                model, precision = self._load(backend)
                agreement = agree(self._reference, model, self._units)
                samples = timed(model, self._units)
            except WanEdgeError as error:
                why = f"{error.what} ({error.hint})"
            except Exception as error:  # torch, cuDNN and drivers raise what they like, and the run is not repeatable
                why = f"{type(error).__name__}: {error}"
            else:
                self.measures |= measures(backend.name, precision, agreement, samples, self._roofline)
                self._through_session(backend.name, model)
                self.measured.append(backend.name)
        if why is not None:
            typer.echo(f"{backend.name}: {why}", err=True)
            self.skipped[backend.name] = why

    def _through_session(self, name: str, model: Model) -> None:
        """Measure as a user runs it, in a worker thread. A failure leaves what was measured before."""
        try:
            self.measures |= session_measures(name, timed_session(model, self._units))
        except Exception as error:
            typer.echo(f"{name} through a session: {error}", err=True)
            self.skipped[f"{name} through a session"] = f"{type(error).__name__}: {error}"

    def _load(self, backend: Backend) -> tuple[Model, str]:
        """The model and the precision it computes in."""
        if backend.kind == "torch":
            from wanedge_export.model import ReferenceModel
            from wanedge_export.torch_runtime import torch_model

            assert self._weights is not None  # else the backend was skipped
            reference = ReferenceModel.load(self._bundle.model, self._weights)
            return torch_model(reference, self._reference.tokenizer, compiled=backend.graphs, device="cuda"), "fp32"
        if backend.kind == "onnxruntime":
            options = RuntimeOptions(provider=backend.provider)
            return Model.load(self._bundle, "onnxruntime", "fp32", options), "fp32"
        self._require_engine(backend.kind)
        return Model.load(self._bundle, backend.kind, options=RuntimeOptions(cuda_graphs=backend.graphs)), "fp16"

    def _require_engine(self, library: str) -> None:
        """Build one for this GPU unless the bundle has it. Raises BuildError."""
        from wanedge_export.engines.bundle import build_bundle
        from wanedge_export.engines.worker.compile import BuildError

        (target, *_) = [*matching_targets(self._machine, pick_gpu(self._machine)), None]
        if target is None:
            raise BuildError("no target is known for this GPU", hint="wanedge targets")
        name = f"{target.name}-fp16"
        if not any(v.name == name and v.runtime == library for v in self._bundle.manifest.variants):
            built = build_bundle(
                self._bundle,
                target,
                "fp16",
                self._machine,
                library=target.library_named(library),
                command="tests.benchmarks.gpu",
            )
            self._bundle = built.bundle

    def _roofline_ms(self) -> float | None:
        if not self._available.torch_cuda:
            typer.echo("the roofline is not measured: this torch has no CUDA", err=True)
            return None
        try:
            from tests.benchmarks.gpu.roofline import unit_roofline_ms
        except ImportError as error:
            typer.echo(f"the roofline is not measured: {error}", err=True)
            return None

        return unit_roofline_ms(self._bundle, self._reference, "cuda")


def _torch_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


if __name__ == "__main__":
    typer.run(gpu)
