"""`n2n-deploy doctor`: what it says of this machine is true, and each problem has a remedy."""

import importlib.metadata
import json
import platform
import sys

import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.cli import main
from n2n_deploy.device.gpus import driver
from n2n_deploy.engines.diagnose import diagnose_engines, libraries
from n2n_deploy.engines.select import ENGINES, choose_session


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *map(str, arguments)])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_versions_are_those_of_the_installed_distributions(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_engine_is_reported_as_working_exactly_if_it_works(bundle: Bundle) -> None:
    for diagnosis in diagnose_engines(bundle):
        try:
            choose_session(bundle, engine=diagnosis.engine, threads=1).session.close()
            works = True
        except Exception:
            works = False
        assert diagnosis.works == works, diagnosis


def test_every_engine_is_listed(capsys: pytest.CaptureFixture[str], bundle: Bundle) -> None:
    code, output = doctor(capsys, bundle.path)
    assert code == 0
    assert all(engine.name in output for engine in ENGINES)


def test_missing_driver_has_a_remedy() -> None:
    if driver().gpus:
        pytest.skip("this machine has a GPU")
    assert driver().problem is not None
    on_gpu = {engine.name for engine in ENGINES if engine.gpu}
    for diagnosis in diagnose_engines():
        if diagnosis.engine in on_gpu:
            assert not diagnosis.works
            assert "--device cpu" in diagnosis.message


def test_broken_library_is_distinguished_from_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (library,) = (library for library in libraries() if library.name == "onnxruntime")
    assert library.version is not None
    assert library.problem is not None
    assert "does not load" in library.problem
    assert "n2n-deploy[cpu]" in str(library.remedy)


def test_exit_code_is_3_if_no_engine_works(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if driver().gpus:
        pytest.skip("this machine has a GPU")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert doctor(capsys)[0] == 3
