"""manifest.json: what a bundle holds. docs/bundle.md begins with an example."""

import hashlib
import json
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from wanedge.bundle import paths
from wanedge.bundle.errors import BundleError, DamagedBundle, UnsafePath, UnsupportedBundle
from wanedge.config import ModelConfig
from wanedge.pipeline.config import Pipeline, tensor_faults
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.spec import GraphSpec, Profile
from wanedge_runtimes.strict import Strict, parse_json, repeated
from wanedge_runtimes.tensorrt.engine import EngineInfo

SCHEMA_VERSION = 1
_UPGRADE = "pip install -U wanedge"
_COPY_AGAIN = "copy the bundle again from its source"
_HINTS: dict[type[BundleError], str] = {
    UnsafePath: "do not use this bundle; get it again from its source",
    UnsupportedBundle: f"if a newer wanedge made the bundle: {_UPGRADE}; otherwise export it again",
    DamagedBundle: f"{_COPY_AGAIN}, or export it again",
}


def _relative(path: str) -> str:
    if reason := paths.problem(path):
        raise PydanticCustomError("unsafe_path", "{path}: {reason}", {"path": path, "reason": reason})
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)]


_WAN_STREAMER, _PIPELINE = "wan-streamer", "pipeline"


def _kind(value: object) -> object:
    """A Wan-Streamer configuration names no kind: bundles had no other model once."""
    return value.get("kind", _WAN_STREAMER) if isinstance(value, dict) else getattr(value, "kind", _WAN_STREAMER)


AnyModel = Annotated[
    Annotated[ModelConfig, Tag(_WAN_STREAMER)] | Annotated[Pipeline, Tag(_PIPELINE)], Discriminator(_kind)
]


class Provenance(Strict):
    """Origin of a bundle: wanedge's version, date and command. Passed in, so that builds can be repeated."""

    wanedge: str
    date: AwareDatetime
    command: str

    @classmethod
    def now(cls, command: str) -> Self:
        """This version of wanedge, at SOURCE_DATE_EPOCH if that is set (reproducible-builds.org) and now if not."""
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        try:
            date = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
        except (ValueError, OverflowError, OSError) as error:
            hint = "set it to seconds since 1970, or leave it out: unset SOURCE_DATE_EPOCH"
            raise InputError(f"SOURCE_DATE_EPOCH is {epoch!r}, which is no time", hint=hint) from error
        return cls(wanedge=version("wanedge"), date=date.replace(microsecond=0), command=command)


