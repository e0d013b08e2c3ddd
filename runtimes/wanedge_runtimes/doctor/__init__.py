"""What is this machine, what is installed, and what should be mended?

report = doctor()
report.facts       # what was found
report.findings    # what to do about it, each with a command
report.ok          # no finding of level "error"
"""

from pydantic import BaseModel, ConfigDict, computed_field

from wanedge_runtimes.doctor.facts import Facts
from wanedge_runtimes.doctor.findings import Finding, diagnose
from wanedge_runtimes.doctor.machine import collect

__all__ = ["Facts", "Finding", "Report", "collect", "diagnose", "doctor"]


class Report(BaseModel):
    """Facts and what follows from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    facts: Facts
    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        return all(finding.level != "error" for finding in self.findings)


def doctor() -> Report:
    """Look at this machine. Works with no extra installed and imports nothing heavier than onnxruntime."""
    facts = collect()
    return Report(facts=facts, findings=tuple(diagnose(facts)))
