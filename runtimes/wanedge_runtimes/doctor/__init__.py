"""Report on this machine: hardware, installed packages, and the command for each that is missing.

report = doctor()
report.facts       # what is here
report.findings    # what is missing or does not fit, each with a command
report.runs        # the targets whose engines run here
report.ok          # no finding of level "error"
"""

from pydantic import computed_field

from wanedge_runtimes.doctor.facts import Facts, collect, machine_of
from wanedge_runtimes.doctor.findings import Finding, diagnose
from wanedge_runtimes.strict import Strict
from wanedge_runtimes.targets import TARGETS, service

__all__ = ["Facts", "Finding", "Report", "collect", "diagnose", "doctor", "examine", "machine_of"]


class Report(Strict):
    """Facts and what follows from them. lints, builds, runs: the targets that this machine can do that for."""

    facts: Facts
    findings: tuple[Finding, ...]
    lints: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        return all(finding.level != "error" for finding in self.findings)


def doctor() -> Report:
    """Look at this machine. Works with no extra installed; imports onnxruntime and TensorRT where they are there."""
    return examine(collect(import_all=True))


def examine(facts: Facts) -> Report:
    """The report on these facts. Pure."""
    machine = machine_of(facts)
    answers = {target.name: service(target, machine) for target in TARGETS}
    return Report(
        facts=facts,
        findings=tuple(diagnose(facts)),
        lints=tuple(name for name, answer in answers.items() if answer.lint.yes),
        builds=tuple(name for name, answer in answers.items() if answer.build.yes),
        runs=tuple(name for name, answer in answers.items() if answer.run.yes),
    )