class FileEntry(Strict):
    """Content of one file: SHA-256 in lower-case hex, and its size."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=2**62, strict=True)


class GraphFiles(Strict):
    """One component's files in one variant.

    graph: the ONNX graph or the engine. data: its external weights, if any. spec: which of the component's
    GraphSpecs it keeps (a precision may change dtypes, so a component may have several).
    """

    graph: RelativePath
    data: tuple[RelativePath, ...] = ()
    spec: str


class Variant(Strict):
    """A precision of the model for one runtime and target. `graphs` is by component.

    engines: by component, what each engine is; then `graphs` holds engines. Empty where it holds ONNX graphs.
    """

    name: Label
    precision: Label
    runtime: Label
    target: Label
    profile: Profile = "portable"
    graphs: dict[str, GraphFiles] = Field(min_length=1)
    engines: dict[str, EngineInfo] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _engines_are_all_or_none(self) -> Self:
        if self.engines and self.engines.keys() != self.graphs.keys():
            differ = sorted(self.engines.keys() ^ self.graphs.keys())
            raise ValueError(f"variant {self.name!r} must describe an engine for every graph or none; differ: {differ}")
        for component, engine in self.engines.items():
            _relative(engine.log)
            if engine.library != self.runtime:
                raise ValueError(
                    f"variant {self.name!r} is for {self.runtime}, its {component!r} is of {engine.library}"
                )
        return self

    def __str__(self) -> str:
        return f"{self.name} ({self.precision}, {self.runtime}, {self.target}, {self.profile})"


class Contents(Strict):
    """Contents of a manifest except the list of files.

    model: a Wan-Streamer configuration or a pipeline. tokenizer: None for a pipeline.

    weights: whether the model was trained or only initialised; `weights_note` says more in plain words.
    weights_sha256: of the weights' file that the graphs were exported from; None where it is not known.
    components: component -> name of a spec ("portable", "decomposed", "portable-fp16", ...) -> GraphSpec.
    """

    made: Provenance
    model: AnyModel
    weights: Literal["trained", "random"]
    weights_note: str = ""
    weights_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    tokenizer: RelativePath | None = None
    components: dict[Label, dict[Label, GraphSpec]]
    variants: tuple[Variant, ...]

    @property
    def named_paths(self) -> set[str]:
        """Every path that something in here refers to."""
        graphs = [graph for variant in self.variants for graph in variant.graphs.values()]
        logs = {engine.log for variant in self.variants for engine in variant.engines.values()}
        tokenizer = set() if self.tokenizer is None else {self.tokenizer}
        return {*tokenizer, *logs, *(path for g in graphs for path in (g.graph, *g.data))}

    def with_variant(
        self, variant: Variant, specs: dict[str, dict[str, GraphSpec]], provenance: Provenance
    ) -> "Contents":
        """These contents plus `variant` (in place of one of the same name) and the specs it brings along."""
        components = dict(self.components)
        for component, added in specs.items():
            components[component] = {**components.get(component, {}), **added}
        others = tuple(v for v in self.variants if v.name != variant.name)
        parts = {name: getattr(self, name) for name in Contents.model_fields}
        return Contents(**{**parts, "made": provenance, "components": components, "variants": (*others, variant)})

    @model_validator(mode="after")
    def _specs_are_under_their_names(self) -> Self:
        for component, specs in self.components.items():
            for name, spec in specs.items():
                if spec.component != component:
                    raise ValueError(f"components.{component}.{name} is the spec of {spec.component!r}")
        return self

    @model_validator(mode="after")
    def _has_what_its_model_needs(self) -> Self:
        if isinstance(self.model, ModelConfig) == (self.tokenizer is None):
            raise ValueError("a Wan-Streamer model has a tokenizer, and a pipeline has none")
        return self

    @model_validator(mode="after")
    def _pipelines_fit(self) -> Self:
        if not isinstance(self.model, Pipeline):
            return self
        for variant in self.variants:
            if missing := sorted(set(self.model.components) - variant.graphs.keys()):
                raise ValueError(f"variant {variant.name!r} has no graph for the pipeline's {missing[0]!r}")
            specs = {c: self.components.get(c, {}).get(f.spec) for c, f in variant.graphs.items()}
            known = {component: spec for component, spec in specs.items() if spec is not None}
            if len(known) == len(specs) and (fault := next(tensor_faults(self.model, known), None)):
                raise ValueError(f"variant {variant.name!r}: {fault}")
        return self

    @model_validator(mode="after")
    def _variants_have_their_specs(self) -> Self:
        names = [variant.name for variant in self.variants]
        if twice := repeated(names):
            raise ValueError(f"variant names must be unique; repeated: {twice}")
        for variant in self.variants:
            for component, files in variant.graphs.items():
                specs = self.components.get(component)
                if specs is None:
                    raise ValueError(f"variant {variant.name!r} has a graph for an unknown component {component!r}")
                if files.spec not in specs:
                    raise ValueError(f"variant {variant.name!r}: {component!r} has no spec named {files.spec!r}")
                if specs[files.spec].profile != variant.profile:
                    raise ValueError(f"variant {variant.name!r} is {variant.profile}, its {component!r} spec is not")
        return self


class Manifest(Contents):
    """manifest.json, version 1."""

    schema_version: Literal[1] = 1
    files: dict[RelativePath, FileEntry]

    @classmethod
    def of(cls, contents: Contents, files: dict[str, FileEntry], where: Path) -> "Manifest":
        """The manifest of `contents` over `files`. Raises BundleError or UnsafePath when they contradict."""
        parts = {name: getattr(contents, name) for name in Contents.model_fields}
        try:
            return cls(**parts, files=dict(sorted(files.items())))
        except ValidationError as error:
            kind, finding = _worst(error)
            hint = "correct the files or the contents given to finish()"
            raise kind(f"{where} was not written: its manifest {finding}", hint=hint) from error

    @property
    def contents(self) -> Contents:
        return Contents(**{name: getattr(self, name) for name in Contents.model_fields})

    @property
    def total_bytes(self) -> int:
        """Bytes of all listed files."""
        return sum(entry.bytes for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """The file's content; the same manifest always gives the same bytes."""
        fields = self.model_dump(mode="json")
        ordered = {"schema_version": fields.pop("schema_version"), **fields}
        return (json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @model_validator(mode="after")
    def _paths_are_files(self) -> Self:
        if reason := paths.conflict([*paths.CONTROL_FILES, *self.files]):
            raise PydanticCustomError("unsafe_path", "files: {reason}", {"reason": reason})
        if absent := self.named_paths - self.files.keys():
            raise ValueError(f"{sorted(absent)[0]!r} is named and not listed in files")
        return self


def parse_manifest(raw: bytes, where: Path) -> Manifest:
    """The manifest in `raw`; `where` is for messages.

    Raises UnsupportedBundle for another schema version or an unknown field, UnsafePath for a path that is not
    allowed, and DamagedBundle for everything else.
    """
    content = _load_json(raw, where)
    _require_known_version(content.get("schema_version"), where)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        kind, finding = _worst(error)
        raise kind(f"{where}: manifest.json {finding}", hint=_HINTS[kind]) from error


def seal(raw: bytes) -> bytes:
    """manifest.sha256 for the manifest's bytes, in the form that `sha256sum --check` reads."""
    return f"{hashlib.sha256(raw).hexdigest()}  {paths.MANIFEST}\n".encode()


def _load_json(raw: bytes, where: Path) -> dict[str, Any]:
    try:
        content = parse_json(raw)
    except ValueError as error:
        raise DamagedBundle(f"{where}: manifest.json is not valid JSON: {error}", hint=_COPY_AGAIN) from error
    if not isinstance(content, dict):
        raise DamagedBundle(f"{where}: manifest.json is not an object", hint=_COPY_AGAIN)
    return content


def _require_known_version(version: object, where: Path) -> None:
    if type(version) is not int or version < 1:
        raise DamagedBundle(
            f"{where}: manifest.json has no usable schema_version: {version!r}",
            hint=_COPY_AGAIN,
        )
    if version > SCHEMA_VERSION:
        raise UnsupportedBundle(
            f"{where}: made by a newer wanedge (schema version {version}; this one reads {SCHEMA_VERSION})",
            hint=_UPGRADE,
        )


def _worst(error: ValidationError) -> tuple[type[BundleError], str]:
    """One sentence about the worst of pydantic's findings, and the error to raise."""
    kinds = {str(each["type"]): each for each in reversed(error.errors())}
    if unsafe := kinds.get("unsafe_path"):
        return UnsafePath, f"holds an unsafe path: {unsafe['msg']}"
    if other := kinds.get("union_tag_invalid"):
        return UnsupportedBundle, f"holds an unknown kind of model: {other['ctx']['tag']!r}"
    if unknown := kinds.get("extra_forbidden"):
        return UnsupportedBundle, f"has an unknown field {_field(unknown['loc'])!r}"
    first = error.errors()[0]
    place = f" at {_field(first['loc'])}" if first["loc"] else ""
    return DamagedBundle, f"is wrong{place}: {first['msg'].removeprefix('Value error, ')}"


def _field(location: tuple[int | str, ...]) -> str:
    # Behind "model" stands pydantic's name of the kind, which the file does not have.
    kind = location[:1] == ("model",) and location[1:2] in ((_WAN_STREAMER,), (_PIPELINE,))
    return ".".join(map(str, (*location[:1], *location[2:]) if kind else location))
