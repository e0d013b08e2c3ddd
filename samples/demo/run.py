"""What a run of the demo leaves behind for its report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import FiniteFloat, JsonValue, ValidationError

from samples.demo.engines import EnginesRun
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.results import Results
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict


class Said(Strict):
    """Words of the visitor and when they are heard, in seconds of the clip. due: the right reply, if there is one."""

    start_s: FiniteFloat
    end_s: FiniteFloat
    words: str
    speaker: str
    due: str = ""


class Transcript(Strict):
    """What is said in a clip; samples/media/visitor.json.

    credit: authors and licence of the clip. world: the world text that belongs to it; None for any.
    """

    clip: str
    seconds: FiniteFloat
    language: str
    credit: str
    world: str | None = None
    said: tuple[Said, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The transcript in a file. InputError when it cannot be used."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} is not a transcript: {error}", hint="get it again: git checkout -- samples/media"
            ) from error


@dataclass(frozen=True)
class ComponentRow:
    """One exported graph. states: tensors that live from unit to unit; state_bytes: of one session."""

    name: str
    opset: int
    weight_bytes: int
    states: int
    state_bytes: int


@dataclass(frozen=True)
class DemoRun:
    """A clip streamed through a session.

    units: the agent's answers, in order. user_units: what they answer, of the same indices.
    wall_s: seconds from the first push to the last unit. memory: (unit index, resident bytes), in order.
    weights: whether the model was trained. machine: `wanedge.benchmark.machine_facts()`. world: the world text.
    evaluation: how the shipped guide was judged, docs/figures/evaluation.json; None where that is not there.
    engines: what was linted and built; None where the demo did not look.
    """

    units: Sequence[AgentUnit]
    user_units: Sequence[UserUnit]
    wall_s: float
    memory: Sequence[tuple[int, int]]
    model: str
    precision: str
    runtime: str
    weights: Literal["random", "trained"]
    machine: dict[str, JsonValue]
    components: Sequence[ComponentRow]
    transcript: Transcript
    world: str = ""
    evaluation: Results | None = None
    engines: EnginesRun | None = None

    def __post_init__(self) -> None:
        if not self.units or not self.memory:
            raise InputError("the run holds no units or no memory samples", hint="stream a clip of 160 ms or more")
        if not all(unit.stages_ms for unit in self.units):
            raise InputError("a unit of the run has no stage times", hint="stream it through a Session or a Streamer")
        if [u.index for u in self.units] != [u.index for u in self.user_units]:
            raise InputError(
                f"{len(self.units)} agent units do not answer the {len(self.user_units)} user units one by one",
                hint="keep every user unit that the session answered, in order",
            )
