"""`Request`: what a run is asked to do, as the user gave it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from n2n_deploy.batch.lanes import with_time_limit
from n2n_deploy.batch.ledger import Ledger
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.plan import Plan, look_at_headers, make_plan
from n2n_deploy.batch.png import require_pillow
from n2n_deploy.batch.repeated_rows import clashing_rows, without_repeated
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.general import GENERAL
from n2n_deploy.core.errors import DataError, N2NError, UsageError
from n2n_deploy.core.options import NamingOptions, OpticsOptions
from n2n_deploy.denoiser.model_choice import Model, Source, open_model
from n2n_deploy.engines.select import candidates
from n2n_deploy.io.mrc_header import MRCHeader
from n2n_deploy.io.records import Micrograph
from n2n_deploy.io.star import MicrographTable, listed_names, read_micrographs
from n2n_deploy.io.star_document import StarDocument
from n2n_deploy.io.tilt_series import TiltSeriesTable


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a table, for job arrays: `index` counts from 1, rows stay in order."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a text such as "3/8".

        Raises:
            UsageError: it is not such a text.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"shard {text!r}: expected i/n with i from 1 to n, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def of(self, micrographs: Sequence[Micrograph]) -> Sequence[Micrograph]:
        """Return its part of a table; the shards one after the other are the table."""
        total = len(micrographs)
        return micrographs[(self.index - 1) * total // self.count : self.index * total // self.count]

    @property
    def name(self) -> str:
        """Its name in messages and for its folder, such as "3-of-8"."""
        return f"{self.index}-of-{self.count}"


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    Attributes:
        source: a STAR or cryoSPARC table, an MRC file or glob, a list of MRC files, or a table made in memory.
        bundle: the model, with its recipe chosen.
        output: folder that the inputs' folders are mirrored under, absolute.
        options: how to denoise.
        shard: the part of the table to process; None for all of it.
        retry: a table such as `failed.star`; only its micrographs are processed. None for all.
        naming: how files and their halves are found.
        optics: for tables and files that lack them.
    """

    source: Source | StarDocument
    bundle: Bundle
    output: Path
    options: DenoiseOptions
    shard: Shard | None
    retry: Path | None
    naming: NamingOptions
    optics: OpticsOptions

    @classmethod
    def open(
        cls,
        source: Source | StarDocument,
        model: Model | None,
        output: Path | str,
        options: DenoiseOptions | None = None,
        shard: Shard | None = None,
        retry: Path | None = None,
        naming: NamingOptions | None = None,
        optics: OpticsOptions | None = None,
    ) -> Self:
        """Make a request, opening the bundle as `open_model` does; None for the general model.

        Raises:
            BundleError: the model is damaged.
            UsageError: there is no such device or engine, or the model was not trained for the resolution.
            HostError: the file system does not answer, there is no general model, or Pillow is missing for `png`.
        """
        options = options or DenoiseOptions()
        if options.png:
            require_pillow()
        for device in options.devices:
            candidates(device, options.engine)  # an error here comes before anything is written
        read = partial(open_model, model, source, naming, options.max_resolution)
        bundle = with_time_limit(
            read, options.timeout, f"reading {model.path if isinstance(model, Bundle) else model or GENERAL}"
        )
        known = naming or NamingOptions(), optics or OpticsOptions()
        return cls(source, bundle, Path(output).absolute(), options, shard, retry, *known)

    @property
    def folder(self) -> Path:
        """Where files of this process alone go, such as config.toml: no two shards may write the same file."""
        return self.output / "shards" / self.shard.name if self.shard else self.output

    @property
    def work(self) -> str:
        """Names model, recipe and options in the ledger; the micrographs of one work are not partly in int8."""
        recipe = self.bundle.recipe
        phases = "flipped" if recipe.phase_flip else "unflipped"
        return f"{self.bundle.short_hash} {self.options.output_hash} {recipe.max_resolution:g} Å {phases}"

    @property
    def phase_flipped(self) -> bool:
        """Whether the phases of the outputs are flipped."""
        return self.bundle.recipe.phase_flip and not self.options.flip_back

    @property
    def source_name(self) -> str:
        """What the run was given, as text."""
        return str(self.source.path if isinstance(self.source, StarDocument) else self.source)

    @property
    def paths(self) -> list[Path | str]:
        """The table's path, or those of the MRC files, as they were given.

        Raises:
            UsageError: the table was made in memory.
        """
        if isinstance(self.source, StarDocument):
            raise UsageError(f"{self.source_name}: does not grow; give the path of a table or folder to watch")
        return [self.source] if isinstance(self.source, (str, Path)) else list(self.source)

    def read(self, source: Source | None = None) -> MicrographTable:
        """Read the table, or only some of its files.

        Raises:
            DataError, UsageError: as for `read_micrographs`.
            HostError: the file system does not answer.
        """
        chosen = self.source if source is None else source

        @waiting_for(None)  # each header has a time-out of its own
        def headers(paths: Sequence[Path]) -> Sequence[MRCHeader | N2NError]:
            return look_at_headers(paths, self.options.timeout)

        read = partial(
            read_micrographs,
            chosen,
            self.naming,
            need_ctf=self.bundle.recipe.phase_flip,
            need_halves=self.options.need_halves,
            exclude=self.output,
            headers=headers,
            **self.optics.model_dump(),
        )
        first = self.source_name if isinstance(chosen, StarDocument) else _first(chosen)
        return with_time_limit(read, self.options.timeout, f"reading {first}")

    def ledger(self) -> Ledger:
        """Read the ledger of the output folder.

        Raises:
            DataError: it was written by a newer version.
            HostError: the file system does not answer.
        """
        reason = f"reading the ledger of {self.output}"
        return with_time_limit(lambda: Ledger.read(self.output), self.options.timeout, reason)

    def layout(self, table: MicrographTable, ledger: Ledger) -> OutputLayout:
        """Return where the outputs go; the same for every shard of a table.

        An output folder that was used before keeps its base. Otherwise fewer names (the failed ones, tried again) or
        more of them (in a growing table) could share another folder, and their outputs would move.
        """
        if ledger.base is not None:
            return OutputLayout(self.output, ledger.base)
        return OutputLayout.of(self.output, (micrograph.name for micrograph in table.micrographs))

    def plan(self, micrographs: Sequence[Micrograph], table: MicrographTable, layout: OutputLayout) -> Plan:
        """Plan some of a table's micrographs, or all of them; see `make_plan`."""
        distinct, options = without_repeated(table.micrographs), self.options
        if options.output_pixel_size is not None and isinstance(table, TiltSeriesTable):
            raise UsageError(
                f"{table.path}: --output-pixel-size is for micrographs; tilt images keep theirs, which their alignment "
                "belongs to"
            )
        problems = clashing_rows(distinct, layout, halves=options.halves) | dict(table.problems)
        notes = list(table.notes)
        if repeated := len(table) - len(distinct):
            notes.append(
                f"{repeated} of {len(table)} rows repeat another one with the same file, optics and CTF; these "
                "micrographs are denoised once, and their rows are kept"
            )
        return make_plan(
            micrographs, problems, layout, self.bundle.short_hash, self.bundle.recipe, options, notes=notes
        )

    def part(self, table: MicrographTable) -> Sequence[Micrograph]:
        """Return the micrographs of a table that this request is about, each once.

        Raises:
            DataError: the table of those to retry cannot be read, or lists none of the micrographs.
            HostError: the file system does not answer.
        """
        part = without_repeated(table.micrographs)
        if self.shard:
            part = self.shard.of(part)
        if self.retry is None:
            return part
        listed = with_time_limit(partial(_listed, self.retry), self.options.timeout, f"reading {self.retry}")
        part = [micrograph for micrograph in part if micrograph.name in listed]
        if not part:
            raise DataError(
                f"{self.retry}: lists none of the given micrographs; give the failed.star of an earlier run over them"
            )
        return part


def _first(source: Source) -> Path | str:
    return source if isinstance(source, (str, Path)) else source[0]


def _listed(path: Path) -> frozenset[str]:
    """The names that a table of micrographs to retry lists."""
    if not path.exists():
        raise DataError(f"{path}: not found; give the failed.star of a run (one in which nothing failed has none)")
    return listed_names(path)
