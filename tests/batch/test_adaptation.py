"""Which micrographs a model is adapted to, and when an adapted bundle is found again; nothing is trained here."""

import json
from pathlib import Path

import pytest

from n2n_deploy.batch.adaptation import ADAPTED, MOST, choose, find_adapted, hashes, plan_adaptation, read_table
from n2n_deploy.batch.options import DenoiseOptions, OnExists
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.watch import first_micrographs
from n2n_deploy.bundle.adaptation import FACT, Adaptation
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.io.micrograph_table import MicrographTable
from n2n_deploy.io.records import Micrograph

from .conftest import MakeBundle, MakeTable

MINUTES = 1.5


def rows_of(count: int) -> MicrographTable:
    """A table of micrographs that differ in name and defocus."""
    rows = [
        Micrograph(f"m{row}.mrc", Path(f"m{row}.mrc"), Optics(1.0), CTFParameters(10000.0 + row, 10000.0), row=row)
        for row in range(count)
    ]
    return MicrographTable(None, rows, {}, Path())


def kept(request: Request, table: MicrographTable) -> Bundle:
    """Leave a bundle in the output folder as an adaptation to a table would."""
    request.output.mkdir(exist_ok=True)
    path = request.output / ADAPTED
    path.write_bytes(request.bundle.path.read_bytes())
    adaptation = plan_adaptation(request, MINUTES, hashes(table.micrographs))
    return extend_bundle(Bundle.open(path), {}, facts={"training": {FACT: adaptation.model_dump(mode="json")}})


@pytest.fixture
def request_(identity_bundle: MakeBundle, tmp_path: Path) -> Request:
    return Request.open("micrographs.star", identity_bundle(), tmp_path / "out")


def test_micrographs_are_chosen_from_the_whole_table() -> None:
    chosen = [int(each.name[1:-4]) for each in choose(rows_of(10 * MOST)).micrographs]
    assert chosen == list(range(0, 10 * MOST, 10))
    assert len(choose(rows_of(3))) == 3


def test_rows_with_problems_are_left_out_and_halves_win(tmp_path: Path) -> None:
    table = rows_of(4)
    for name in ("even.mrc", "odd.mrc"):
        (tmp_path / name).touch()
    first, *others = table.micrographs
    both = Micrograph(first.name, first.path, first.optics, first.ctf, tmp_path / "even.mrc", tmp_path / "odd.mrc")
    missing = Micrograph("x.mrc", Path("x.mrc"), first.optics, first.ctf, tmp_path / "even.mrc", tmp_path / "no", row=1)
    assert [each.name for each in choose(MicrographTable(None, [both, missing], {}, Path())).micrographs] == ["m0.mrc"]
    rest = choose(MicrographTable(None, [missing, *others[1:]], {2: "no CTF"}, Path()))
    assert [(each.name, each.row) for each in rest.micrographs] == [("x.mrc", 0), ("m3.mrc", 1)]
    with pytest.raises(DataError, match="the first because no CTF"):
        choose(MicrographTable(None, others[1:2], {2: "no CTF"}, Path()))


def test_an_adapted_bundle_is_found_while_its_rows_are_in_the_table(request_: Request) -> None:
    assert find_adapted(request_, rows_of(4), MINUTES) is None
    bundle = kept(request_, rows_of(4))
    for count in (4, 9):
        found = find_adapted(request_, rows_of(count), MINUTES)
        assert found is not None
        assert found.path == bundle.path
    adaptation = Adaptation.of(bundle)
    assert adaptation is not None
    assert adaptation.text == f"from identity.n2n ({request_.bundle.short_hash}), to 4 micrographs for 1.5 min"
    assert Adaptation.of(request_.bundle) is None


@pytest.mark.parametrize("change", ["rows", "minutes", "model", "contrast", "damage"])
def test_another_adaptation_is_never_taken_for_this_one(
    change: str, request_: Request, identity_bundle: MakeBundle
) -> None:
    table, minutes = rows_of(4), MINUTES
    kept(request_, table)
    model, options = request_.bundle.path, DenoiseOptions()
    if change == "rows":
        table = MicrographTable(None, rows_of(5).micrographs[1:], {}, Path())
    elif change == "minutes":
        minutes = 3.0
    elif change == "model":
        model = identity_bundle("other.n2n", highpass=150.0)
    elif change == "contrast":
        options = DenoiseOptions(invert=True)
    else:
        (request_.output / ADAPTED).write_bytes(b"half a bundle")
    now = Request.open("micrographs.star", model, request_.output, options)
    with pytest.raises(UsageError, match=r"adapted\.n2n: was adapted to other micrographs, from another model"):
        find_adapted(now, table, minutes)
    replacing = options.model_copy(update={"on_exists": OnExists.OVERWRITE})
    assert find_adapted(Request.open("micrographs.star", model, request_.output, replacing), table, minutes) is None


def test_the_first_micrographs_of_a_folder_or_a_table(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    star, bundle = table(3), identity_bundle()
    for source in (str(star), str(tmp_path / "job")):
        request = Request.open(source, bundle, tmp_path / "out")
        first = first_micrographs(request, 2, interval=0.01)
        assert [(Path(each.name).name, each.row) for each in first.micrographs] == [("m0.mrc", 0), ("m1.mrc", 1)]
        assert len(first_micrographs(request, 3, interval=0.01)) == 3
        now = read_table(request)
        assert now is not None
        assert set(hashes(first.micrographs)) < set(hashes(now.micrographs))
    assert len(first_micrographs(request, 5, interval=0.01, idle=3.0)) == 3
    (tmp_path / "empty").mkdir()
    nothing = Request.open(str(tmp_path / "empty"), bundle, tmp_path / "out")
    assert read_table(nothing) is None
    with pytest.raises(DataError, match="no file matches"):
        first_micrographs(nothing, 2, interval=0.01, idle=0.0)


def test_an_adaptation_travels_as_json(request_: Request) -> None:
    adaptation = plan_adaptation(request_, MINUTES, ["a", "b"])
    assert Adaptation.model_validate(json.loads(adaptation.model_dump_json())) == adaptation
