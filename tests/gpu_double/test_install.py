"""The double in place of the vendors' modules: for a block, for a process, and gone afterwards."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.gpu_double import Gpu, Misuse, active, installed
from tests.gpu_double.conftest import at, on_device
from tests.gpu_double.cuda_core import Device, LegacyPinnedMemoryResource

ROOT = Path(__file__).parent.parent.parent
NAMES = ("cuda.core", "cuda.bindings.driver", "cuda.bindings.runtime", "tensorrt", "tensorrt_rtx", "onnxruntime")


def test_the_modules_are_ours_inside_and_the_installed_ones_outside() -> None:
    import cuda
    import onnxruntime

    before = {name: sys.modules.get(name) for name in NAMES}
    core = getattr(cuda, "core", None)
    with installed():
        import cuda.core as ours

        assert ours.Device is Device
        assert all(sys.modules[name] is not before[name] for name in NAMES)
    assert {name: sys.modules.get(name) for name in NAMES} == before
    assert getattr(cuda, "core", None) is core
    assert sys.modules["onnxruntime"] is onnxruntime
    with pytest.raises(RuntimeError, match="not installed"):
        active()


def test_what_a_block_raises_is_not_covered_by_what_it_left() -> None:
    def program(_: Gpu) -> None:
        Device(0).create_stream().record()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        on_device(program)


def test_two_devices_after_each_other_share_nothing() -> None:
    kept = []
    with pytest.raises(Misuse, match=r"end\.allocated"):
        on_device(lambda _: kept.append(LegacyPinnedMemoryResource().allocate(8)))
    with installed() as second:
        Device(0).set_current()
        kept.clear()  # frees on the first device
        assert second.failures.calls["free_host"] == 0
        assert second.left == {}


def test_threads_share_the_device_and_not_the_context() -> None:
    def program(gpu: Gpu) -> list[int]:
        found: list[int] = []

        def work(value: int) -> None:
            Device(0).set_current()
            stream = Device(0).create_stream()
            memory = Device(0).allocate(64, stream=stream)
            for _ in range(20):
                memory.fill(value, stream=stream)
                back = np.zeros(64, np.uint8)
                memory.copy_to(at(back), stream=stream)
                assert (back == value).all()
            found.append(int(back[0]))
            memory.close(stream)
            stream.sync()

        threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gpu.left == {}
        return found

    assert sorted(on_device(program)) == [0, 1, 2, 3]


SCRIPT = """
import numpy as np
from tests.gpu_double import finish, install
gpu = install(seed=4)
def program():
    import cuda.core as core, tensorrt, onnxruntime
    device = core.Device(0)
    device.set_current()
    stream = device.create_stream()
    memory = device.allocate(8, stream=stream)
    memory.fill(6, stream=stream)
    back = np.zeros(8, np.uint8)
    memory.copy_to(core.Buffer.from_handle(back.ctypes.data, 8), stream=stream)
    memory.close(stream)
    stream.sync()
    print(back.tolist(), onnxruntime.get_available_providers()[0], tensorrt.__version__)
    {last}
program()
finish(gpu)
"""


@pytest.mark.parametrize(
    ("last", "message"), [("", ""), ("globals()['kept'] = device.create_stream()", "end.allocated")]
)
def test_a_script_in_a_process_of_its_own(last: str, message: str) -> None:
    script = SCRIPT.replace("{last}", last)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("[6, 6, 6, 6, 6, 6, 6, 6] CUDAExecutionProvider 11.")
    assert (done.returncode == 0) == (message == "")
    assert message in done.stderr
