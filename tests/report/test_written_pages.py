"""The pages that `denoise` and `evaluate` write, in a real browser, by mouse and by keyboard."""

import csv
import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import all_of, choose, names, one, shown, wait
from bundle_builder import one_layer, one_layer_bundle

from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.run import denoise
from n2n_deploy.core.options import ComputeOptions, NamingOptions
from n2n_deploy.evaluation.evaluation_run import run_evaluation
from n2n_deploy.simulate import simulate
from n2n_deploy.statistics.estimates import QUANTITIES

COUNT = 4

CPU = ComputeOptions(device="cpu")


@pytest.fixture(scope="module", params=["denoise", "average halves", "evaluate"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The kind of run and its page: three micrographs succeed and a truncated one fails; the network blurs."""
    folder = tmp_path_factory.mktemp(request.param)
    star = simulate(folder / "simulated", COUNT, (300, 320), 4.0, seed=5)
    for broken in (star.parent / "micrographs").glob("mic_0002_*.mrc"):
        broken.write_bytes(broken.read_bytes()[:5000])
    blur = one_layer("Conv", np.outer(*[np.hanning(9)[1:-1]] * 2) / 16, auto_pad="SAME_UPPER")
    model = one_layer_bundle(folder / "blur.n2n", blur, halo=8, max_resolution=12.0, phase_flip=True)
    if request.param == "evaluate":
        run_evaluation(star, model, folder / "out", truth=star.parent / "truth", compute=CPU)
    else:
        options = DenoiseOptions(average_halves=request.param == "average halves", merge_resolution=20.0, memory=10**10)
        denoise(star, model, folder / "out", naming=NamingOptions(project=star.parent), options=options)
        if options.average_halves:
            run_evaluation(star, model, folder / "evaluation", compute=CPU)
    return request.param, folder / "out" / "report.html"


@pytest.fixture
def tab(browser: Any, written: tuple[str, Path]) -> Any:
    browser.get(written[1].as_uri())
    return browser


def test_page_shows_the_run_and_the_failures(tab: Any, written: tuple[str, Path]) -> None:
    kind, page = written
    assert [entry for entry in tab.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert one(tab, "#found").text == f"{COUNT} of {COUNT} micrographs"
    assert "mic_0002" in one(tab, ".failures").text
    cards = {card.find_element("css selector", "h3").text: card.text for card in all_of(tab, ".card")}
    assert {"Throughput", "Model", "Recipe", "Options", "Versions", "Hardware"} <= cards.keys()
    for library in ("numpy", "onnxruntime"):
        assert metadata.version(library) in cards["Versions"]
    assert "onnxruntime" in cards["Hardware"]
    assert {"max resolution", "12 Å", "phase flip", "yes", "patch size", "192 px"} <= set(cards["Recipe"].split("\n"))
    if kind != "evaluate":
        assert {"merge resolution", "20 Å", "merge width", "1 Å", "timeout", "600 s", "10.00 GB"} <= set(
            cards["Options"].split("\n")
        )
        assert ("average halves" in cards["Options"]) == (kind == "average halves")
        assert "flip back" not in cards["Options"], "options that are off are not shown"
    assert not re.search(r"\b(True|False|None|nan)\b", one(tab, "main").text)
    assert not one(tab, ".pages").is_displayed(), "a single page has no page buttons"
    assert all_of(tab, ".command") == [], "the test was not started by n2n-deploy"
    figures = all_of(tab, ".figures img")
    assert len(figures) == (2 if kind == "evaluate" else 0)
    for image in figures:
        assert image.get_attribute("alt")
        assert tab.execute_script("return arguments[0].naturalWidth", image) > 400
    rows = [row.text for row in all_of(tab, ".results tbody tr")]
    assert len(rows) == (len(QUANTITIES) if kind == "evaluate" else 0)
    if kind == "evaluate":
        whole = json.loads((page.parent / "evaluation.json").read_text())["set"]["recovered_signal_fraction"]
        shown_numbers = [f"{whole[name]:.3g}" for name in ("value", "low", "high", "true")]
        assert rows[-1] == "recovered signal fraction {} {} … {} {}".format(*shown_numbers)
    assert "https://" not in page.read_text().replace("http://www.w3.org/2000/svg", "")


def test_page_sorts_and_filters_by_keyboard(tab: Any, written: tuple[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    done = "evaluated" if written[0] == "evaluate" else "denoised"
    heading = next(button for button in all_of(tab, "th button") if button.text.startswith("Defocus"))
    for order in ("ascending", "descending"):
        heading.send_keys(Keys.ENTER)
        assert heading.find_element("xpath", "..").get_attribute("aria-sort") == order
        column = [button.text for button in all_of(tab, "th button")].index(heading.text) + 2
        cells = [cell.text for cell in all_of(tab, f"#table tbody td:nth-child({column})")]
        values = [float(text) for text in cells if text != "–"]
        assert len(values) >= 3
        assert values == sorted(values, reverse=order == "descending")
    choose(tab, "#filter-status", done)
    wait(tab, lambda: len(names(tab)) == COUNT - 1)
    one(tab, "#filter-name").send_keys("0003")
    wait(tab, lambda: names(tab) == ["mic_0003_DW.mrc"])


def test_pictures_load_and_the_slider_moves(tab: Any, written: tuple[str, Path]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    button = one(tab, ".open")
    button.send_keys(Keys.SPACE)
    panel = one(tab, f"#{button.get_attribute('aria-controls')}")
    loaded = "return [...arguments[0].querySelectorAll('img')].every((i) => i.complete && i.naturalWidth > 0)"
    wait(tab, lambda: tab.execute_script(loaded, panel))
    assert len(panel.find_elements("css selector", "img")) >= 5  # before and after, twice, and the residual
    assert len(panel.find_elements("css selector", ".plot")) == (1 if written[0] == "denoise" else 2)
    assert panel.find_elements("css selector", ".plot .zero")
    slider = panel.find_element("css selector", ".compare input")
    tab.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    before = shown(panel)
    drag = ActionChains(tab).move_to_element(slider).click_and_hold()
    drag.move_by_offset(-int(0.25 * slider.size["width"]), 0).release().perform()
    assert before - 40 < shown(panel) < before - 10
    before = shown(panel)
    slider.send_keys(Keys.ARROW_RIGHT * 2)
    assert shown(panel) == before + 2


def test_estimates_on_the_page_agree_with_evaluate(tab: Any, written: tuple[str, Path]) -> None:
    kind, page = written
    headings = [button.text for button in all_of(tab, "th button")]
    columns = {
        "Recovered signal fraction": "recovered_signal_fraction",
        "SNR before": "snr_noisy",
        "SNR after": "snr_denoised",
        "SBR": "sbr",
    }
    if kind == "denoise":  # without halves these are unknown
        assert not columns.keys() & set(headings)
        return
    folder = page.parent.with_name("evaluation") if kind == "average halves" else page.parent
    with (folder / "evaluation.csv").open(newline="") as table:
        measured = {row["micrograph"]: row for row in csv.DictReader(table) if not row["failure"]}
    assert len(measured) == COUNT - 1
    for line in all_of(tab, "#table tbody tr"):
        cells = [cell.text for cell in line.find_elements("css selector", "td")][1:]
        name = next((name for name in measured if cells[0].split()[0] in name), None)
        for label, quantity in columns.items():
            told = cells[headings.index(label)]
            if name is None:
                assert told == "–"
            else:
                assert float(told) == pytest.approx(float(measured[name][quantity]), rel=6e-3, abs=6e-4)


def test_single_micrograph_has_a_dash_for_its_interval(browser: Any, tmp_path: Path) -> None:
    star = simulate(tmp_path / "simulated", 1, (300, 320), 4.0, seed=5)
    model = one_layer_bundle(tmp_path / "model.n2n", max_resolution=12.0, phase_flip=True)
    run_evaluation(star, model, tmp_path / "out", compute=CPU)
    browser.get((tmp_path / "out" / "report.html").as_uri())
    rows = [row.text for row in all_of(browser, ".results tbody tr")]
    assert len(rows) == len(QUANTITIES)
    assert all(row.endswith(" –") for row in rows)
    assert not any("nan" in row.split() for row in rows)


def test_page_fits_a_narrow_window(tab: Any) -> None:
    one(tab, ".open").click()
    tab.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        assert tab.execute_script("return document.documentElement.scrollWidth") <= 420
    finally:
        tab.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
