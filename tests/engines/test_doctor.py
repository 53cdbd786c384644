"""`n2n-deploy doctor`: the truth about this machine, and a remedy for each thing missing."""

import importlib.metadata
import json
import platform
import sys

import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.cli import main
from n2n_deploy.device.gpus import driver
from n2n_deploy.engines.diagnose import libraries, prospects
from n2n_deploy.engines.select import ENGINES, choose_session


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *map(str, arguments)])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_versions_are_those_installed(capsys: pytest.CaptureFixture[str]) -> None:
    code, output = doctor(capsys, "--json")
    report = json.loads(output)
    assert code == 0
    assert report["python"] == platform.python_version()
    for library in report["libraries"]:
        try:
            assert library["version"] == importlib.metadata.version(library["name"])
        except importlib.metadata.PackageNotFoundError:
            assert library["version"] is None
            assert "pip install" in library["remedy"]


def test_engines_are_said_to_work_exactly_where_they_do(bundle: Bundle) -> None:
    for prospect in prospects(bundle):
        try:
            choose_session(bundle, engine=prospect.engine, threads=1).session.close()
            works = True
        except Exception:
            works = False
        assert prospect.works == works, prospect


def test_every_engine_is_spoken_of(capsys: pytest.CaptureFixture[str], bundle: Bundle) -> None:
    code, output = doctor(capsys, bundle.path)
    assert code == 0
    assert all(engine.name in output for engine in ENGINES)


def test_without_a_driver_the_remedy_is_told() -> None:
    if driver().gpus:
        pytest.skip("this machine has a GPU")
    assert driver().problem is not None
    on_gpu = {engine.name for engine in ENGINES if engine.gpu}
    for prospect in prospects():
        if prospect.engine in on_gpu:
            assert not prospect.works
            assert "--device cpu" in prospect.says


def test_a_library_that_does_not_load_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (library,) = (library for library in libraries() if library.name == "onnxruntime")
    assert library.version is not None
    assert library.problem is not None
    assert "does not load" in library.problem
    assert "n2n-deploy[cpu]" in str(library.remedy)


def test_where_nothing_works_it_ends_with_3(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if driver().gpus:
        pytest.skip("this machine has a GPU")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert doctor(capsys)[0] == 3
