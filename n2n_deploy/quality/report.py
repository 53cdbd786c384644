"""The report: one self-contained HTML page about a run and its micrographs.

The page fetches nothing. Rows are light JSON; what a row shows when it is opened (pictures, curves) lies in a
script block of its own, which the browser neither parses nor decodes before, so thousands open at once.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from n2n_deploy.io.atomic import atomic_write
from n2n_deploy.quality.entries import MicrographEntry, RunInfo
from n2n_deploy.quality.flags import flag_outliers

_FAILED = ("failed", "refused")


def write_report(path: Path, run: RunInfo, entries: Sequence[MicrographEntry]) -> None:
    """Write the page; outliers among the entries are flagged first.

    Args:
        path: the HTML file.
        run: what ran.
        entries: its micrographs, in the order of the table.

    Raises:
        HostError: the file cannot be written.
    """
    import jinja2

    entries = flag_outliers(entries)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_resource("report.html.j2"))
    with atomic_write(path) as stream:
        parts = template.generate(
            run=run,
            facts=_facts(run),
            counts=_counts(entries),
            failures=[entry for entry in entries if entry.status in _FAILED],
            style=_safe(_resource("report.css")),
            script=_safe(_resource("panel.js") + _resource("report.js")),
            rows=_safe(_json([_row(entry) for entry in entries])),
            details=_details(entries),
        )
        for part in parts:
            stream.write(part.encode())


def _resource(name: str) -> str:
    return (resources.files("n2n_deploy.quality") / "templates" / name).read_text(encoding="utf-8")


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _json(value: Any) -> str:
    """Write JSON that may stand within a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _facts(run: RunInfo) -> dict[str, Mapping[str, Any]]:
    facts = {
        "Throughput": run.throughput,
        "Model": run.model,
        "Recipe": run.recipe,
        "Options": run.options,
        "Versions": run.versions,
        "Hardware": run.hardware,
    }
    return {title: values for title, values in facts.items() if values}


def _counts(entries: Sequence[MicrographEntry]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.status] = counts.get(entry.status, 0) + 1
    flagged = sum(bool(entry.flags) for entry in entries)
    return {**counts, "flagged": flagged} if flagged else counts


def _row(entry: MicrographEntry) -> dict[str, Any]:
    """Return what the table itself shows and sorts by."""
    kept = entry.views.power_kept if entry.views else None
    return {
        "name": entry.name,
        "status": entry.status,
        "flags": [flag.kind for flag in entry.flags],
        "defocus": entry.defocus,
        "kept": None if kept is None else 100 * kept,
        "snr_noisy": entry.snr[0] if entry.snr else None,
        "snr_denoised": entry.snr[1] if entry.snr else None,
        "seconds": entry.seconds,
    }


def _details(entries: Sequence[MicrographEntry]) -> Iterator[Any]:
    for index, entry in enumerate(entries):
        block = _json(entry.as_json())
        yield _safe(f'<script type="application/json" id="entry-{index}">{block}</script>\n')
