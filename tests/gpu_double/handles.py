"""Handles as cuda.bindings has them: objects that become integers only through int()."""


class _Handle:
    def __init__(self, init_value: int = 0, _ptr: int = 0) -> None:
        self._value = int(init_value)

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._value:#x}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class CUstream(_Handle): ...


class CUevent(_Handle): ...


class CUcontext(_Handle): ...


class CUgraph(_Handle): ...


class CUgraphExec(_Handle): ...
