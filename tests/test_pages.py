"""The pages in a browser: no violation that axe finds, at a desk and on a phone, light and dark; votes by keys."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from comat.preference.study import write_study
from comat.reporting.plots_page import plots_page
from tests.imports import ROOT

pytestmark = pytest.mark.slow
api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install axe-playwright-python")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install axe-playwright-python")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as run:
        try:
            found = run.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser: install chromium, or `playwright install chromium` ({str(error)[:80]})")
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out, data = tmp_path_factory.mktemp("pages"), project / "data"
    write_study({"base": data / "base_samples", "tuned": data / "samples"}, 2, 0, out / "page.html", out / "key.json")
    found = {"report": data / "evaluate/report.html", "preference": out / "page.html", "plots": plots(data, out)}
    return found | ({"preview": preview} if (preview := data / "train/preview.html").is_file() else {})


def plots(data: Path, out: Path) -> Path:
    """What `make plots` leaves, of a finished run's files."""
    shutil.copytree(data, out / "data")
    shown = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["plots"]
    YAML().dump({"plots": shown}, out / "dvc.yaml")
    (out / "template.html").write_text(plots_page())
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=out, check=True)
    show = ["plots", "show", "--out", "plots", "--html-template", "template.html"]
    subprocess.run([*dvc, *show], cwd=out, check=True, capture_output=True)
    return out / "plots/index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["report", "preference", "preview", "plots"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    if name not in pages:
        pytest.skip("the run drew no previews")
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(pages[name].as_uri())
    if name == "plots":
        page.wait_for_selector("svg[role=img]")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    violations = axe.Axe().run(page).response["violations"]
    if name == "preference":
        page.fill("#voter", "ada")
        page.click("#begin")
        violations += axe.Axe().run(page).response["violations"]
    said = [f"{one['id']}: {node['html'][:120]}" for one in violations for node in one["nodes"]]
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = "[...document.querySelectorAll('polyline')].filter(one => getComputedStyle(one).stroke === 'none').length"
    assert page.evaluate(drawn) == 0
    if name == "report":  # the first table is the result, which a phone shows whole
        assert page.evaluate("(one => one.scrollWidth - one.clientWidth)(document.querySelector('.scroll'))") <= 0
    page.close()


def test_a_held_key_votes_once_and_the_vote_shows(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 844, "height": 390})  # a phone on its side
    page.goto(pages["preference"].as_uri())
    page.fill("#voter", "ada")
    page.click("#begin")
    assert page.inner_text("#count") == "Pair 1 of 2, question 1 of 2"
    for _ in range(5):  # down again without up repeats
        page.keyboard.down("ArrowLeft")
    assert page.evaluate("Object.keys(state.votes.alignment).length + Object.keys(state.votes.quality).length") == 1
    assert page.get_attribute("#left", "aria-pressed") == "true"
    page.keyboard.up("ArrowLeft")
    page.wait_for_function("!waiting")
    assert page.inner_text("#count") == "Pair 1 of 2, question 2 of 2"
    assert page.get_attribute("#vote", "data-question") == "2"
    assert page.evaluate("document.querySelector('#tie').getBoundingClientRect().bottom") <= 390
    page.close()
