"""The report: a self-contained, accessible page, whatever the images and classes are called."""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import axe_core_python
import numpy as np
import pytest

from tests.conftest import skip_without
from tests.tuning.factories import candidate
from tests.tuning.report_factory import (
    HOSTILE_NAMES,
    PROMOTION,
    PROVENANCE,
    THUMBNAIL,
    Page,
    built_report,
    evaluation_content,
    report_content,
    report_result,
    report_trial,
    undrawn_report,
)
from tuning.common.promotion_types import Promotion
from tuning.reporting.charts import build_charts
from tuning.reporting.classified_images import ClassifiedImage
from tuning.reporting.content import Decision, LabelIssues
from tuning.reporting.downloads import MAX_EMBEDDED_BYTES, Table, package_command
from tuning.reporting.page import build_evaluation
from tuning.reporting.summary import configuration
from tuning.reporting.theme import DARK, LIGHT
from tuning.reporting.thumbnails import Example
from tuning.search.reruns import Improvement

VIRTUAL_TIME = "--virtual-time-budget=60000"  # ms of the page's time before Chromium dumps it


@pytest.fixture(scope="module")
def report() -> str:
    return built_report(report_content())


@pytest.fixture(scope="module")
def page(report: str) -> Page:
    return Page(report)


# --- a valid, self-contained page ---


def test_every_element_is_closed_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = page.values("id")
    assert len(ids) > 50
    assert len(set(ids)) == len(ids)


def test_the_page_loads_no_external_resource_and_runs_no_script(page: Page) -> None:
    assert not {"script", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in page.elements}
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    urls = [*page.values("src"), *page.values("href"), *page.values("xlink:href")]
    assert len(urls) > 10
    external = [url for url in urls if not url.startswith(("data:image/", "#"))]
    assert [url for url in external if not url.startswith("data:text/csv")] == [PROVENANCE.run_url]
    assert [tag for tag, attributes in page.elements if attributes.get("href") == PROVENANCE.run_url] == ["a"]
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_link_within_the_page_and_within_a_chart_has_a_target(report: str, page: Page) -> None:
    ids = set(page.values("id"))
    links = [url[1:] for url in (*page.values("href"), *page.values("xlink:href")) if url.startswith("#")]
    assert len(links) > 10
    assert set(links) | set(re.findall(r"url\(#([^)]+)\)", report)) | set(page.values("aria-labelledby")) <= ids


def test_class_and_file_names_are_escaped(report: str, page: Page) -> None:
    assert "<script" not in report
    assert report.count(html.escape(HOSTILE_NAMES[0])) >= 6
    for name in HOSTILE_NAMES:
        assert name in page.text
    assert f"{HOSTILE_NAMES[0]}/x.png" in page.text


def test_a_file_name_that_is_invalid_unicode_is_escaped() -> None:
    mistake = ClassifiedImage(THUMBNAIL, "\udcff\u202egnp.exe", "a", "b", 0.9, 0.05)
    text = undrawn_report(report_content(mistakes=(mistake,)))
    assert "\\udcff\\u202egnp.exe" in text.encode().decode()


def test_the_same_content_gives_the_same_page(report: str) -> None:
    assert built_report(report_content()) == report


def test_the_page_contains_the_tables_as_files_to_save(page: Page) -> None:
    links = {a["download"]: a["href"] for tag, a in page.elements if tag == "a" and "download" in a}
    content = report_content()
    assert list(links) == ["leaderboard.csv", "test_predictions.csv"]
    for table in (content.trials_table, content.predictions_table):
        assert base64.b64decode(links[table.name].partition(";base64,")[2]).decode() == table.csv


def test_a_large_table_is_downloaded_by_a_command() -> None:
    page = Page(undrawn_report(report_content(trials_table=Table("leaderboard.csv", "x" * (MAX_EMBEDDED_BYTES + 1)))))
    assert page.values("download") == ["test_predictions.csv"]
    assert "mlflow artifacts download --run-id run --artifact-path leaderboard.csv --dst-path ." in page.text


