"""`merge_reports`: one page about the micrographs of several parts of a job."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.report import FINISHED, REPORT
from n2n_deploy.report.entries import MicrographEntry, RunInfo
from n2n_deploy.report.page import read_report, write_report
from n2n_deploy.report.run_info import command_line, missing_libraries

_ATTEMPTED = ("failed", "refused")


def merge_reports(
    parts: Sequence[tuple[Path, OutputLayout]], target: Path, summary: Mapping[str, Any]
) -> Path | str | None:
    """Write `report.html` about all micrographs that the parts' reports tell of.

    Args:
        parts: the folder of each one's report, and where its outputs went.
        target: where the joined report goes. What is told there of later runs over the folder stays.
        summary: the joined account.

    Returns:
        The report, or why there is none; None where no part has one.

    Raises:
        HostError: it cannot be written.
    """
    path = target / REPORT
    pages = [(folder / REPORT, mirror) for folder, mirror in parts if (folder / REPORT).exists()]
    if not pages:
        return None
    if missing := missing_libraries():
        return f"not written: {' and '.join(missing)} not installed; pip install 'n2n-deploy[report]'"
    later = [] if path in dict(pages) else [(path, mirror) for _, mirror in pages if mirror.output == target][:1]
    write_report(path, _info(summary), _Joined(pages, later))
    return path


def _info(summary: Mapping[str, Any]) -> RunInfo:
    seconds = summary["seconds"]
    return RunInfo(
        "Denoising, all parts",
        command_line(),
        model={name: summary["model"][name] for name in ("hash", "preset")},
        recipe=summary["model"]["recipe"],
        options=summary["options"],
        versions={"n2n-deploy": summary["version"]},
        hardware={"hosts": ", ".join(sorted({part["host"] for part in summary["parts"]}))},
        throughput={
            "parts": len(summary["parts"]),
            "parts that have not ended": ", ".join(summary["missing"]) or "none",
            "wall time of the longest": f"{seconds:.1f} s",
            "megapixels denoised": summary["megapixels"],
        },
    )


@dataclass(frozen=True)
class _Joined:
    """The rows of all pages, each micrograph once: from the last page that has its output, else that tried it.

    What later runs over the folder wrote there holds copies of the parts' rows, too, which must not win over these.
    """

    parts: Sequence[tuple[Path, OutputLayout]]
    later: Sequence[tuple[Path, OutputLayout]]

    def __iter__(self) -> Iterator[MicrographEntry]:
        best: dict[Path, tuple[int, Path]] = {}
        for page, mirror in (*self.later, *self.parts):
            for entry in read_report(page):
                place, rank = mirror(entry.name), _rank(entry)
                if rank >= best.get(place, (0, page))[0]:
                    best[place] = rank, page
        for page, mirror in (*self.parts, *self.later):
            for entry in read_report(page):
                if best.get(mirror(entry.name), (0, None))[1] == page:
                    del best[mirror(entry.name)]
                    yield entry


def _rank(entry: MicrographEntry) -> int:
    """What a status is worth: the output, an attempt, nothing."""
    return 2 if entry.status in FINISHED else int(entry.status in _ATTEMPTED)
