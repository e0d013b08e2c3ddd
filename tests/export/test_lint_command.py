"""`wanedge lint`: exit codes, JSON, and the graphs that a device cannot have."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from wanedge.bundle import Bundle
from wanedge.cli.app import build_app


def lint(*arguments: str | Path) -> Result:
    return CliRunner().invoke(build_app(), ["lint", *map(str, arguments)])


def test_float32_graphs_are_errors_for_tensorrt_rtx_and_fine_for_the_cpu(mini_bundle: Bundle) -> None:
    refused = lint(mini_bundle.root, "--target", "rtx-40")
    assert refused.exit_code == 1
    assert "attention-fp32" in refused.stdout
    assert "--precision fp16" in refused.stdout.replace("\n", " ")
    passed = lint(mini_bundle.root, "--target", "cpu")
    assert passed.exit_code == 0, passed.stdout


def test_json_holds_every_finding(mini_bundle: Bundle) -> None:
    report = json.loads(lint(mini_bundle.root, "--target", "rtx-40", "--json").stdout)
    assert report["ok"] is False
    assert report["variants"] == ["fp32"]
    assert {f["rule"] for f in report["findings"]} == {"attention-fp32"}
    assert all(f["node"] and f["hint"] and f["lifted"] for f in report["findings"])


def test_a_decomposed_only_device_gets_the_decomposed_graphs(mini_bundle: Bundle) -> None:
    chosen = json.loads(lint(mini_bundle.root, "--target", "jetson-agx-orin", "--json").stdout)
    assert chosen["variants"] == ["fp32-decomposed"]
    assert chosen["findings"] == []


def test_the_opset_24_graph_for_a_decomposed_only_device_is_refused_with_the_mend(mini_bundle: Bundle) -> None:
    result = lint(mini_bundle.root, "--target", "jetson-orin-nano", "--variant", "fp32", "--json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)["findings"]
    assert {f["rule"] for f in findings} == {"operator-version", "opset"}
    assert all("--profile decomposed" in f["hint"] for f in findings)


def test_misuse_lists_what_there_is(mini_bundle: Bundle) -> None:
    unknown = lint(mini_bundle.root, "--target", "rtx-60")
    assert unknown.exit_code == 2
    assert "rtx-40" in unknown.stderr
    library = lint(mini_bundle.root, "--target", "h100", "--library", "tensorrt-rtx")
    assert library.exit_code == 2
    assert "tensorrt" in library.stderr