def test_the_files_of_a_registered_model_are_downloaded_by_a_command(page: Page) -> None:
    assert "mlflow artifacts download --artifact-uri models:/pets/2/artifacts --dst-path pets-2" in page.text
    assert "--artifact-uri" not in Page(undrawn_report(report_content(decision=Decision("Not decided.", "")))).text
    assert package_command("my pets", 1).endswith("'models:/my pets/1/artifacts' --dst-path 'my pets-1'")


# --- accessibility ---


def test_every_image_and_chart_has_a_text_alternative(page: Page) -> None:
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    svgs = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(images) == 11
    assert len(svgs) == len(build_charts(report_content())) == 11
    assert all(attributes["alt"] for attributes in images)
    assert all(attributes["role"] == "img" and len(attributes["aria-label"]) > 20 for attributes in svgs)


def test_heading_levels_are_not_skipped_and_the_language_is_set(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.values("lang") == ["en"]


def test_scrollable_regions_have_a_label_and_keyboard_focus(page: Page) -> None:
    regions = [a for _, a in page.elements if a.get("class") == "wide"]
    assert len(regions) >= 4
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in regions)


def assert_order(page: str, texts: list[str]) -> None:
    """Check that a page has all texts, in this order."""
    positions = [page.index(text) for text in texts]
    assert positions == sorted(positions)


def luminance(color: str) -> float:
    """Return the relative luminance of WCAG 2."""
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize(("colors", "card"), [(LIGHT, "#f4f6f8"), (DARK, "#1f272f")])
def test_colors_have_enough_contrast_in_light_and_dark_mode(colors: dict[str, str], card: str, report: str) -> None:
    assert f"--card:{card}" in report
    for name, min_contrast in {"ink": 7, "muted": 4.5, "blue": 4.5, "orange": 4.5, "green": 4.5, "red": 4.5}.items():
        assert f"--{name}:{colors[name]};" in report
        for background in (colors["paper"], card):
            low, high = sorted((luminance(colors[name]), luminance(background)))
            assert (high + 0.05) / (low + 0.05) >= min_contrast, (name, background)


