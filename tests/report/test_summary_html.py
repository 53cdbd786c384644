"""The summary of a run as notebooks show it."""

from html.parser import HTMLParser
from pathlib import Path

from n2n_deploy.batch.summary import Summary


class Cells(HTMLParser):
    """The texts of a table's cells, in order; every element must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.open.append(tag)
        if tag in ("th", "td"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("th", "td"):
            self.texts[-1] += data


def test_counts_files_and_reasons_are_shown() -> None:
    summary = Summary(Path("out"), Path("out/denoised.star"), denoised=3, already_done=2, seconds=2.0, megapixels=8.0)
    summary.failures = {f"<m{row}>.mrc": f"cut & off {row}" for row in range(12)}
    summary.notes = {"input": ("pixel sizes < 1 differ",)}
    texts = Cells(summary._repr_html_()).texts
    rows = dict(zip(texts[::2], texts[1::2], strict=True))
    assert (rows["denoised"], rows["already finished"]) == ("3", "2")
    assert rows["time"] == "2.0 s, 4.00 Mpx/s"
    assert rows["table"] == "out/denoised.star"
    assert rows["failed: <m9>.mrc"] == "cut & off 9"
    assert "failed: <m10>.mrc" not in rows
    assert rows["failed"].startswith("2 more")
    assert rows["note: input"] == "pixel sizes < 1 differ"
    assert "not started" not in rows
