"""Memory of the simulated device: allocations at addresses that are never given twice, page-locked memory, pageable.

Device addresses lie above 2**48, where no process has memory: the host cannot read them by accident. Page-locked memory
is real memory at its real address. Every other address is pageable memory of the host.
"""

import ctypes
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Kind = Literal["device", "pinned"]

POISON = 0xFF  # NaN in every float type, -1 as an integer: an unfinished result cannot pass for a right one
ALIGNMENT = 256  # bytes; of every allocation [CUDA C++ Programming Guide, 'Device Memory Accesses']
FIRST_DEVICE_ADDRESS = 1 << 48
GUARD = 4096  # bytes of nothing between two allocations
QUARANTINE = 64 << 20  # bytes of freed page-locked memory that stay watched


class Touch(NamedTuple):
    """One access of queued work to an allocation, from byte start up to stop."""

    start: int
    stop: int
    writes: bool
    op: Any


@dataclass(eq=False)
class Allocation:
    """address: as the caller knows it. ordered: allocated and freed in stream order (cuMemAllocAsync).

    free_issued: the caller has given it back; freed: the memory is gone. touches: work that may not be done yet.
    """

    address: int
    size: int
    kind: Kind
    data: Bytes | None
    ordered: bool = False
    label: str = ""
    rule: str = "order.race"  # what two unordered uses break
    free_issued: bool = False
    freed: bool = False
    users: int = 0  # queued operations that touch it
    touches: list[Touch] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.label or self.kind} {self.address:#x} ({self.size} bytes)"


class Region(NamedTuple):
    """size bytes at address. allocation: None for pageable memory of the host."""

    address: int
    size: int
    allocation: Allocation | None

    @property
    def start(self) -> int:
        return self.address - self.allocation.address if self.allocation else self.address

    def overlaps(self, other: "Region") -> bool:
        return self.address < other.address + other.size and other.address < self.address + self.size

    def bytes(self) -> Bytes:
        """A view, not a copy. KeyError once the memory is gone."""
        if self.allocation is None:
            return host_bytes(self.address, self.size)
        if self.allocation.data is None:
            raise KeyError(self.address)
        return self.allocation.data[self.start : self.start + self.size]


class OutOfRange(Exception):
    """The bytes are not inside one live allocation. rule: memory.live or memory.freed."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


class Memory:
    """capacity: bytes of the device; None for as many as the host has."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.used = {"device": 0, "pinned": 0}
        self.peak = {"device": 0, "pinned": 0}
        self._next = FIRST_DEVICE_ADDRESS + GUARD
        self._sorted: list[int] = []  # addresses of everything in _known
        self._known: dict[int, Allocation] = {}  # freed device memory stays known by its address
        self._quarantine: list[tuple[Allocation, Bytes]] = []

    def allocate(self, size: int, kind: Kind, *, ordered: bool = False) -> Allocation | None:
        """Poisoned memory, aligned to 256 bytes; None when the device has no room."""
        if kind == "device" and self.capacity is not None and self.used["device"] + size > self.capacity:
            return None
        data = aligned_bytes(size)
        data.fill(POISON)
        if kind == "device":
            address = self._next
            self._next += -(-size // ALIGNMENT) * ALIGNMENT + GUARD
        else:
            address = data.ctypes.data
        found = Allocation(address, size, kind, data, ordered)
        insort(self._sorted, address)
        self._known[address] = found
        self.used[kind] += size
        self.peak[kind] = max(self.peak[kind], self.used[kind])
        return found

    def release(self, allocation: Allocation) -> None:
        """Poison the memory and take it away. A device address stays known as freed."""
        data, allocation.data = allocation.data, None
        allocation.free_issued = allocation.freed = True
        self.used[allocation.kind] -= allocation.size
        if allocation.kind == "pinned" and data is not None:
            data.fill(POISON)
            self._known.pop(allocation.address)
            self._sorted.remove(allocation.address)
            self._quarantine.append((allocation, data))
            while sum(a.size for a, _ in self._quarantine) > QUARANTINE:
                self._quarantine.pop(0)

    def written_after_free(self) -> list[Allocation]:
        """Page-locked allocations that someone wrote to after they were freed."""
        return [allocation for allocation, data in self._quarantine if not (data == POISON).all()]

    def find(self, address: int) -> Allocation | None:
        """The allocation, live or freed, whose bytes include `address`; None for memory of the host."""
        place = bisect_right(self._sorted, address) - 1
        if place < 0:
            return None
        found = self._known[self._sorted[place]]
        return found if address < found.address + max(found.size, 1) else None

    def region(self, address: int, size: int) -> Region:
        """Raise OutOfRange unless all of it is in one allocation that was not given back, or in the host's memory."""
        found = self.find(address)
        if found is None:
            if address >= FIRST_DEVICE_ADDRESS or address <= 0:
                raise OutOfRange("memory.live", f"{size} bytes at {address:#x} are in no allocation")
            return Region(address, size, None)
        if found.free_issued:
            raise OutOfRange("memory.freed", f"{size} bytes at {address:#x} are in {found}, which was freed")
        if address + size > found.address + found.size:
            raise OutOfRange("memory.live", f"{size} bytes at {address:#x} end outside {found}")
        return Region(address, size, found)

    @property
    def live(self) -> list[Allocation]:
        return [a for a in self._known.values() if not a.freed]


def aligned_bytes(size: int) -> Bytes:
    """Uninitialised bytes whose address is a multiple of 256."""
    raw = np.empty(max(size, 1) + ALIGNMENT, np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size]


def host_bytes(address: int, size: int) -> Bytes:
    """A view of the process's own memory."""
    if size == 0:
        return np.empty(0, np.uint8)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
