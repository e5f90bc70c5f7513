"""Make ``docs/images``: ``python -m benchmarks.screenshots [--folder FOLDER]`` (``make pictures``).

One search of ten minutes on the demo digits, and a look at it in headless Chromium: its report in light, dark and on
a phone, its run and the comparison of its trials in MLflow; and the diagram of the freeze line. ``--folder`` keeps the
search, or takes the one that an earlier call has left there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.screenshots.browser import Browser, Screen
from benchmarks.screenshots.freezing import write_diagram
from benchmarks.searches import ROOT, Search, found, search
from server.processes import LOOPBACK, free_port, mlflow_server

OUT = ROOT / "docs" / "pictures"
NAME = "digits"
BUDGET = ("--minutes", "10")
DESKTOP = Screen(1280, 800)
WIDE = Screen(1440, 900)
CLICKED = (
    "button[data-component-id='mlflow.assistant.chat_panel.close']",  # MLflow opens its assistant at a first visit
    "button[data-component-id='discovery.data_explorer.entity_comment.show_comment_text_toggle']",  # the whole note
)
CHART = "freeze.png"
SCREENS = {"light": DESKTOP, "dark": DESKTOP._replace(dark=True), "phone": Screen(390, 844, scale=2)}
COMPLETE = "document.readyState === 'complete'"
DRAWN = "document.querySelector('.js-plotly-plot .main-svg')"  # a chart of plotly is on the page
SHOWS = "document.body && document.body.innerText.includes({})"


def main() -> None:
    """Search, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="of the search, kept; made if need be")
    folder: Path | None = parser.parse_args().folder
    OUT.mkdir(parents=True, exist_ok=True)
    write_diagram(OUT / "freeze-line.png")
    with tempfile.TemporaryDirectory() as passing:
        at = (folder or Path(passing)).resolve()
        done = _searched(at)
        with Browser() as browser:
            _report(browser, at)
            _mlflow(browser, done, at)
    for file in sorted(OUT.glob("*.png")):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} KB")


def _searched(folder: Path) -> Search:
    """Return the search that is in ``folder``, or a new one."""
    from mlflow import MlflowClient

    kept = folder / "mlflow.db"
    if kept.exists():
        return found(MlflowClient(f"sqlite:///{kept}"), NAME, minutes=0)
    return search("demo", 0, folder, *BUDGET, name=NAME)


def _report(browser: Browser, folder: Path) -> None:
    (file,) = (folder / "home" / "searches").glob("*/report.html")
    for name, screen in SCREENS.items():
        browser.picture(file.as_uri(), screen, COMPLETE, OUT / f"report-{name}.png")
    browser.picture(file.as_uri(), DESKTOP, COMPLETE, OUT / "report-freeze-line.png", "#freezing")


def _mlflow(browser: Browser, done: Search, folder: Path) -> None:
    port = free_port()
    command = ["server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    server = mlflow_server(folder, port, command, {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db"})
    server.start()
    try:
        root, info = f"http://{LOOPBACK}:{port}", done.parent.info
        run = f"{root}/#/experiments/{info.experiment_id}/runs/{info.run_id}?workflowType=machine_learning"
        shown = SHOWS.format(json.dumps("Best trials"))
        browser.picture(run, WIDE, shown, OUT / "mlflow-run.png", clicked=CLICKED, hidden=str(folder))
        chart = f"{root}/#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/charts/{CHART}"
        shown = "[...document.images].some(image => image.naturalWidth > 500)"
        browser.picture(
            f"{chart}?workflowType=machine_learning",
            WIDE,
            shown,
            OUT / "mlflow-charts.png",
            clicked=CLICKED,
            hidden=str(folder),
        )
        link = f"{root}/#{done.parent.data.tags['comparison'].partition('/#')[2]}"
        browser.picture(link, WIDE, DRAWN, OUT / "mlflow-compare.png", clicked=CLICKED, hidden=str(folder))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
