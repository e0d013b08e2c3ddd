"""How the shipped guide was judged: the kept figures of samples.kiosk.evaluation."""

from html import escape

from samples.demo.run import DemoRun
from samples.kiosk.evaluation.table import measures_table


def evaluation(run: DemoRun) -> str:
    """The table of its measures, or where to get one."""
    if run.evaluation is None:
        return (
            '<section><h2>Measures</h2><p class="note">No figures of an evaluation are kept in docs/figures. '
            "<code>python -m samples.kiosk.evaluation out/demo/tiny.wanedge</code> makes them; it takes long.</p>"
            "</section>"
        )
    made = run.evaluation.made
    kept = f"Measured on {made.date[:10]} on {run.evaluation.machine.get('cpu')}, not in this run, by"
    note = f'<p class="note">{escape(kept)} <code>{escape(made.command)}</code>.</p>'
    return measures_table(run.evaluation.measures, note)
