"""Errors of calibration, quantization and validation."""

from typing import Any

from wanedge_runtimes.errors import WanEdgeError


class CalibrationError(WanEdgeError):
    """A roll-out cannot be recorded, or a calibration file does not belong to the model."""


class QuantizationError(WanEdgeError):
    """A recipe cannot be applied to a graph."""


class NotFinite(WanEdgeError):
    """A component gave NaN or infinity; the message names the first tensor and the unit.

    side: "reference" or "candidate". component: whose tensor it was.
    """

    def __init__(self, what: str, *, hint: str, side: str = "", component: str = "") -> None:
        super().__init__(what, hint=hint)
        self.side, self.component = side, component

    def __reduce__(self) -> tuple[Any, ...]:  # exceptions cross process borders in parallel work
        return _rebuilt, (self.what, self.hint, self.side, self.component)


def _rebuilt(what: str, hint: str, side: str, component: str) -> NotFinite:
    return NotFinite(what, hint=hint, side=side, component=component)


class ValidationError(WanEdgeError):
    """Two bundles cannot be compared, or a gate or report cannot be read."""
