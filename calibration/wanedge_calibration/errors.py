"""What calibration, quantization and validation raise."""

from wanedge_runtimes.errors import WanEdgeError


class CalibrationError(WanEdgeError):
    """A roll-out cannot be recorded, or a calibration file does not belong to the model."""


class QuantizationError(WanEdgeError):
    """A recipe cannot be applied to a graph."""


class NotFinite(WanEdgeError):
    """A component gave NaN or infinity; the message names the first tensor and the unit."""


class ValidationError(WanEdgeError):
    """Two bundles cannot be compared, or a gate or report cannot be read."""
