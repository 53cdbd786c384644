"""`denoise --adapt`: one adaptation for a table, kept in the output folder, found again, and reported."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from bundle_builder import one_layer_bundle

from n2n_deploy.batch.adaptation import find_adapted, read_table
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.watch import first_micrographs
from n2n_deploy.bundle.adaptation import Adaptation
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.weights import read_weights
from n2n_deploy.cli.adapt import adapted_request
from n2n_deploy.core.errors import HostError
from n2n_deploy.train.fit import Progress

from .conftest import Run

MINUTES = 0.02

ON_A_NODE = """
import sys
sys.modules["torch"] = None
from n2n_deploy.cli import main
main(sys.argv[1:])
"""


def network_lines(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for path in (out / "ledger").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [line["network"] for line in lines if "network" in line]


@pytest.fixture
def adapted(simulated: Path, exported: Path, tmp_path: Path, run: Run) -> Path:
    """The output folder of a run that adapted the model."""
    code, _, error = run(
        "denoise", simulated / "micrographs.star", exported, "-o", tmp_path / "out", "--adapt", MINUTES
    )
    assert code == 0, error
    assert "adapting model.n2n to 3 micrographs, by their halves" in error
    return tmp_path / "out"


def test_the_adapted_bundle_made_the_outputs_and_says_where_it_comes_from(adapted: Path, exported: Path) -> None:
    bundle, before = Bundle.open(adapted / "adapted.n2n"), Bundle.open(exported)
    bundle.verify_members()
    adaptation = Adaptation.of(bundle)
    assert adaptation is not None
    assert (adaptation.hash, adaptation.minutes, len(adaptation.rows)) == (before.short_hash, MINUTES, 3)
    assert bundle.manifest.training["pairs"] == "halves"
    with mrcfile.open(next((adapted / "micrographs").glob("*.mrc"))) as mrc:
        assert any(f"model {bundle.short_hash}" in str(label) for label in mrc.header.label)
    assert bundle.short_hash != before.short_hash
    summary = json.loads((adapted / "summary.json").read_text())
    assert summary["model"]["adapted"] == f"from model.n2n ({before.short_hash}), to 3 micrographs for {MINUTES} min"
    assert network_lines(adapted)[0]["adapted"] == summary["model"]["adapted"]
    assert summary["model"]["adapted"] in (adapted / "report.html").read_text()


def test_training_goes_on_from_the_bundles_weights(adapted: Path, exported: Path) -> None:
    """Kernels trained from other weights would have nothing in common with these."""
    before, after = (read_weights(Bundle.open(path)) for path in (exported, adapted / "adapted.n2n"))
    assert before.keys() == after.keys()
    kernels = [name for name in before if name.endswith("weight")]
    alike = [np.corrcoef(before[name].ravel(), after[name].ravel())[0, 1] for name in kernels]
    assert np.median(alike) > 0.5


def test_the_same_command_finds_it_again_also_for_a_table_that_has_grown(
    adapted: Path, exported: Path, simulated: Path, run: Run
) -> None:
    made = (adapted / "adapted.n2n").stat().st_mtime_ns
    (folder,) = (adapted / "adaptation").iterdir()
    assert (folder / "curves.png").exists()
    assert not (folder / "patches").exists()
    rows = (simulated / "micrographs.star").read_text().splitlines()
    grown = simulated / "grown.star"
    last = next(row for row in reversed(rows) if "mic_0003" in row)
    grown.write_text("\n".join([*rows, last.replace("mic_0003", "mic_0004")]) + "\n")
    added = []
    for path in sorted((simulated / "micrographs").glob("mic_0003_*")):
        added.append(path.with_name(path.name.replace("0003", "0004")))
        added[-1].write_bytes(path.read_bytes())
    try:
        code, said, error = run("denoise", grown, exported, "-o", adapted, "--adapt", MINUTES, "--json")
    finally:  # other tests use the folder too
        for path in (grown, *added):
            path.unlink()
    assert code == 0, error
    assert (json.loads(said)["already_done"], json.loads(said)["denoised"]) == (3, 1)
    assert (adapted / "adapted.n2n").stat().st_mtime_ns == made


def test_another_adaptation_is_refused_or_replaces_it(adapted: Path, exported: Path, simulated: Path, run: Run) -> None:
    before = Bundle.open(adapted / "adapted.n2n").short_hash
    command = ("denoise", simulated / "micrographs.star", exported, "-o", adapted, "--adapt", 2 * MINUTES)
    code, _, error = run(*command)
    assert code == 2
    assert "adapted.n2n: was adapted to other micrographs, from another model or for another time" in error
    code, _, error = run(*command, "--on-exists", "overwrite")
    assert code == 0, error
    assert Bundle.open(adapted / "adapted.n2n").short_hash != before


def test_shards_share_one_adaptation(simulated: Path, exported: Path, tmp_path: Path) -> None:
    """Started at once, as a job array is."""
    command = [sys.executable, "-m", "n2n_deploy", "denoise", simulated / "micrographs.star", exported]
    more = ["-o", tmp_path / "out", "--adapt", MINUTES, "--no-report", "--threads", 1]
    shards = [
        subprocess.Popen(
            list(map(str, [*command, *more, "--shard", f"{index}/2"])), stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for index in (1, 2)
    ]
    said = [shard.communicate(timeout=300)[1].decode() for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], said
    assert sum("adapting model.n2n" in text for text in said) == 1
    work = {line["work"] for line in network_lines(tmp_path / "out")}
    (one,) = work
    assert one.startswith(Bundle.open(tmp_path / "out" / "adapted.n2n").short_hash)


def test_an_interrupted_adaptation_goes_on(
    simulated: Path, exported: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupting(*, quiet: bool) -> Iterator[Callable[[Any], None]]:
        del quiet

        def update(event: Any) -> None:
            if isinstance(event, Progress) and event.step == 2:
                os.kill(os.getpid(), signal.SIGINT)

        yield update

    command = ("denoise", simulated / "micrographs.star", exported, "-o", tmp_path / "out", "--adapt", 10 * MINUTES)
    with monkeypatch.context() as patched:
        patched.setattr("n2n_deploy.cli.adapt.training_progress", interrupting)
        code, _, error = run(*command)
    assert code == 130
    assert "interrupted after 2 steps of the adaptation" in error
    assert list((tmp_path / "out" / "adaptation").glob("*/state.pt"))
    assert not list((tmp_path / "out").rglob("*.mrc"))
    seen: list[int] = []

    @contextmanager
    def watching(*, quiet: bool) -> Iterator[Callable[[Any], None]]:
        del quiet
        yield lambda event: seen.append(event.step) if isinstance(event, Progress) else None

    monkeypatch.setattr("n2n_deploy.cli.adapt.training_progress", watching)
    assert run(*command)[0] == 0
    assert seen[0] == 3


def test_while_micrographs_arrive_the_first_are_adapted_to(
    simulated: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly = partial(first_micrographs, interval=0.01)
    monkeypatch.setattr("n2n_deploy.batch.watch.first_micrographs", quickly)
    monkeypatch.setattr("n2n_deploy.batch.adaptation.FIRST", 2)
    request = Request.open(str(simulated / "micrographs.star"), exported, tmp_path / "out")
    found = adapted_request(request, MINUTES, watching=True, idle=60, dry_run=False, quiet=True)
    adaptation = Adaptation.of(found.bundle)
    assert adaptation is not None
    assert len(adaptation.rows) == 2
    again = find_adapted(request, read_table(request), MINUTES)
    assert again is not None
    assert again.short_hash == found.bundle.short_hash


def test_a_dry_run_writes_nothing(simulated: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    code, _, error = run(
        "denoise", simulated / "micrographs.star", exported, "-o", out, "--adapt", MINUTES, "--dry-run"
    )
    assert code == 0
    assert "--adapt would train it for 0.02 min" in error
    assert not out.exists()


def test_a_bundle_without_weights_and_a_node_without_torch_say_what_to_do(
    simulated: Path, exported: Path, tmp_path: Path, run: Run
) -> None:
    table, out = simulated / "micrographs.star", tmp_path / "out"
    bare = one_layer_bundle(tmp_path / "bare.n2n", phase_flip=True)
    code, _, error = run("denoise", table, bare, "-o", out, "--adapt", MINUTES)
    assert code != 0
    assert "bare.n2n: carries no trainable weights" in error
    assert not out.exists()
    command = [sys.executable, "-c", ON_A_NODE, "denoise", table, exported, "-o", out, "--adapt", MINUTES]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == HostError.exit_code
    assert "--adapt needs the Python library torch" in " ".join(done.stderr.split())
    assert "pip install 'n2n-deploy[train,export]'" in " ".join(done.stderr.split())


def test_where_only_signed_bundles_are_used_there_is_no_adaptation(
    simulated: Path, exported: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N2N_DEPLOY_TRUSTED_KEYS", str(tmp_path))
    code, _, error = run(
        "denoise", simulated / "micrographs.star", exported, "-o", tmp_path / "out", "--adapt", MINUTES
    )
    assert code == 2
    assert "nobody has signed" in error
