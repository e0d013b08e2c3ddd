"""Targets: kinds of devices, what each can take, and what this machine can do for them.

target = target_named("rtx-40")
service(target, Machine.of(doctor().facts)).build     # Answer(yes=True, why="tensorrt-rtx 1.7.1.116, without a GPU")
"""

from wanedge_runtimes.targets.machine import Machine
from wanedge_runtimes.targets.service import Answer, Service, service
from wanedge_runtimes.targets.table import TARGETS, target_named
from wanedge_runtimes.targets.target import Library, LibraryName, Precision, Target, release, same_release

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
