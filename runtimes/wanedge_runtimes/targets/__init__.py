"""Targets: kinds of devices, what each can take, and what a machine can do for them.

target = target_named("rtx-40")
machine = machine_of(collect())        # both of the doctor
service(target, machine).build         # Answer(yes=True, why="tensorrt-rtx 1.7.1.116, without a GPU")
"""

from wanedge_runtimes.targets.machine import Answer, Machine, Service, service
from wanedge_runtimes.targets.table import (
    TARGETS,
    Library,
    LibraryName,
    Precision,
    Target,
    release,
    same_release,
    target_named,
)

__all__ = [
    "TARGETS",
    "Answer",
    "Library",
    "LibraryName",
    "Machine",
    "Precision",
    "Service",
    "Target",
    "release",
    "same_release",
    "service",
    "target_named",
]
