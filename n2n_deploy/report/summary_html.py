"""The account of a batch as a piece of HTML, which notebooks show in place of the object."""

from collections.abc import Mapping
from html import escape
from typing import Any

_SHOWN = 10
"""Failures that are listed; the rest are counted."""

_COUNTS = {
    "denoised": "denoised",
    "already_done": "already finished",
    "kept": "kept from other runs",
    "failed": "failed",
    "not_begun": "not started",
}


def summary_html(facts: Mapping[str, Any]) -> str:
    """Return a table of what a run did.

    Args:
        facts: as in `summary.json`.
    """
    rows = [(label, str(facts[key])) for key, label in _COUNTS.items() if facts[key] or key == "denoised"]
    if facts["denoised"] and facts["megapixels_per_second"]:
        rows.append(("time", f"{facts['seconds']:.1f} s, {facts['megapixels_per_second']:.2f} Mpx/s"))
    if facts["gave_up"]:
        rows.append(("ended early", facts["gave_up"]))
    rows += [(name, facts[name]) for name in ("table", "report") if facts[name]]
    failures = list(facts["failures"].items())
    rows += [(f"failed: {name}", reason) for name, reason in failures[:_SHOWN]]
    if len(failures) > _SHOWN:
        rows.append(("failed", f"{len(failures) - _SHOWN} more; see failed.star and summary.json in {facts['output']}"))
    rows += [(f"note: {name}", note) for name in ("input", "ledger") for note in facts["notes"].get(name, ())]
    cells = (f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in rows)
    style = "<style scoped>th, td { text-align: left !important; vertical-align: top; }</style>"
    return f"<div>{style}<table>{''.join(cells)}</table></div>"
