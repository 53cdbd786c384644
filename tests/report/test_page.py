"""The report in a real browser: sorting, filtering, opening rows, dragging the slider, and no network requests."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import all_of, choose, names, one, shown, wait
from scipy.ndimage import gaussian_filter

from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.report.entries import Curves, Flag, MicrographEntry, RunInfo
from n2n_deploy.report.page import write_report
from n2n_deploy.report.views import view

NASTY = "mics/</script><img src=x onerror=alert(1)>&\"'.mrc"
RUN = RunInfo(
    "Denoising <of> job002",
    "n2n-deploy denoise a.star m.n2n",
    model={"hash": "3fa9c1d2"},
    throughput={"per hour": 2500},
)


def entries(count: int) -> list[MicrographEntry]:
    rng = np.random.default_rng(0)
    noisy = rng.standard_normal((96, 128)).astype(np.float32)
    views = view(noisy, gaussian_filter(noisy, 2), (3.0, 3.0), Optics(1.0, 300, 2.7, 0.1), CTFParameters(9000, 9000))
    curve = Curves(np.linspace(0.01, 0.16, 20), np.geomspace(1, 1e-3, 20), np.geomspace(10, 1e-2, 20), (0.05, 0.1))
    made = [
        MicrographEntry(
            f"mics/grid_{i}.mrc",
            "denoised",
            seconds=float(count - i),
            defocus=1.0 + i / count,
            snr=(0.07, 5.0),
            sbr=2.0 + i,
            recovered=0.001 * ((7 * i) % count),
            flags=(Flag("flat power", "so flat"),) if i % 10 == 0 else (),
            views=views,
            ssnr=curve if i == 0 else None,
        )
        for i in range(count)
    ]
    made[3] = MicrographEntry("mics/grid_3.mrc", "failed", reason="mics/grid_3.mrc: <cut short>")
    made[5] = MicrographEntry(NASTY, "failed", reason="odd & ends")
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, RUN, entries(250))
    return path


@pytest.fixture
def tab(browser, page):
    browser.get(page.as_uri())
    return browser


def test_page_opens_without_errors_or_network_requests(browser, page):
    browser.get_log("performance")
    browser.get(page.as_uri())
    assert one(browser, "h1").text == "Denoising <of> job002"
    assert one(browser, "#found").text == "250 of 250 micrographs"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # The browser's own start page may still be loading beside ours.
    ours = [request["request"]["url"] for request in sent if request["documentURL"] == page.as_uri()]
    assert page.as_uri() in ours
    assert {url.partition(":")[0] for url in ours} <= {"file", "data"}
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page.read_text())


def test_names_are_escaped(tab):
    one(tab, "#filter-name").send_keys("onerror")
    assert len(names(tab)) == 1
    slash = NASTY.rindex("/") + 1
    assert one(tab, ".open").get_property("textContent") == NASTY[slash:] + NASTY[:slash]
    assert tab.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    one(tab, ".open").click()
    assert one(tab, ".panel .words").text == "odd & ends"


def test_column_sorts_both_ways_and_states_the_order(tab):
    from selenium.webdriver.common.keys import Keys

    heading = next(button for button in all_of(tab, "th button") if button.text == "Seconds")
    heading.click()
    assert names(tab)[:2] == ["grid_249.mrc", "grid_248.mrc"]
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    heading.send_keys(Keys.ENTER)
    assert names(tab)[:2] == ["grid_0.mrc", "grid_1.mrc"]
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    one(tab, "#next").click()
    one(tab, "#next").click()
    assert names(tab)[-2:] == ["grid_3.mrc", names(tab)[-1]], "rows without a value come last in either order"
    next(button for button in all_of(tab, "th button") if button.text == "Micrograph").click()
    assert [name for name in names(tab) if name.startswith("grid")][:3] == ["grid_0.mrc", "grid_1.mrc", "grid_2.mrc"]


def test_filters_narrow_the_table_and_clear_again(tab):
    one(tab, "#filter-name").send_keys("GRID_24")
    assert one(tab, "#found").text == "11 of 250 micrographs"
    choose(tab, "#filter-flag", "flat power")
    wait(tab, lambda: names(tab) == ["grid_240.mrc"])
    one(tab, "button[type=reset]").click()
    wait(tab, lambda: one(tab, "#found").text == "250 of 250 micrographs")
    choose(tab, "#filter-status", "failed")
    wait(tab, lambda: one(tab, "#found").text == "2 of 250 micrographs")


def test_pages_hold_a_hundred_rows(tab):
    assert len(names(tab)) == 100
    one(tab, "#next").click()
    assert one(tab, "#page").text == "Page 2 of 3"
    assert names(tab)[0] == "grid_100.mrc"


def test_single_page_has_no_page_buttons(tab):
    assert one(tab, ".pages").is_displayed()
    one(tab, "#filter-name").send_keys("grid_24")
    wait(tab, lambda: not one(tab, ".pages").is_displayed())
    assert not any(button.is_displayed() for button in (one(tab, "#previous"), one(tab, "#next")))


def test_estimates_from_halves_are_sortable_columns(tab, browser, tmp_path):
    headings = {button.text: button for button in all_of(tab, "th button")}
    headings["Recovered signal fraction"].click()
    column = list(headings).index("Recovered signal fraction") + 2
    cells = [cell.text for cell in all_of(tab, f"#table tbody td:nth-child({column})")]
    assert [float(text) for text in cells] == sorted(float(text) for text in cells)
    assert cells[:2] == ["0.000", "0.001"]
    headings["SBR"].click()
    assert names(tab)[0] == "grid_0.mrc"
    # Without halves there are no such columns and no explanation of them.
    write_report(tmp_path / "page.html", RUN, [MicrographEntry("a.mrc", "denoised", seconds=1.0)])
    browser.get((tmp_path / "page.html").as_uri())
    assert [button.text for button in all_of(browser, "th button")] == ["Micrograph", "Status", "Seconds"]
    assert "SBR" not in one(browser, "footer").text


def test_pictures_are_decoded_only_when_visible(tab):
    wait(tab, lambda: len(all_of(tab, "td.thumb img")) > 0)
    assert len(all_of(tab, "td.thumb img")) < 60
    tab.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    wait(tab, lambda: tab.execute_script("return document.querySelector('tbody tr:last-child img') !== null"))
    loaded = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    wait(tab, lambda: tab.execute_script(loaded))


def test_row_opens_and_its_slider_moves_by_mouse_and_keyboard(tab):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    button = one(tab, ".open")
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-expanded") == "true"
    panel = one(tab, f"#{button.get_attribute('aria-controls')}")
    assert "so flat" in panel.text
    slider = panel.find_element("css selector", ".compare input")
    tab.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)

    assert shown(panel) == 50
    width = slider.size["width"]
    ActionChains(tab).move_to_element(slider).click_and_hold().move_by_offset(int(0.3 * width), 0).release().perform()
    assert 70 < shown(panel) < 90
    assert f"{int(shown(panel))} % noisy" in slider.get_attribute("aria-valuetext")
    before = shown(panel)
    slider.send_keys(Keys.ARROW_LEFT * 3)
    assert shown(panel) == before - 3
    assert slider.get_attribute("aria-label")
    button.send_keys(Keys.ENTER)
    assert all_of(tab, ".panel") == []


def test_curves_and_ctf_zeros_are_drawn_at_their_frequencies(tab):
    one(tab, ".open").click()
    plots = all_of(tab, ".plot")
    assert len(plots) == 2
    entry = entries(250)[0]
    zeros = plots[0].find_elements("css selector", "line.zero")
    assert len(zeros) == len(entry.views.spectra.zeros) > 3
    last, left, right = entry.views.spectra.frequency[-1], 52, 460 - 12
    for line, zero in zip(zeros, entry.views.spectra.zeros, strict=True):
        assert float(line.get_attribute("x1")) == pytest.approx(left + (right - left) * zero / last, abs=0.5)
    path = plots[1].find_element("css selector", "path.denoised").get_attribute("d")
    heights = [float(point.split()[1]) for point in re.split("[ML]", path) if point]
    assert len(heights) == 20
    # 10 to 0.01 in equal steps of the logarithm is a straight line downwards.
    np.testing.assert_allclose(np.diff(heights), np.diff(heights).mean(), atol=0.15)
    assert heights[0] < heights[-1]
    assert len(plots[1].find_elements("css selector", "line.zero")) == 2
    assert plots[0].get_attribute("aria-label")
    for plot in plots:  # no number is cut off
        inside = "const b = e.getBBox(); return b.x >= 0 && b.x + b.width < 460.5"
        script = f"return [...arguments[0].querySelectorAll('text')].every((e) => {{ {inside} }})"
        assert tab.execute_script(script, plot)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = np.array([float(v) for v in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: float, second: float) -> float:
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark_mode(tab, scheme):
    tab.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page = luminance(one(tab, "body").value_of_css_property("background-color"))
    assert (page < 0.1) == (scheme == "dark")
    for selector in (
        "body",
        ".card dt",
        ".tag",
        ".tag.flag",
        ".tag[data-kind=failed]",
        ".open",
        ".open small",
        "footer",
    ):
        text = one(tab, selector)
        own = text.value_of_css_property("background-color")
        behind = page if own.replace(" ", "").endswith(",0)") else luminance(own)
        if selector == ".card dt":
            behind = luminance(one(tab, ".card").value_of_css_property("background-color"))
        front = luminance(text.value_of_css_property("color"))
        found = contrast(front, behind)
        assert found >= 4.5, f"{selector} in {scheme}: WCAG AA asks for 4.5, found {found:.2f}"
    one(tab, ".open").click()
    for selector in (".plot path.noisy", ".plot path.denoised", ".plot line.zero"):
        found = contrast(luminance(one(tab, selector).value_of_css_property("stroke")), page)
        assert found >= 3, f"{selector} in {scheme}: WCAG AA asks graphics for 3, found {found:.2f}"


def test_every_control_has_an_accessible_name(tab):
    one(tab, ".open").click()
    unnamed = """return [...document.querySelectorAll('button, input, select, [role=img], img:not([alt])')]
        .filter((e) => !(e.textContent.trim() || e.ariaLabel || (e.labels && e.labels.length) || e.alt)).length"""
    assert tab.execute_script(unnamed) == 0


def test_page_with_thousands_of_micrographs_opens(browser, tmp_path):
    few = entries(250)
    write_report(tmp_path / "large.html", RUN, [few[i % 250] for i in range(2000)])
    browser.get((tmp_path / "large.html").as_uri())
    assert one(browser, "#found").text == "2000 of 2000 micrographs"
    assert browser.execute_script("return document.querySelectorAll('tbody tr').length") == 100
