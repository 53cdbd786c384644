"""`Request`: what a run is asked to do, before anything is looked at."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from n2n_deploy.batch.lanes import Waiting, in_lane
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.plan import Plan, look_at_headers, make_plan
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import DataError, N2NError, UsageError
from n2n_deploy.engines.select import candidates
from n2n_deploy.io.mrc_header import MRCHeader
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable, read_micrographs
from n2n_deploy.io.star_document import NAME, StarDocument, micrograph_table

Source = Path | str | Sequence[Path | str]

SHARDS = "shards"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a table, for job arrays: `index` counts from 1, rows stay in order."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that a text such as "3/8" means.

        Raises:
            UsageError: it means none.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"shard {text!r}: expected i/n with i from 1 to n, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def of(self, micrographs: Sequence[Micrograph]) -> Sequence[Micrograph]:
        """Its part: the shards of a table, one after the other, are the table."""
        total = len(micrographs)
        return micrographs[(self.index - 1) * total // self.count : self.index * total // self.count]

    @property
    def name(self) -> str:
        """Of its folder below `shards`."""
        return f"{self.index}-of-{self.count}"


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    Attributes:
        source: a STAR or cryoSPARC table, an MRC file or glob, or a list of MRC files.
        bundle: the model.
        output: folder that the inputs' folders are mirrored under.
        options: what to do.
        shard: the part of the table to do; None for all of it.
        retry: a table such as `failed.star`, whose micrographs alone are to be done; None for all.
        naming: how files are found: project, suffixes, even_template, odd_template; see `read_micrographs`.
    """

    source: Source
    bundle: Bundle
    output: Path
    options: DenoiseOptions
    shard: Shard | None
    retry: Path | None
    naming: dict[str, Any]

    @classmethod
    def open(
        cls,
        source: Source,
        bundle: Bundle | Path | str,
        output: Path | str,
        options: DenoiseOptions | None = None,
        shard: Shard | None = None,
        retry: Path | None = None,
        **naming: Any,
    ) -> Self:
        """Gather what a run is asked, opening the bundle.

        Raises:
            BundleError: the model is damaged.
            UsageError: there is no such device or engine.
            HostError: the file system does not answer.
        """
        options = options or DenoiseOptions()
        for device in options.devices:
            candidates(device, options.engine)  # here, where nothing is written yet

        def read(waiting: Waiting) -> Bundle:
            with waiting(f"reading {bundle}"):
                return Bundle.open(Path(bundle)) if isinstance(bundle, (str, Path)) else bundle

        opened = in_lane(read, options.timeout)
        return cls(source, opened, Path(output).absolute(), options, shard, retry, naming)

    @property
    def folder(self) -> Path:
        """Where log, tables and summary go: a shard has a folder of its own, for no two jobs to write one file."""
        return self.output / SHARDS / self.shard.name if self.shard else self.output

    @property
    def phase_flipped(self) -> bool:
        """Whether the outputs' phases are flipped."""
        return self.bundle.recipe.phase_flip and not self.options.flip_back

    def read(self, source: Source | None = None) -> MicrographTable:
        """Read the table, or in place of it some of its files.

        Raises:
            DataError, UsageError: as for `read_micrographs`.
            HostError: the file system does not answer.
        """
        source = self.source if source is None else source

        def read(waiting: Waiting) -> MicrographTable:
            def headers(paths: Sequence[Path]) -> Sequence[MRCHeader | N2NError]:
                with waiting(None):  # each has a time-out of its own
                    return look_at_headers(paths, self.options.timeout)

            with waiting(f"reading {source if isinstance(source, (str, Path)) else source[0]}"):
                return read_micrographs(
                    source,
                    need_ctf=self.bundle.recipe.phase_flip,
                    need_halves=self.options.average_halves,
                    headers=headers,
                    **self.naming,
                )

        return in_lane(read, self.options.timeout)

    def mirror(self, table: MicrographTable) -> OutputLayout:
        """Where the outputs go; the same for every shard of a table.

        Raises:
            HostError: the file system does not answer.
        """

        def look(waiting: Waiting) -> OutputLayout:
            with waiting(f"looking at {self.output}"):
                return OutputLayout.open(self.output, [micrograph.name for micrograph in table.micrographs])

        return in_lane(look, self.options.timeout)

    def plan(self, micrographs: Sequence[Micrograph], table: MicrographTable, mirror: OutputLayout) -> Plan:
        """Look at the headers of some of a table's micrographs, or of all.

        Raises:
            UsageError: an output would fall on an input.
        """
        return make_plan(micrographs, table.problems, mirror, self.bundle.short_hash, self.bundle.recipe, self.options)

    def part(self, table: MicrographTable) -> Sequence[Micrograph]:
        """The micrographs that are this request's to do.

        Raises:
            DataError: the table of those to try again cannot be read, or has none of them.
            HostError: the file system does not answer.
        """
        part = self.shard.of(table.micrographs) if self.shard else table.micrographs
        if self.retry is None:
            return part
        listed = self._listed(self.retry)
        part = [micrograph for micrograph in part if micrograph.name in listed]
        if not part:
            raise DataError(
                f"{self.retry}: lists none of the micrographs that were given; give the failed.star of an earlier run"
            )
        return part

    def _listed(self, path: Path) -> frozenset[str]:
        def read(waiting: Waiting) -> frozenset[str]:
            with waiting(f"reading {path}"):
                document = StarDocument.read(path)
                return frozenset(document.columns(micrograph_table(document)[0], (NAME,))[NAME])

        return in_lane(read, self.options.timeout)
