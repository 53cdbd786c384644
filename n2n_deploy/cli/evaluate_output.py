"""What `n2n-deploy evaluate` prints: the numbers of one model, or of several side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from n2n_deploy.cli.common import out, print_rows

if TYPE_CHECKING:
    from n2n_deploy.evaluation.comparison import Comparison
    from n2n_deploy.evaluation.evaluation_run import EvaluationRun
    from n2n_deploy.statistics.intervals import Interval


def print_evaluation(run: "EvaluationRun", output: Path) -> None:
    """Print the numbers of the set with their intervals, and where the rest is."""
    from n2n_deploy.evaluation.set_evaluation import LABELS

    done, failed = len(run.result.done), len(run.result.failures)
    out.print(f"{done} micrographs evaluated" + (f", {failed} failed" if failed else ""))
    if run.whole is not None:
        table = _table("value", "95 % confidence", *(["truth"] if run.whole.truth else []))
        for name, interval in run.whole.image.items():
            row = [LABELS[name], f"{interval.value:.4g}", interval.text()]
            table.add_row(*row, *([f"{getattr(run.whole.truth, name):.4g}"] if run.whole.truth else []))
        out.print(table)
    _print_end(run.result.remarks, output, run.report)


def print_comparison(found: "Comparison", output: Path) -> None:
    """Print the numbers of each model's set with their intervals, side by side."""
    from n2n_deploy.evaluation.set_evaluation import LABELS

    for result in found.results:
        done, failed = len(result.run.result.done), len(result.run.result.failures)
        name = escape(result.name)
        out.print(f"{name}: {done} micrographs evaluated" + (f", {failed} failed" if failed else ""), soft_wrap=True)
    sets = [result.whole for result in found.results if result.whole is not None]
    if sets:
        columns = (column for result in found.results for column in (escape(result.name), "95 % confidence"))
        table = _table(*columns)
        for name, label in LABELS.items():
            table.add_row(label, *(text for each in sets for text in _texts(each.image[name])))
        gains = (("", "") if result.gain is None else _texts(result.gain, "+.4g") for result in found.results)
        table.add_row("  more than the first", *(text for gain in gains for text in gain))
        out.print(table)
    _print_end(found.remarks, output, found.report)


def _texts(interval: "Interval", digits: str = ".4g") -> tuple[str, str]:
    return f"{interval.value:{digits}}", interval.text()


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _print_end(remarks: Sequence[str], output: Path, report: Path | str) -> None:
    for remark in remarks:
        out.print(f"[yellow]{escape(remark)}[/]", soft_wrap=True)
    print_rows([("output", str(output)), ("report", str(report))])