def test_charts_use_the_colors_of_the_page(report: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", report, re.DOTALL)
    variables = {name for name in LIGHT if any(f"var(--{name})" in svg for svg in svgs)}
    assert variables >= {"ink", "muted", "grid", "blue", "orange"}
    assert not any(color in svg for svg in svgs for color in LIGHT.values())


def dump_dom(file: Path, *options: str) -> str:
    """Return the DOM of a file after Chromium has rendered it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        skip_without("Chromium")
    defaults = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command = [browser, *defaults, *options, f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.mark.system
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_does_not_scroll_horizontally_in_a_browser(width: int, tmp_path: Path, report: str) -> None:
    sizes = "f.contentDocument.documentElement.scrollWidth, f.contentDocument.body.scrollHeight"
    frame = f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{html.escape(report)}"></iframe>'
    file = tmp_path / "frame.html"
    script = f"<script>f.onload = () => {{ document.body.dataset.sizes = [{sizes}] }}</script>"
    file.write_text(f"<!doctype html><body>{frame}{script}</body>")
    match = re.search(r'data-sizes="(\d+),(\d+)"', dump_dom(file))
    assert match
    assert int(match[1]) <= width
    assert int(match[2]) > 1500


@pytest.fixture(scope="module")
def long_report() -> str:
    """Return a report with all folded parts: more trials than the leaderboard shows, and their settings."""
    more = [report_trial(number, 0.4 + 0.02 * number, lr=number / 1e4, depth=number) for number in range(7, 15)]
    return built_report(report_content(result=report_result(trials=(*report_result().trials, *more))))


@pytest.mark.system
@pytest.mark.parametrize(
    ("kind", "scheme", "width"), [("search", "light", 390), ("search", "dark", 1200), ("evaluation", "light", 390)]
)
def test_axe_finds_no_accessibility_violation(
    kind: str, scheme: str, width: int, tmp_path: Path, long_report: str
) -> None:
    file = tmp_path / "page.html"
    file.write_text(with_axe(long_report if kind == "search" else build_evaluation(evaluation_content())))
    number = {"dark": 0, "light": 1}[scheme]  # Chromium's own enumeration
    dom = dump_dom(file, f"--blink-settings=preferredColorScheme={number}", f"--window-size={width},900", VIRTUAL_TIME)
    match = re.search(r'data-axe="([^"]*)"', dom)
    assert match
    result = json.loads(html.unescape(match[1]))
    assert result["dark"] == (scheme == "dark")
    assert result["details"] == (3 if kind == "search" else 0)
    assert result["rules"] > 20
    assert result["violations"] == []


def with_axe(page: str) -> str:
    """Return a page that opens all its details, runs axe-core on itself and writes the result to ``data-axe``."""
    axe = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    run = """document.querySelectorAll("details").forEach(part => part.open = true)
        axe.run().then(result => { document.body.dataset.axe = JSON.stringify({
        dark: matchMedia("(prefers-color-scheme: dark)").matches, rules: result.passes.length,
        details: document.querySelectorAll("details[open]").length,
        violations: result.violations.map(rule => [rule.id, rule.nodes.map(node => node.html)])}) })"""
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    return without_policy.replace("</body>", f"<script>{axe}</script><script>{run}</script></body>")


# --- the texts ---


def test_the_results_come_first(page: Page) -> None:
    texts = [
        "80.0% balanced accuracy",
        "is now version 2: better",
        "Only 45 validation images",
        "80.0% [75.0, 85.0]",
        "logistic regression on raw pixels test accuracy42.0%",
        "always the same class test33.3%",
        "this model validation90.0%",
        "default configuration validation, trial 070.0%",
        "tf_efficientnet_lite0, 32 px",
        "10.0 MB, 9.0 ms/image on one core",
        "90 images, 3 classes",
        "8.5 min",
        "+19.0%, significant",
        "5 images won, 2 lost of 30",
        'load_model("models:/pets@champion")',
        "freezeline train --run 7e57",
        "Best trials by validation",
    ]
    assert_order(page.text, texts)


def test_the_whole_configuration_of_the_winner_is_shown(page: Page) -> None:
    settings = [name for _, values in configuration(candidate()) for name in values]
    dumped = candidate().members[0].config.model_dump()
    parts = [value for value in dumped.values() if isinstance(value, dict)]
    assert sorted(settings) == sorted(["seed", *(name for part in parts for name in part)])
    model = page.text[page.text.index("Configuration: network") : page.text.index("Optimization history")]
    for name in settings:
        assert name in model


def test_the_origin_of_the_result_is_shown(page: Page) -> None:
    model = page.text[page.text.index("Where it comes from") : page.text.index("Configuration: network")]
    origin = PROVENANCE.budget, PROVENANCE.started, PROVENANCE.machine, PROVENANCE.versions
    for text in ("auto, seed 3", *origin, "c0ffee"):
        assert text in model


def test_without_a_web_address_and_a_known_run_there_is_no_link_and_no_command() -> None:
    provenance = dataclasses.replace(PROVENANCE, run_url="", train_command="")
    page = Page(undrawn_report(report_content(provenance=provenance)))
    assert "Train it again" not in page.text
    assert PROVENANCE.run_url not in page.values("href")


def test_a_first_champion_is_compared_with_no_other() -> None:
    promotion = Promotion(alias="champion", reason="first", evidence={"candidate": 0.8, "baseline": 0.3})
    decision = Decision("models:/pets@champion is now version 1: first.", "models:/pets@champion", 1, promotion)
    assert "Against the previous champion" not in Page(undrawn_report(report_content(decision=decision))).text


def test_the_images_won_and_lost_against_the_champion_are_shown_with_their_numbers(page: Page) -> None:
    images = page.text[page.text.index("Most confident mistakes") : page.text.index("Example inputs")]
    won, lost = images.index("Won against the previous champion: 5 images"), images.index("Lost against the previous")
    assert images.index("Classified correctly") < images.index("/c.png") < won
    assert won < images.index("1 shown, highest probability first") < images.index("/w.png") < lost
    assert lost < images.index(f"predicted: {HOSTILE_NAMES[0]} 50.0%") < images.index("/l.png")
    first = Page(undrawn_report(report_content(decision=Decision("first", "", 1)))).text
    assert "Won against" not in first


def test_labels_that_are_probably_wrong_are_shown_with_their_number(page: Page) -> None:
    images = page.text[page.text.index("Labels that are probably wrong") : page.text.index("Example inputs")]
    assert images.index("3 images of the training") < images.index(f"predicted: {HOSTILE_NAMES[1]} 93.8%")
    without = Page(undrawn_report(report_content(label_issues=LabelIssues()))).text
    assert "Labels that are probably wrong" not in without


def test_a_challenger_is_compared_with_the_current_champion(page: Page) -> None:
    challenger = PROMOTION.model_copy(update={"alias": "challenger"})
    decision = Decision("models:/pets@challenger is now version 2: not better.", "", 2, challenger)
    assert "Against the current champion" in Page(undrawn_report(report_content(decision=decision))).text
    assert "Against the previous champion" in page.text


def test_a_winning_default_and_missing_results_are_reported(page: Page) -> None:
    result = report_result(winner=report_trial(0, 0.7), reruns=(), improvement=None, costs={})
    content = report_content(result=result, decision=Decision("Not registered.", ""), mistakes=())
    text = Page(built_report(content)).text
    assert "the default, trial 0, won" in text
    assert "10.0 MB, latency not measured" in text
    assert "All 30 test images were classified correctly" in text
    assert "0 of 3 networks measured" in text
    for absent in ("load_model", "Pareto front"):
        assert absent in page.text
        assert absent not in text


def test_reruns_are_shown_with_the_score_of_each_seed(page: Page) -> None:
    assert "89.0%" in page.text
    assert "90.0%, 88.0%" in page.text
    assert "significant: more than twice the standard error of 5.0%" in page.text
    text = Page(undrawn_report(report_content(result=report_result(improvement=Improvement(0.02, 0.03))))).text
    assert "the same within noise: +2.0%, at most twice the standard error of 3.0%" in text


def test_the_table_of_trials_has_their_time_size_and_main_settings(page: Page) -> None:
    headers = page.text[page.text.index("trialbal. acc.") :].splitlines()[0]
    for name in ("time", "batch", "dropout", "trained params", "truncated blocks", "origin", "status", "best epoch"):
        assert name in headers


def test_features_of_all_blocks_are_explained_where_a_trial_has_them(page: Page) -> None:
    trials = list(report_result().trials)
    network = trials[1].config.network.model_copy(update={"head_features": "all", "freeze_fraction": 1})
    trials[1] = trials[1].model_copy(update={"config": trials[1].config.model_copy(update={"network": network})})
    text = Page(undrawn_report(report_content(result=report_result(trials=tuple(trials))))).text
    assert "(all blocks): the head sees" in text
    assert "(all blocks)" not in page.text


def test_the_phases_are_shown_with_their_share_of_the_time_and_their_trials(page: Page) -> None:
    phases = page.text[page.text.index("Phases of the search") :]
    assert "default80%1" in phases
    assert "sampler80%6" in phases


def test_the_worst_class_comes_first_and_confusions_are_listed(page: Page) -> None:
    table = page.text[page.text.index("Metrics by class") : page.text.index("Most confident mistakes")]
    assert table.index(HOSTILE_NAMES[0]) < table.index(HOSTILE_NAMES[2])
    assert f"{HOSTILE_NAMES[0]} predicted as {HOSTILE_NAMES[1]}: 1 image, 10.0% of the class" in page.text


def test_without_augmentation_the_training_images_share_a_row() -> None:
    examples = tuple(Example(f"a/{number}.png", "a", THUMBNAIL) for number in range(3))
    page = Page(undrawn_report(report_content(train_examples=examples)))
    assert "trained without augmentation" in page.text
    assert "augmented 1" not in page.text
    rows = [attributes for _, attributes in page.elements if attributes.get("class") == "row"]
    assert len(rows) == 6  # correct, won, lost, training and validation images, one pair of the audit


def test_the_limits_and_the_pareto_front_are_shown(page: Page) -> None:
    assert "the packaged file of the winner has 10.0 MB" in page.text
    assert "Limits for the winner: max_latency_ms=12.5" in page.text
    assert "latency, size" in page.text
    assert "3 of 3 networks measured" in page.text


def test_two_measured_networks_are_no_pareto_front(page: Page) -> None:
    costs = dict(list(report_result().costs.items())[:2])
    text = Page(undrawn_report(report_content(result=report_result(costs=costs)))).text
    assert "2 of 3 networks measured" in text
    assert "Pareto front" in page.text
    assert "Pareto front" not in text


def test_warnings_stand_before_the_evidence(page: Page) -> None:
    title, warning = page.text.index("1 warning"), page.text.index("Only 45 validation images")
    assert title < warning < page.text.index("Test balanced")
    luck = "0.9783 on validation and 1.0000 on test, p = 0.123"
    text = Page(undrawn_report(report_content(warnings=(luck,)))).text
    assert "97.8% on validation and 100.0% on test, p = 0.123." in text
    assert "1 warning" not in Page(undrawn_report(report_content(warnings=()))).text


def test_the_note_of_every_table_ends_with_a_period(report: str) -> None:
    notes = re.findall(r"<figcaption><b>.*?</b>\. (.*?)</figcaption>", report)
    assert len(notes) >= 4
    assert all(note.endswith(".") and not note.endswith("..") for note in notes)


def test_the_audits_image_pairs_are_shown_and_a_missing_image_is_named(page: Page) -> None:
    assert "2 images with an exact duplicate in their class (1 group): kept." in page.text
    assert page.text.count("b.png") == 1
    assert "Only 1 shown" not in page.text
    audit = report_content().audit
    finding = audit.findings[0].model_copy(update={"count": 4, "files": (*audit.findings[0].files, ("c.png", "d.png"))})
    text = Page(undrawn_report(report_content(audit=audit.model_copy(update={"findings": (finding,)})))).text
    assert "4 images with an exact duplicate in their class (2 groups): kept. Only 1 shown." in text


def test_a_search_of_one_trial_has_a_report() -> None:
    trial = report_trial(0, 0.5)
    text = Page(built_report(report_content(result=report_result(trials=(trial,), winner=trial)))).text
    assert "needs at least 20 complete trials that are not probes, with different scores; this search has 1." in text


def test_each_class_has_its_wilson_intervals(page: Page) -> None:
    # The first class: recall 9 of 10, precision 9 of 9. Wilson's interval of 9 in 10:
    assert "[59.6, 98.2]" in page.text


def test_an_evaluation_has_metrics_classes_and_mistakes() -> None:
    text = build_evaluation(evaluation_content())
    page = Page(text)
    assert page.open == []
    texts = [
        "96.7% accuracy on pets/test (30 images)",
        "96.7% [70.0, 99.0]",
        "balanced accuracy",
        "3.2%",
        "[59.6, 98.2]",
    ]
    assert_order(page.text, texts)
    assert f"{HOSTILE_NAMES[0]}/x.png" in page.text
    assert "96.7% accuracy on pets (30 images)" in build_evaluation(evaluation_content(split="all"))
    assert "<script" not in text
    assert "No image was misclassified." in build_evaluation(evaluation_content(mistakes=()))
