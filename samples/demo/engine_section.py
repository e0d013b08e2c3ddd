"""The section about engines: what the linter said, sizes and times, and which layers TensorRT-RTX saw. Pure."""

from html import escape

from samples.demo.engines import EngineRow, EnginesRun

MIB = 1 << 20
# The layers that say whether the backbone is native: caches updated in place, attention as one operator.
_NATIVE = {"KV_CACHE_UPDATE": "cache updates in place", "ATTENTION_INPUT": "native attentions"}
_SHOWN_KINDS = 6  # of the other layers, the most frequent


def engines(run: EnginesRun | None) -> str:
    """Nothing where the demo did not look at engines."""
    if run is None:
        return ""
    linted = "; ".join(
        f"{each.target} {each.graphs} graphs, {each.errors} errors, {each.warnings} warnings" for each in run.linted
    )
    head = f'<section><h2>Engines</h2><p class="note">Linter: {escape(linted)}.</p>'
    if run.absent:
        return f"{head}<p>No engine was built here. {escape(run.absent)}</p></section>"
    seconds = sum(row.seconds for row in run.engines)
    return (
        f'{head}<p class="note">{len(run.engines)} engines in fp16 by {escape(run.library)}, which needs no GPU, in '
        f"{seconds:.0f} s. They are in the bundle, and none of them was run here. "
        "An engine is larger than its weights because it holds compiled kernels, and the backbone's keeps its weights "
        f"once per block size.</p>{_layers(run)}{_table(run)}</section>"
    )


def _table(run: EnginesRun) -> str:
    by_place = {(row.target, row.component): row for row in run.engines}
    components = list(dict.fromkeys(row.component for row in run.engines))
    heads = "".join(
        f'<th class="number">{escape(name)}, SM {escape(next(r.sm for r in run.engines if r.target == name))}</th>'
        for name in run.targets
    )
    rows = "".join(
        f"<tr><td>{escape(component)}</td>"
        f'<td class="number">{by_place[run.targets[0], component].graph_bytes / MIB:.2f}</td>'
        + "".join(_cell(by_place[name, component]) for name in run.targets)
        + "</tr>"
        for component in components
    )
    sums = "".join(
        f'<td class="number">{sum(r.engine_bytes for r in run.engines if r.target == name) / MIB:.1f} MiB, '
        f"{sum(r.seconds for r in run.engines if r.target == name):.1f} s</td>"
        for name in run.targets
    )
    return (
        '<div class="wide"><table><thead><tr><th>graph</th><th class="number">graph, MiB</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody><tfoot><tr><td>all</td><td></td>{sums}</tr></tfoot></table></div>"
    )


def _cell(row: EngineRow) -> str:
    return f'<td class="number">{row.engine_bytes / MIB:.2f} MiB, {row.seconds:.1f} s</td>'


def _layers(run: EnginesRun) -> str:
    backbones = [row for row in run.engines if row.component == "backbone"]
    if not backbones:
        return ""
    kinds = backbones[0].layers
    native = ", ".join(f"{kinds.get(kind, 0)} {words}" for kind, words in _NATIVE.items())
    rest = [(kind, n) for kind, n in kinds.items() if kind not in _NATIVE][:_SHOWN_KINDS]
    others = ", ".join(f"{n} {kind.lower().replace('_', ' ')}" for kind, n in rest)
    return f'<p class="note">Layers of the backbone: <b>{native}</b>; then {escape(others)}.</p>'
