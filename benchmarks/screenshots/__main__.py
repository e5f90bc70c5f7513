"""Create ``docs/images``: ``python -m benchmarks.screenshots [--data FOLDER] [--folder FOLDER]``, ``make screenshots``.

Runs one search of five minutes on the demo digits, or on a folder of photos, and opens it in headless Chromium: its
report in light and dark mode and on a phone, its run and the table of its trials in MLflow. Draws the diagram of the
freeze line, too. No screenshot shows an image of the data set. ``--folder`` keeps the search, or uses the one that an
earlier call has left there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.screenshots.browser import Browser, Screen
from benchmarks.screenshots.freezing import write_diagram
from benchmarks.searches import ROOT, Search, load_search, search
from tests.services import LOOPBACK, free_port, mlflow_server
from tuning.tracking.ui_links import MlflowLinks

OUT = ROOT / "docs" / "images"
BUDGET = ("--minutes", "5")
DESKTOP = Screen(1280, 800)
WIDE = Screen(1440, 900)
CLICKS = (
    "button[data-component-id='mlflow.assistant.chat_panel.close']",  # MLflow opens its assistant on the first visit
    "button[data-component-id='discovery.data_explorer.entity_comment.show_comment_text_toggle']",  # the whole note
)
CHART = "freeze.png"
SCREENS = {"light": DESKTOP, "dark": DESKTOP._replace(dark=True), "phone": Screen(390, 844, scale=2)}
COMPLETE = "document.readyState === 'complete'"
SHOWS = "document.body && document.body.innerText.includes({})"


def main() -> None:
    """Search, and write the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder of the search; created if it is missing, and kept")
    parser.add_argument("--data", default="demo", help="folder of photos; its name becomes that of the model")
    arguments = parser.parse_args()
    folder: Path | None = arguments.folder
    OUT.mkdir(parents=True, exist_ok=True)
    write_diagram(OUT / "freeze-line.png")
    with tempfile.TemporaryDirectory() as temporary:
        search_folder = (folder or Path(temporary)).resolve()
        finished = _search_in(search_folder, arguments.data)
        with Browser() as browser:
            _report(browser, search_folder)
            _mlflow(browser, finished, search_folder)
    for file in sorted(OUT.glob("*.png")):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} KB")


def _search_in(folder: Path, data: str) -> Search:
    """Return the search that is in ``folder``, or a new one."""
    from mlflow import MlflowClient

    database, name = folder / "mlflow.db", Path(data).name
    if database.exists():
        return load_search(MlflowClient(f"sqlite:///{database}"), name)
    if data != "demo":  # the pages show where the data are: in a folder whose path is hidden
        data = str(shutil.copytree(data, folder / "data" / name))
    return search(data, 0, folder, *BUDGET, name=name)


def _report(browser: Browser, folder: Path) -> None:
    (file,) = (folder / "home" / "searches").glob("*/report.html")
    for name, screen in SCREENS.items():
        browser.screenshot(file.as_uri(), screen, COMPLETE, OUT / f"report-{name}.png")
    browser.screenshot(file.as_uri(), DESKTOP, COMPLETE, OUT / "report-freeze-line.png", "#freezing")


def _mlflow(browser: Browser, finished: Search, folder: Path) -> None:
    port = free_port()
    command = ["server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    server = mlflow_server(folder, port, command, {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db"})
    server.start()
    try:
        root, info = f"http://{LOOPBACK}:{port}", finished.parent.info
        run = f"{root}/#/experiments/{info.experiment_id}/runs/{info.run_id}?workflowType=machine_learning"
        condition = SHOWS.format(json.dumps("Best trials"))
        browser.screenshot(run, WIDE, condition, OUT / "mlflow-run.png", clicks=CLICKS, hidden=str(folder))
        chart = f"{root}/#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/charts/{CHART}"
        condition = "[...document.images].some(image => image.naturalWidth > 500)"
        browser.screenshot(
            f"{chart}?workflowType=machine_learning",
            WIDE,
            condition,
            OUT / "mlflow-charts.png",
            clicks=CLICKS,
            hidden=str(folder),
        )
        link = f"{root}/{MlflowLinks(info.experiment_id, info.run_id, {}).trials_url()}"
        condition = SHOWS.format(json.dumps("t001 "))  # the name of a trial: its row is drawn
        browser.screenshot(link, WIDE, condition, OUT / "mlflow-compare.png", clicks=CLICKS, hidden=str(folder))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
