"""The engine builder: TensorRT-RTX on a machine without a GPU, small graphs and the whole small model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tests.export.lint_graphs import F16, I8, PAIRS, cache, constant, model, of_type, product, zero
from wanedge.bundle import Bundle, verify
from wanedge.cli.app import build_app
from wanedge_export.engines.builder import BuildOptions, build_engine, require_aliases
from wanedge_export.engines.bundle import build_bundle
from wanedge_export.engines.sizing import BUILD_FACTOR, PROFILE_FACTOR, block_profiles, estimate
from wanedge_export.engines.worker.compile import BuildError, network_aliases, parse_network
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.gpu.plan import Loaded, plan_call
from wanedge_runtimes.nvidia import Gpu
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec
from wanedge_runtimes.targets import TARGETS, Machine, target_named

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")

RTX_40 = target_named("rtx-40")
HERE = Machine(arch="x86_64", system="linux", libraries={"tensorrt-rtx": trt.__version__}, memory_free=8 << 30)
FP16_TARGETS = [target.name for target in TARGETS if target.cpu_only]


def product_spec() -> GraphSpec:
    return GraphSpec(
        component="product",
        opset=24,
        inputs=(TensorSpec(name="x", dtype="float16", shape=(1, 12, 64)),),
        outputs=(TensorSpec(name="y", dtype="float16", shape=(1, 12, 32)),),
    )


def cache_spec(update: str = "in_place") -> GraphSpec:
    state = {"name": "c", "past": "p", "present": "n", "dtype": "float16", "shape": (1, 2, 64, 16), "update": update}
    return GraphSpec(
        component="cache",
        opset=24,
        inputs=(
            TensorSpec(name="u", dtype="float16", shape=(1, 2, 3, 16)),
            TensorSpec(name="w", dtype="int64", shape=(1,)),
        ),
        outputs=(),
        states=(StateSpec.model_validate(state),),
    )


def saved(graph: onnx.ModelProto, folder: Path, name: str = "graph.onnx") -> Path:
    folder.mkdir(exist_ok=True)
    onnx.save(graph, folder / name)
    return folder / name


@pytest.fixture
def bundle(half_mini: Bundle) -> Bundle:
    return half_mini


@pytest.mark.parametrize("name", FP16_TARGETS)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantized_products_build_where_the_hardware_has_them(name: str, kind: str, tmp_path: Path) -> None:
    dtype = onnx.TensorProto.INT8 if kind == "int8" else onnx.TensorProto.FLOAT8E4M3FN
    graph, target = saved(product(quantized=dtype), tmp_path), target_named(name)
    if kind in target.precisions:
        built = build_engine(trt, "tensorrt-rtx", graph, product_spec(), target)
        assert built.info.layers["QUANTIZE"] == 1
        assert built.info.sm == (target.sm,)
    else:
        with pytest.raises(BuildError, match="fp8"):
            build_engine(trt, "tensorrt-rtx", graph, product_spec(), target)


def test_rebuilds_are_byte_identical_from_any_folder_and_the_log_names_none(tmp_path: Path) -> None:
    one = saved(product(), tmp_path / "one")
    two = saved(product(), tmp_path / "two")
    first, second = (build_engine(trt, "tensorrt-rtx", g, product_spec(), RTX_40) for g in (one, two))
    assert first.content == second.content
    assert first.info == second.info
    assert "graph.onnx" in first.log
    assert str(tmp_path) not in first.log


def test_a_cache_is_in_place_and_the_runtime_plans_with_it(tmp_path: Path) -> None:
    built = build_engine(trt, "tensorrt-rtx", saved(cache(), tmp_path), cache_spec(), RTX_40)
    assert {t.name: t.alias for t in built.info.tensors if t.alias} == {"n": "p"}
    assert built.info.layers["KV_CACHE_UPDATE"] == 1
    plan = plan_call(Loaded.of(built.info), cache_spec(), {})
    table = dict(plan.bindings[0])
    assert table["p"] == table["n"]


def test_a_spec_that_swaps_what_the_network_writes_in_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="'n'"):
        build_engine(trt, "tensorrt-rtx", saved(cache(), tmp_path), cache_spec("swap"), RTX_40)
    network, _parser, _builder = parse_network(trt, saved(cache(), tmp_path))
    assert network_aliases(network) == {"n": "p"}
    with pytest.raises(BuildError, match="'n'"):
        require_aliases(cache_spec("swap"), network_aliases(network))


def test_a_spec_of_another_dtype_is_refused(tmp_path: Path) -> None:
    spec = product_spec().model_copy(update={"outputs": (TensorSpec(name="y", dtype="float32", shape=(1, 12, 32)),)})
    with pytest.raises(BuildError, match="'y' as float"):
        build_engine(trt, "tensorrt-rtx", saved(product(), tmp_path), spec, RTX_40)


def test_a_graph_that_tensorrt_refuses_is_an_error_in_its_own_words(tmp_path: Path) -> None:
    (pair,) = (p for p in PAIRS if p.rule == "attention-softcap")
    spec = GraphSpec(component="attend", opset=24, inputs=(), outputs=())
    with pytest.raises(BuildError, match="softcap") as error:
        build_engine(trt, "tensorrt-rtx", saved(pair.bad, tmp_path), spec, RTX_40)
    assert "wanedge lint" in error.value.hint


def test_progress_is_reported_to_the_end(tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    build_engine(
        trt,
        "tensorrt-rtx",
        saved(product(), tmp_path),
        product_spec(),
        RTX_40,
        progress=lambda *step: reported.append(step),
    )
    assert reported
    phases = {phase for phase, _, _ in reported}
    assert all(any(p == phase and done == steps for p, done, steps in reported) for phase in phases)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (BuildOptions(timing_cache=Path("timing.cache")), "timing cache"),
        (BuildOptions(version_compatible=True), "one release"),
        (BuildOptions(compatibility="ampere-plus"), "compute capabilities"),
        (BuildOptions(refittable=True), "where a GPU is"),
        (BuildOptions(stripped=True), "where a GPU is"),
    ],
)
def test_an_option_that_tensorrt_rtx_does_not_have_here_is_refused(
    options: BuildOptions, word: str, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=word):
        build_engine(trt, "tensorrt-rtx", saved(product(), tmp_path), product_spec(), RTX_40, options=options)


def test_int8_weights_make_a_smaller_engine_than_fp16_ones(tmp_path: Path) -> None:
    width = 2048
    x = ("x", F16, [1, 4, width])
    half = model(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        [x],
        [("y", F16, [1, 4, width])],
        [constant("w", np.ones((width, width), np.float16))],
    )
    spec = product_spec().model_copy(
        update={
            "inputs": (TensorSpec(name="x", dtype="float16", shape=(1, 4, width)),),
            "outputs": (TensorSpec(name="y", dtype="float16", shape=(1, 4, width)),),
        }
    )
    engines = [
        build_engine(trt, "tensorrt-rtx", saved(graph, tmp_path, name), spec, RTX_40)
        for graph, name in ((half, "half.onnx"), (_wide_product(width), "int8.onnx"))
    ]
    fp16, int8 = (len(engine.content) for engine in engines)
    assert int8 < 0.7 * fp16


def _wide_product(width: int) -> onnx.ModelProto:
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        make("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        make("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        make("MatMul", ["xd", "wd"], ["y"]),
    ]
    constants = [
        constant("xs", np.float16(0.02)),
        zero("xz", I8),
        of_type("w", I8, [width, width]),
        constant("ws", np.full(width, 0.01, np.float16)),
        zero("wz", I8, [width]),
    ]
    return model(nodes, [("x", F16, [1, 4, width])], [("y", F16, [1, 4, width])], constants)


def test_profiles_are_the_units_block_sizes(bundle: Bundle) -> None:
    config = bundle.model
    specs = {name: bundle.graph(name, "fp16")[1] for name in ("backbone", "text_embed", "text_head", "flow_in")}
    user = config.text.user_slots + config.audio.tokens + config.user_video.tokens
    media = config.audio.tokens + config.agent_video.tokens
    sizes = [profile["S"] for profile in block_profiles(config, specs["backbone"])]
    assert sizes == [(1, 1, 1), (user, user, user), (media, media, media), (1, config.prefill, 46)]
    (one,) = block_profiles(config, specs["backbone"], as_range=True)
    assert one["S"] == (1, media, 46)  # the smaller ring's capacity: see profiles.py
    assert block_profiles(config, specs["flow_in"]) == ()
    stranger = specs["backbone"].model_copy(update={"component": "stranger"})
    with pytest.raises(BuildError, match="stranger"):
        block_profiles(config, stranger)


def test_the_estimate_counts_weights_states_and_the_largest_block(bundle: Bundle) -> None:
    _, spec = bundle.graph("backbone", "fp16")
    small, large = (estimate(spec, 1000, ({"S": (1, n, n)},)) for n in (1, 12))
    assert small.run > 1000 + spec.state_bytes
    assert large.run > small.run
    twice = estimate(spec, 1000, ({"S": (1, 1, 1)}, {"S": (1, 12, 12)}))
    assert (twice.run, twice.build - large.build) == (large.run, PROFILE_FACTOR * 1000)
    assert estimate(spec, 2000, ({"S": (1, 12, 12)},)).build - large.build > 1000 * BUILD_FACTOR


@pytest.mark.slow
def test_the_whole_small_model_builds_and_its_engines_are_in_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    result = build_bundle(bundle, RTX_40, "fp16", HERE, cpu_only=True, every_component=True, output=tmp_path / "built")
    made = Bundle.open(tmp_path / "built")
    variant = made.variant("rtx-40-fp16")
    assert (variant.runtime, variant.target, variant.precision) == ("tensorrt-rtx", "rtx-40", "fp16")
    assert set(variant.graphs) == set(bundle.variant("fp16").graphs)
    assert verify(made.root).ok
    backbone = variant.engines["backbone"]
    layers = len(bundle.model.backbone.layout)
    assert backbone.layers["KV_CACHE_UPDATE"] == 2 * layers
    assert backbone.layers["ATTENTION_INPUT"] == backbone.layers["ATTENTION_OUTPUT"] == layers
    assert len(backbone.profiles) == 4
    for component in variant.engines:
        _, spec = made.graph(component, variant)
        plan_call(Loaded.of(variant.engines[component]), spec, dict.fromkeys(spec.dynamic_dims, 1))
    again = build_bundle(bundle, RTX_40, "fp16", HERE, cpu_only=True, output=tmp_path / "again")
    first = {b.component: b.engine_bytes for b in result.built}
    assert {b.component: b.engine_bytes for b in again.built}.items() <= first.items()
    for name, files in again.variant.graphs.items():
        assert again.bundle.path(files.graph).read_bytes() == made.path(variant.graphs[name].graph).read_bytes(), name
    assert all(again.variant.engines[name] == variant.engines[name] for name in again.variant.engines)
    assert all(b.engine_bytes > 0 for b in result.built)


def test_another_precision_or_device_is_refused_with_the_way_out(bundle: Bundle) -> None:
    with pytest.raises(BuildError, match="does not compute in fp8"):
        build_bundle(bundle, target_named("rtx-30"), "fp8", HERE, cpu_only=True)
    with pytest.raises(BuildError, match=r"no variants.*int8"):
        build_bundle(bundle, RTX_40, "int8", HERE, cpu_only=True)
    with pytest.raises(BuildError, match=r"SM 9\.0"):
        build_bundle(bundle, target_named("h100"), "fp16", HERE, cpu_only=True)
    with pytest.raises(BuildError, match="built on its own device"):
        build_bundle(bundle, target_named("jetson-orin-nano"), "fp16", HERE)
    with pytest.raises(BuildError, match="not installed"):
        build_bundle(bundle, RTX_40, "fp16", replace(HERE, libraries={}))
    with pytest.raises(BuildError, match="CPU runs graphs"):
        build_bundle(bundle, target_named("cpu"), "fp16", HERE)
    with pytest.raises(InputError, match="no library"):
        target_named("h100").library_named("tensorrt-rtx")


def test_too_little_memory_is_said_before_anything_is_built(bundle: Bundle) -> None:
    with pytest.raises(BuildError, match="of memory"):
        build_bundle(bundle, RTX_40, "fp16", replace(HERE, memory_free=1 << 10), cpu_only=True)


def test_tensorrt_times_kernels_on_the_device_and_builds_one_engine_at_a_time(bundle: Bundle) -> None:
    target = target_named("h100")
    (library,) = [each for each in target.libraries if each.name == "tensorrt"]
    there = replace(
        HERE, gpus=(Gpu(name="H100", capability="9.0", memory=80 << 30),), libraries={"tensorrt": library.version}
    )
    with pytest.raises(BuildError, match="one engine at a time"):
        build_bundle(bundle, target, "fp16", there, at_once=2)


def test_what_the_linter_calls_an_error_is_not_built(bundle: Bundle) -> None:
    with pytest.raises(BuildError, match="attention-fp32"):
        build_bundle(bundle, RTX_40, "fp16", HERE, cpu_only=True, source="fp32")


@pytest.mark.slow
def test_the_command_builds_into_a_copy_and_prints_one_document(bundle: Bundle, tmp_path: Path) -> None:
    arguments = ["build", str(bundle.root), "--target", "rtx-30", "--cpu-only", "-o", str(tmp_path / "b"), "--json"]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["variant"]["name"] == "rtx-30-fp16"
    assert {b["component"] for b in document["built"]} == set(document["variant"]["engines"])
