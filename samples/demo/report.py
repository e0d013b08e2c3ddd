"""The demo's report: report.html, one file without external resources, and report.json."""

from html import escape
from pathlib import Path

from samples.demo import sections
from samples.demo.conversation import conversation, text
from samples.demo.engine_section import engines
from samples.demo.evaluation import evaluation
from samples.demo.quantized import quantized
from samples.demo.run import DemoRun
from samples.demo.summary import Summary, summarise
from wanedge.atomic import staged_file

_CSS = Path(__file__).parents[1] / "kiosk" / "evaluation" / "report.css"


def write_report(run: DemoRun, out: Path, *, clip: str = "visitor.mp4", reply: str = "reply.mp4") -> Summary:
    """Write `out`/report.html and `out`/report.json. clip, reply: the two videos' paths, relative to `out`."""
    summary = summarise(run)
    summary.write(out / "report.json")
    with staged_file(out / "report.html") as staged:
        staged.write_text(page(run, summary, clip, reply, quantized(out)), encoding="utf-8")
    return summary


def page(run: DemoRun, summary: Summary, clip: str, reply: str, quantization: str = "") -> str:
    """The report as HTML. quantization: the section on the 8-bit variant."""
    body = "\n".join(
        (
            sections.verdict(run, summary),
            sections.weights_banner(run),
            sections.tiles(run, summary),
            conversation(run, clip, reply),
            *((text(run), evaluation(run)) if run.weights == "trained" else ()),
            quantization,
            sections.latency(run, summary),
            sections.stages(summary),
            sections.memory(run, summary),
            *(() if run.weights == "trained" else (text(run),)),
            sections.components(run),
            engines(run.engines),
            sections.machine(run),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>wanedge demo: {escape(run.model)}, {escape(run.precision)}</title>"
        f"<style>{_CSS.read_text(encoding='utf-8')}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )
