"""pipeline.yaml: what its author says about a pipeline. Everything that the files say themselves is read from them.

name: gtcrn
inputs:
  noisy: {type: audio, sample_rate: 16000}
outputs:
  clean: {type: audio, sample_rate: 16000}
steps:
  - {component: analysis, transform: stft, window: 512, hop: 256, takes: {audio: noisy}, gives: {spectrum: heard}}
  - component: gtcrn
    file: gtcrn_simple.onnx
    takes: {mix: heard}
    gives: {enh: cleaned}
    states: {conv_cache: conv_cache_out, tra_cache: tra_cache_out, inter_cache: inter_cache_out}
  - {component: synthesis, transform: istft, window: 512, hop: 256, takes: {spectrum: cleaned}, gives: {audio: clean}}
"""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, PositiveInt, ValidationError, model_validator

from wanedge.pipeline.config import PortType
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict

Transform = Literal["frame", "stft", "istft", "irfft", "overlap_add"]
Window = Literal["sqrt_hann", "hann", "none"]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"


class PortDescription(Strict):
    """type: what it is; its dtype and shape are the graph's. sample_rate: Hz, of audio."""

    type: PortType = "tensor"
    sample_rate: PositiveInt | None = None


class StateDescription(Strict):
    """A state's output, and what it holds before the first unit: one value everywhere."""

    present: str
    initial: float = Field(0.0, allow_inf_nan=False)


class StepDescription(Strict):
    """One component: an ONNX file, a torch component, or a transform.

    file: relative to pipeline.yaml. torch: "file.py:name" of a `Component`, or of what makes one without arguments.
    takes, gives: the graph's inputs and outputs -> names of values. states: input -> output that comes back as it.
    dims: sizes of named axes. shapes: whole shapes of inputs whose axes have no names. constants: inputs that never
    change. transform: see transforms.py; window: its length in samples, hop: new samples of a unit.
    """

    component: str = Field(pattern=_NAME, max_length=64)
    file: str | None = None
    torch: str | None = None
    transform: Transform | None = None
    takes: dict[str, str] = Field(default_factory=dict)
    gives: dict[str, str] = Field(default_factory=dict)
    states: dict[str, str | StateDescription] = Field(default_factory=dict)
    dims: dict[str, PositiveInt] = Field(default_factory=dict)
    shapes: dict[str, tuple[PositiveInt, ...]] = Field(default_factory=dict)
    constants: dict[str, int | float | bool | list[int] | list[float]] = Field(default_factory=dict)
    window: PositiveInt | None = None
    hop: PositiveInt | None = None
    shape: Window = Field("sqrt_hann", description="of a transform's window")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        sources = [name for name in ("file", "torch", "transform") if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError(
                f"step {self.component!r} names {sources or 'nothing'}; name one of file, torch, transform"
            )
        if self.transform is None and (self.window or self.hop or "shape" in self.model_fields_set):
            raise ValueError(f"step {self.component!r}: window, hop and shape are a transform's")
        if self.transform is not None:
            if self.window is None or self.hop is None:
                raise ValueError(f"step {self.component!r}: a transform needs its window and its hop, in samples")
            foreign = [n for n in ("states", "dims", "shapes", "constants") if getattr(self, n)]
            if foreign:
                raise ValueError(f"step {self.component!r}: a transform has no {foreign[0]} of its own")
        if self.torch is not None and (self.states or self.constants or self.shapes):
            raise ValueError(f"step {self.component!r}: a torch component says its states and shapes itself, in spec()")
        return self


class Description(Strict):
    """The whole file. unit_ms: where no audio says how long a unit lasts."""

    name: str = Field(pattern=_NAME, max_length=64)
    unit_ms: float | None = Field(None, gt=0, allow_inf_nan=False)
    inputs: dict[str, PortDescription] = Field(min_length=1)
    outputs: dict[str, PortDescription] = Field(min_length=1)
    steps: tuple[StepDescription, ...] = Field(min_length=1)
    weights_note: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InputError: missing, not YAML, an unknown key or a wrong value, and where."""
        hint = "docs/bring-your-own-component.md shows a whole file"
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}", hint=f"ls {path.parent}") from error
        except yaml.YAMLError as error:
            raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}", hint=hint) from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{path}: {_first(error, content)}", hint=hint) from error


def _first(error: ValidationError, content: object) -> str:
    """The first finding, with the step's name in place of its number."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    if where[:1] == ["steps"] and len(where) > 1 and isinstance(content, dict):
        step = content["steps"][int(where[1])]
        named = step.get("component") if isinstance(step, dict) else None
        where = [f"step {named or int(where[1]) + 1!r}", *where[2:]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such key"
    return f"{'.'.join(where)}: {message}" if where else message
