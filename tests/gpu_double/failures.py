"""Failures on request: any call can be told to fail with a CUDA error, or to hang until it is released.

gpu.failures.fail("malloc", "CUDA_ERROR_OUT_OF_MEMORY")
gpu.failures.fail_call(417)                      # the 417th call from now on, whatever it is
hang = gpu.failures.hang("stream_sync"); ...; hang.release()
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

# CUresult [cuda.h]; names and numbers are the vendor's.
CODES = {
    "CUDA_SUCCESS": 0,
    "CUDA_ERROR_INVALID_VALUE": 1,
    "CUDA_ERROR_OUT_OF_MEMORY": 2,
    "CUDA_ERROR_NOT_INITIALIZED": 3,
    "CUDA_ERROR_INVALID_DEVICE": 101,
    "CUDA_ERROR_INVALID_CONTEXT": 201,
    "CUDA_ERROR_ECC_UNCORRECTABLE": 214,
    "CUDA_ERROR_INVALID_HANDLE": 400,
    "CUDA_ERROR_NOT_READY": 600,
    "CUDA_ERROR_ILLEGAL_ADDRESS": 700,
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": 701,
    "CUDA_ERROR_LAUNCH_TIMEOUT": 702,
    "CUDA_ERROR_LAUNCH_FAILED": 719,
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": 900,
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": 901,
    "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED": 903,
    "CUDA_ERROR_STREAM_CAPTURE_UNJOINED": 904,
    "CUDA_ERROR_STREAM_CAPTURE_ISOLATION": 905,
    "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT": 906,
    "CUDA_ERROR_CAPTURED_EVENT": 907,
    "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD": 908,
    "CUDA_ERROR_UNKNOWN": 999,
}

# After these "the process must be terminated and relaunched": every later call returns the same error [cuda.h].
STICKY = frozenset(
    {
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_LAUNCH_FAILED",
    }
)


class CudaFailure(Exception):
    """A call returned a CUresult other than success. Each vendor module turns it into its own kind of failure."""

    def __init__(self, name: str, detail: str = "") -> None:
        super().__init__(f"{name}: {detail}" if detail else name)
        self.name = name
        self.code = CODES[name]
        self.detail = detail


@dataclass(eq=False)
class Hang:
    """A call that does not return. reached: set when a thread is caught in it."""

    reached: Event = field(default_factory=Event)
    _released: Event = field(default_factory=Event)
    _error: str | None = None

    def release(self, error: str | None = None) -> None:
        """Let the call go on, or fail with `error`."""
        self._error = error
        self._released.set()

    def wait(self) -> None:
        self.reached.set()
        self._released.wait()
        if self._error:
            raise CudaFailure(self._error, "released from a hang")


@dataclass(eq=False)
class _Plan:
    kind: str | None  # None: any
    after: int  # calls to let pass first
    times: int
    act: Callable[[], None]


class Failures:
    """Failures to come, and how often each kind of call was made. injected: the kinds that were failed."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.injected: list[str] = []
        self._plans: list[_Plan] = []
        self._hangs: list[Hang] = []

    def fail(self, kind: str, error: str = "CUDA_ERROR_UNKNOWN", *, after: int = 0, times: int = 1) -> None:
        """Fail calls of `kind` with `error`: the `times` calls behind the next `after` ones.

        With one of STICKY the device is lost from then on, as CUDA has it.
        """
        self._plan(kind, after, times, error)

    def fail_call(self, number: int, error: str = "CUDA_ERROR_UNKNOWN") -> None:
        """Fail the call with this number, counted from 0 over every kind from now on."""
        self._plan(None, number, 1, error)

    def hang(self, kind: str, *, after: int = 0) -> Hang:
        """Catch a call of `kind` behind the next `after` ones."""
        hang = Hang()
        self._hangs.append(hang)
        self._plans.append(_Plan(kind, after, 1, hang.wait))
        return hang

    def clear(self) -> None:
        """Nothing more fails; threads that hang go on."""
        self._plans.clear()
        for hang in self._hangs:
            hang.release()
        self._hangs.clear()

    @property
    def pending(self) -> int:
        """Failures that were asked for and have not happened."""
        return len(self._plans)

    def enter(self, kind: str) -> None:
        """Count a call. Raises CudaFailure when it was told to fail; blocks while it is told to hang."""
        self.calls[kind] += 1
        for plan in tuple(self._plans):
            if plan.kind not in (None, kind):
                continue
            if plan.after > 0:
                plan.after -= 1
                continue
            plan.times -= 1
            if plan.times <= 0:
                self._plans.remove(plan)
            self.injected.append(kind)
            plan.act()

    def _plan(self, kind: str | None, after: int, times: int, error: str) -> None:
        if error not in CODES:
            raise ValueError(f"{error} is no CUresult that the double knows; it knows {', '.join(CODES)}")

        def act() -> None:
            raise CudaFailure(error, "injected")

        self._plans.append(_Plan(kind, after, times, act))
