"""`sum_movies`: the even, odd and whole sums of many movies, several at once, one failure costing one movie."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import scipy.fft

from n2n_deploy.core.errors import DataError, N2NError
from n2n_deploy.device.memory import available_memory
from n2n_deploy.device.processor import usable_cores
from n2n_deploy.files.atomic import make_writable_folder, remove_stale_temporaries
from n2n_deploy.io.movie_table import MovieRecord, MovieTable
from n2n_deploy.movies.job import Gains, Outputs, sum_movie
from n2n_deploy.movies.memory import MemoryGate
from n2n_deploy.movies.options import HalvesOptions
from n2n_deploy.movies.results import Summed, write_failures, write_table
from n2n_deploy.movies.settings import find_files, open_with, settle

_SHARE_OF_MEMORY = 0.7
UNALIGNED = (
    "no motion table: the sums are not aligned. Drift blurs both halves alike, so noise2noise training still holds, "
    "but the blurred detail is lost; give --motion to align"
)
_ODD_NUMBER = "an odd number of frames: the even sum has one frame more than the odd one"


@dataclass
class Account:
    """What became of a run.

    Attributes:
        table: the STAR file of the sums; None where there are none.
        summed: movies summed now.
        finished_before: movies whose sums were there, made of the same files with the same options.
        failures: movies that failed, and why.
        notes: what a user should know, one line each, with the number of movies it concerns.
    """

    table: Path | None = None
    summed: int = 0
    finished_before: int = 0
    failures: list[tuple[MovieRecord, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 where every movie has its sums, else 1."""
        return 1 if self.failures else 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A movie with its sums, and what a user should know of it."""

    summed: Summed
    is_new: bool
    notes: list[str]


def sum_movies(
    movies: MovieTable,
    output: Path,
    options: HalvesOptions,
    *,
    jobs: int | None = None,
    memory: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: Callable[[MovieRecord, str | None, int, int], None] | None = None,
) -> Account:
    """Sum movies and write `halves.star` (of a shard `halves_3-of-8.star`) and, where some failed, `failed.txt`.

    A movie whose three sums are there, made of the same files with the same options, is not summed again. A run without
    `shard` after the shards finds their sums and writes the table of all.

    Args:
        movies: see `read_movies`.
        output: folder; the movies' folders are mirrored under it.
        options: how to sum.
        jobs: movies at once; by default as many as there are processors, while memory lasts.
        memory: bytes to use; by default a share of what is free.
        shard: (i, n): the i-th of n parts, from 1.
        overwrite: replace sums that were made of other files or with other options.
        progress: called with a movie that has ended, why it failed or None, how many have ended, and how many there
            are.

    Raises:
        HostError: the folder cannot be written to.
    """
    make_writable_folder(output)
    remove_stale_temporaries(output)
    chosen = movies.movies
    if shard is not None:
        index, count = shard
        chosen = chosen[(index - 1) * len(chosen) // count : index * len(chosen) // count]
    places = _places([movie.name for movie in movies.movies], output)
    taken = Counter(places.values())
    gains = Gains(options)
    gate = MemoryGate(int(available_memory() * _SHARE_OF_MEMORY) if memory is None else memory)
    account = Account(notes=list(movies.notes))
    stop = threading.Event()
    outcomes: dict[int, _Outcome] = {}
    notes: Counter[str] = Counter()
    processors = usable_cores()
    workers = min(jobs or processors, max(1, len(chosen)))

    def work(movie: MovieRecord) -> _Outcome:
        whole = places[movie.name]
        if taken[whole] > 1:
            raise DataError(
                f"{movie.name}: {taken[whole]} movies would be written to {whole}; give them different names"
            )
        with scipy.fft.set_workers(max(1, processors // workers)):
            return _one(movie, Outputs.of(whole), movies, options, gains, gate, stop, overwrite)

    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(work, movie): movie for movie in chosen}
        try:
            for done, future in enumerate(as_completed(pending), 1):
                movie, reason = pending[future], None
                try:
                    outcomes[movie.row] = outcome = future.result()
                    notes.update(outcome.notes)
                    account.summed += outcome.is_new
                    account.finished_before += not outcome.is_new
                except (N2NError, OSError, MemoryError) as error:
                    reason = str(error) or f"{movie.name}: not enough memory; give fewer --jobs or a smaller --memory"
                    account.failures.append((movie, reason))
                if progress is not None:
                    progress(movie, reason, done, len(chosen))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    part = "" if shard is None else f"_{shard[0]}-of-{shard[1]}"
    account.failures.sort(key=lambda failure: failure[0].row)
    account.notes += [f"{count} movies have {note}" for note, count in notes.items()]
    write_failures(output / f"failed{part}.txt", account.failures)
    if outcomes:
        account.table = output / f"halves{part}.star"
        write_table(account.table, [outcomes[row].summed for row in sorted(outcomes)], movies)
    return account


def _one(
    record: MovieRecord,
    outputs: Outputs,
    movies: MovieTable,
    options: HalvesOptions,
    gains: Gains,
    gate: MemoryGate,
    stop: threading.Event,
    overwrite: bool,
) -> _Outcome:
    files = find_files(record, movies.folders, options)
    label = files.label(record, options)
    if os.path.realpath(files.movie) == os.path.realpath(outputs.whole):
        raise DataError(f"{outputs.whole}: is the movie itself; choose another output folder")
    with open_with(files, options) as movie:
        settings = settle(movie, files, record, options)
        summed = Summed(
            record, outputs, settings.optics, settings.frame_size, settings.dose_per_frame, settings.pre_exposure
        )
        notes = [UNALIGNED] if files.motion is None else []
        if len(settings.frames) % 2:
            notes.append(_ODD_NUMBER)
        if outputs.are_finished(label):
            return _Outcome(summed, False, notes)
        if (taken := outputs.are_in_the_way()) is not None and not overwrite:
            raise DataError(
                f"{taken}: is there, and was not made of these files with these options; choose another output folder, "
                "or give --overwrite"
            )
        sum_movie(movie, files, settings, options, gains, outputs, label, gate, stop)
        return _Outcome(summed, True, notes + [note.removeprefix(f"{movie.path}: ") for note in movie.notes])


def _places(names: Sequence[str], output: Path) -> dict[str, Path]:
    """Where the whole sum of each movie goes: the folders of its name under the output folder.

    An absolute name below the current folder is taken from there; elsewhere it keeps its last folder alone, so that its
    place does not depend on what else is summed.
    """
    here = os.getcwd()  # noqa: PTH109 - as the user knows it
    places = {}
    for name in names:
        path = Path(name)
        if path.is_absolute():
            path = path.relative_to(here) if path.is_relative_to(here) else Path(path.parent.name, path.name)
        parts = [part for part in path.parent.parts if part not in (".", "..")]
        places[name] = output.joinpath(*parts, f"{path.stem}.mrc")
    return places
