"""Records of conversations that a test writes down by hand."""

from samples.kiosk.evaluation.conversations import Asked, Record


def record(**parts) -> Record:
    units = len(parts.get("texts", parts.get("level_dbfs", parts.get("states", ("<idle>",) * 20))))
    silent = {
        "key": "a", "purpose": "voices", "kind": "conversation", "seed": 0, "sound": "silence",
        "name": "Joe", "opens": "nine", "closes": "six", "asked": (), "came": (),
        "states": ("<idle>",) * units, "texts": ("",) * units, "level_dbfs": (-120.0,) * units,
        "brightness_db": (None,) * units, "envelope": (0.0,) * 4 * units, "mouth": (0.0,) * 4 * units,
        "still_psnr_db": (None,) * units,
    }  # fmt: skip
    return Record.model_validate(silent | parts)


def asked(first: int, last: int, intent: str = "thanks", **other) -> Asked:
    return Asked(first_unit=first, last_unit=last, intent=intent, text="", voice="", answered=True, **other)


def thanked(at: int, units: int = 20) -> tuple[str, ...]:
    """The right reply to thanks, its words two to a unit from unit `at` on."""
    pieces = ["(smi", "les) You are", " welcome."]
    return ("",) * at + tuple(pieces) + ("",) * (units - at - len(pieces))
