"""The report: one self-contained HTML page about a run and its micrographs.

The page loads nothing from elsewhere. The rows are one small JSON block. The pictures and curves of each row are in a
script block of their own, which the browser neither parses nor decodes until the row opens, so a page with thousands
of micrographs opens at once.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.report.entries import Flag, MicrographEntry, RunInfo
from n2n_deploy.report.flags import OUTLIERS, outlier_flags
from n2n_deploy.report.run_info import facts

_FAILED = ("failed", "refused")
_ENTRY = '<script type="application/json" id="entry-'


def write_report(path: Path, run: RunInfo, entries: Iterable[MicrographEntry]) -> None:
    """Write the page, and flag the entries that are outliers.

    Args:
        path: the HTML file.
        run: what ran.
        entries: its micrographs, in the order of the table. They are iterated twice and not kept, so an iterable
            that reads each entry from disk needs little memory.

    Raises:
        HostError: the file cannot be written.
    """
    import jinja2

    rows: list[dict[str, Any]] = []
    failures = []
    for entry in entries:
        rows.append(_row(entry))
        if entry.status in _FAILED:
            failures.append(replace(entry, views=None, ssnr=None))
    outliers = outlier_flags([row["snr_noisy"] for row in rows], [row["kept"] for row in rows])
    for index, flags in outliers.items():
        rows[index]["flags"] += [flag.kind for flag in flags]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_resource("report.html.j2"))
    with atomic_write(path) as stream:
        parts = template.generate(
            run=run,
            facts=facts(run),
            figures={caption: base64.b64encode(png).decode() for caption, png in run.figures.items()},
            counts=_counts(rows),
            failures=failures,
            halves=any(row["recovered"] is not None for row in rows),
            style=_safe(_resource("report.css")),
            script=_safe(_resource("panel.js") + _resource("report.js")),
            rows=_safe(_json(rows)),
            details=_details(entries, outliers),
        )
        for part in parts:
            stream.write(part.encode(errors="replace"))


def _resource(name: str) -> str:
    return (resources.files("n2n_deploy.report") / "templates" / name).read_text(encoding="utf-8")


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _json(value: Any) -> str:
    """Write JSON for a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts = Counter(row["status"] for row in rows)
    flagged = sum(bool(row["flags"]) for row in rows)
    return {**counts, "flagged": flagged} if flagged else counts


def _row(entry: MicrographEntry) -> dict[str, Any]:
    """Return the values that the table shows and sorts by."""
    kept = entry.views.power_kept if entry.views else None
    return {
        "name": entry.name,
        "status": entry.status,
        "flags": [flag.kind for flag in entry.flags],
        "recovered": entry.recovered,
        "defocus": entry.defocus,
        "kept": None if kept is None else 100 * kept,
        "snr_noisy": entry.snr[0] if entry.snr else None,
        "snr_denoised": entry.snr[1] if entry.snr else None,
        "sbr": entry.sbr,
        "seconds": entry.seconds,
    }


def _details(entries: Iterable[MicrographEntry], outliers: Mapping[int, tuple[Flag, ...]]) -> Iterator[Any]:
    for index, entry in enumerate(entries):
        if index in outliers:
            entry = replace(entry, flags=(*entry.flags, *outliers[index]))
        block = _json(entry.as_json())
        yield _safe(f'{_ENTRY}{index}">{block}</script>\n')


def read_report(path: Path) -> Iterator[MicrographEntry]:
    """Read the entries of a page again, in its order, to report on several runs' work together.

    One at a time is in memory. Flags of outliers are left out: which they are depends on the others. A page that is
    missing has no entries, and what is damaged in one is passed over.
    """
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as page:
        for line in page:
            if line.startswith(_ENTRY):
                with suppress(ValueError, KeyError, TypeError):
                    text = line[line.index(">") + 1 : line.rindex("</script>")]
                    entry = MicrographEntry.from_json(json.loads(text))
                    yield replace(entry, flags=tuple(flag for flag in entry.flags if flag.kind not in OUTLIERS))
