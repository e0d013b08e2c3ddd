"""An old builder that is garbage, while a new one is made: TensorRT must not wait for itself."""

import gc
import subprocess
import sys
from threading import Barrier, Thread

import pytest

from wanedge_export.engines.worker.logging import gc_guard

WAIT_S = 120
# Each kind of call that makes a builder. Before it a builder is in a cycle, and what TensorRT says makes garbage, too.
CALLS = {
    "build_engine": """
try:
    build_engine(trt, "tensorrt-rtx", Path("nothing.onnx"), spec, target_named("rtx-40"))
except BuildError:
    pass
""",
    "parse_network": """
try:
    parse_network(trt, Path("nothing.onnx"))
except BuildError:
    pass
""",
    "probe": 'probe(trt, Path("nothing.onnx"), target_named("rtx-40"))',
}
BEFORE = """
import gc
from pathlib import Path
import tensorrt_rtx as trt
from tests.export.test_engines import product_spec
from wanedge_export.engines.worker.compile import BuildError, parse_network
from wanedge_export.engines.builder import build_engine
from wanedge_export.engines.probe import probe
from wanedge_export.engines.worker.logging import Lines, make_logger
from wanedge_runtimes.targets import target_named

class Said(list):
    def append(self, line):
        made = [[] for _ in range(20_000)]  # more than the collector waits for
        super().append(line)

def lines(self):
    self.lines = Said()

Lines.__init__ = lines
spec = product_spec()
gc.set_threshold(5_000)
kept = [trt.Builder(make_logger(trt, Lines()))]
kept.append(kept)
del kept
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_a_call_ends_although_an_old_builder_is_garbage(call: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")
    # In a process of its own: a wait in TensorRT cannot be ended from Python.
    subprocess.run([sys.executable, "-c", BEFORE + CALLS[call]], check=True, timeout=WAIT_S, capture_output=True)


def test_the_collector_is_as_before_when_the_last_of_several_threads_ends() -> None:
    both = Barrier(2)
    seen: list[bool] = []

    def first() -> None:
        with gc_guard():
            both.wait(WAIT_S)
        both.wait(WAIT_S)

    assert gc.isenabled()
    thread = Thread(target=first)
    thread.start()
    with gc_guard():
        both.wait(WAIT_S)
        both.wait(WAIT_S)  # the first has ended
        seen.append(gc.isenabled())
    thread.join()
    assert seen == [False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with gc_guard():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
