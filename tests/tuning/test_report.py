"""The report: one page that needs nothing else, whatever the pictures and classes are called."""

from __future__ import annotations

import dataclasses
import html
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import axe_core_python
import numpy as np
import pytest
from PIL import Image

from data.audit.report import Audit
from data.dataset.dataset import Dataset, Sample
from data.findings import Finding
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing, normalize
from models.evaluation.metrics import compute_metrics
from models.profiling.serving_cost import ServingCost
from models.trial_config import FeaturesConfig
from tests.tuning.factories import candidate, trial_record
from tuning.reporting.charts import charts, importances
from tuning.reporting.content import EvaluationContent, Example, Misclassification, Pair, ReportContent, ReportTrial
from tuning.reporting.optuna_study import to_study
from tuning.reporting.page import build_chart_images, build_evaluation, build_report
from tuning.reporting.theme import DARK, LIGHT
from tuning.reporting.thumbnails import (
    _denormalized,
    audit_pairs,
    to_webp,
    top_losses,
    train_examples,
    val_examples,
)
from tuning.search.reevaluation import Improvement, RerunTrial
from tuning.search.selection import CostedTrial, Limits

HOSTILE = ("<script>alert(1)</script>", '"onload=alert(1) $\\frac', "grüne Äpfel & Birnen")
PICTURE = to_webp(Image.new("RGB", (8, 8), "red"))
PATIENCE = "--virtual-time-budget=60000"  # ms of the page's own time until it is looked at
VOID = {"meta", "img", "br", "path", "use", "rect", "image", "link"}


class Page(HTMLParser):
    """What a browser would find in a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        """Return the values of an attribute, in order."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def tried(number: int, value: float | None, status: str = "complete", lr: float = 1e-3, depth: int = 9) -> ReportTrial:
    result = trial_record(number, value, status)  # type: ignore[arg-type]
    settings = {**result.settings, "lr": lr, "freeze_fraction": depth / 18}
    result = result.model_copy(
        update={"settings": settings, "runtime_info": {**result.runtime_info, "freeze_depth": depth}}
    )
    return ReportTrial(result, () if value is None else (value / 2, value, value - 0.01))


def content(classes: tuple[str, ...] = HOSTILE, **changes: Any) -> ReportContent:
    """Return what a report of seven trials shows."""
    trials = (
        tried(0, 0.7),
        tried(1, 0.9, lr=3e-3, depth=18),
        tried(2, 0.5, "pruned", lr=1e-2),
        tried(3, None, "failed", lr=1e-1),
        tried(4, 0.8, lr=2e-3, depth=3),
        tried(5, 0.85, lr=5e-3, depth=12),
        tried(6, 0.75, lr=5e-4, depth=6),
    )
    labels = np.arange(30, dtype=np.int64) % len(classes)
    probabilities = np.full((30, len(classes)), 0.1)
    probabilities[np.arange(30), labels] += 1 - 0.1 * len(classes)
    probabilities[0] = np.roll(probabilities[0], 1)
    audit = Audit(
        name="pets",
        root=Path("/pets"),
        fingerprint="f",
        counts={split: dict.fromkeys(classes, 10) for split in ("train", "val", "test")},
        num_skipped=1,
        imbalance=1.0,
        median_short_side=32,
        findings=(Finding(kind="duplicate", count=2, files=((f"{classes[0]}.png", "b.png"),), action="kept"),),
    )
    full = ReportContent(
        search="run",
        created="2026-11-24 18:00",
        candidate=candidate(0.8, classes),
        scores=compute_metrics(probabilities, labels, classes),
        decision="models:/pets@champion is now version 1: there was no champion before.",
        model="models:/pets@champion",
        trials=trials,
        best=1,
        reruns=(RerunTrial(trials[1].trial, (0.9, 0.88)),),
        improvement=Improvement(0.19, 0.05),
        costed_trials=(
            CostedTrial(trials[1].trial, ServingCost(latency_ms=9, mb=14)),
            CostedTrial(trials[4].trial, ServingCost(latency_ms=3, mb=20)),
        ),
        limits=Limits(latency_ms=12.5),
        machine="a processor",
        baseline=0.42,
        mistakes=(Misclassification(PICTURE, f"{classes[0]}/x.png", classes[0], classes[1], 0.875, 0.0625),),
        train_examples=(Example("a/x.png", classes[0], PICTURE, (PICTURE, PICTURE)),),
        val_examples=(Example("a/y.png", classes[1], PICTURE),),
        audit=audit,
        pairs={"duplicate": (Pair((f"{classes[0]}.png", "b.png"), (PICTURE, None)),)},
    )
    return dataclasses.replace(full, **changes)


def evaluated(**changes: Any) -> EvaluationContent:
    """Return what the report of an evaluation shows."""
    full = content()
    made = EvaluationContent(
        model="models:/pets@champion",
        created="2026-11-24 18:00",
        data="pets",
        split="test",
        data_fingerprint="f",
        scores=full.scores,
        intervals={"accuracy": (0.7, 0.99)},
        calibration_error=0.0321,
        mistakes=full.mistakes,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def report() -> str:
    return build_report(content())


@pytest.fixture(scope="module")
def page(report: str) -> Page:
    return Page(report)


# --- the page as a whole ---


def test_every_element_is_closed_and_no_name_is_there_twice(page: Page) -> None:
    assert page.open == []
    names = page.values("id")
    assert len(names) > 50
    assert len(set(names)) == len(names)


def test_the_page_asks_nobody_for_anything_and_runs_no_script(page: Page) -> None:
    assert not {"script", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in page.elements}
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    addresses = [*page.values("src"), *page.values("href"), *page.values("xlink:href")]
    assert len(addresses) > 10
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_link_within_the_page_and_within_a_chart_leads_somewhere(report: str, page: Page) -> None:
    names = set(page.values("id"))
    links = [address[1:] for address in (*page.values("href"), *page.values("xlink:href")) if address.startswith("#")]
    assert len(links) > 10
    assert set(links) | set(re.findall(r"url\(#([^)]+)\)", report)) | set(page.values("aria-labelledby")) <= names


def test_names_of_classes_and_files_are_text_and_nothing_else(report: str, page: Page) -> None:
    assert "<script" not in report
    assert report.count(html.escape(HOSTILE[0])) >= 6
    for name in HOSTILE:
        assert name in page.text
    assert f"{HOSTILE[0]}/x.png" in page.text


def test_a_file_name_that_is_no_text_does_not_break_the_page() -> None:
    mistake = Misclassification(PICTURE, "\udcff\u202egnp.exe", "a", "b", 0.9, 0.05)
    text = build_report(content(mistakes=(mistake,)))
    assert "\\udcff\\u202egnp.exe" in text.encode().decode()


def test_the_same_content_gives_the_same_page(report: str) -> None:
    assert build_report(content()) == report


# --- for everyone ---


def test_every_picture_and_chart_says_what_it_is(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(pictures) == 6
    assert len(drawings) == len(charts(content())) == 7
    assert all(attributes["alt"] for attributes in pictures)
    assert all(attributes["role"] == "img" and len(attributes["aria-label"]) > 20 for attributes in drawings)


def test_headings_go_down_one_level_at_a_time_and_the_language_is_named(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.values("lang") == ["en"]


def test_what_scrolls_sideways_can_be_reached_by_keyboard_and_has_a_name(page: Page) -> None:
    scrolling = [a for _, a in page.elements if a.get("class") == "wide"]
    assert len(scrolling) >= 4
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in scrolling)


def luminance(color: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize(("colors", "card"), [(LIGHT, "#f4f6f8"), (DARK, "#1f272f")])
def test_text_and_charts_stand_out_from_the_page_in_light_and_dark(
    colors: dict[str, str], card: str, report: str
) -> None:
    assert f"--card:{card}" in report
    for name, least in {"ink": 7, "muted": 4.5, "blue": 4.5, "orange": 4.5, "green": 4.5, "red": 4.5}.items():
        assert f"--{name}:{colors[name]};" in report
        for paper in (colors["paper"], card):
            low, high = sorted((luminance(colors[name]), luminance(paper)))
            assert (high + 0.05) / (low + 0.05) >= least, (name, paper)


def test_charts_take_the_colours_of_the_page(report: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", report, re.DOTALL)
    used = {name for name in LIGHT if any(f"var(--{name})" in drawing for drawing in drawings)}
    assert used >= {"ink", "muted", "grid", "blue", "orange"}
    assert not any(color in drawing for drawing in drawings for color in LIGHT.values())


def shown(file: Path, *options: str) -> str:
    """Return the page of a file as Chromium has made it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command = [browser, *always, *options, f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page_without_scrolling_sideways(width: int, tmp_path: Path, report: str) -> None:
    sizes = "f.contentDocument.documentElement.scrollWidth, f.contentDocument.body.scrollHeight"
    frame = f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{html.escape(report)}"></iframe>'
    file = tmp_path / "frame.html"
    script = f"<script>f.onload = () => {{ document.body.dataset.found = [{sizes}] }}</script>"
    file.write_text(f"<!doctype html><body>{frame}{script}</body>")
    found = re.search(r'data-found="(\d+),(\d+)"', shown(file))
    assert found
    assert int(found[1]) <= width
    assert int(found[2]) > 1500


@pytest.mark.parametrize(
    ("kind", "scheme", "width"), [("search", "light", 390), ("search", "dark", 1200), ("evaluation", "light", 390)]
)
def test_axe_finds_nothing_that_shuts_anyone_out(
    kind: str, scheme: str, width: int, tmp_path: Path, report: str
) -> None:
    file = tmp_path / "page.html"
    file.write_text(with_axe(report if kind == "search" else build_evaluation(evaluated())))
    number = {"dark": 0, "light": 1}[scheme]  # of Chromium's own setting
    page = shown(file, f"--blink-settings=preferredColorScheme={number}", f"--window-size={width},900", PATIENCE)
    found = re.search(r'data-axe="([^"]*)"', page)
    assert found
    told = json.loads(html.unescape(found[1]))
    assert told["dark"] == (scheme == "dark")
    assert told["rules"] > 20
    assert told["violations"] == []


def with_axe(page: str) -> str:
    """Return a page that runs axe-core on itself, and tells in ``data-axe`` what it found; our pages run no script."""
    axe = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    run = """axe.run().then(found => { document.body.dataset.axe = JSON.stringify({
        dark: matchMedia("(prefers-color-scheme: dark)").matches, rules: found.passes.length,
        violations: found.violations.map(one => [one.id, one.nodes.map(node => node.html)])}) })"""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    return free.replace("</body>", f"<script>{axe}</script><script>{run}</script></body>")


# --- what it says ---


def test_the_answer_comes_first(page: Page) -> None:
    order = [
        "80.0 % balanced accuracy",
        "there was no champion before",
        "0.750 to 0.850",
        "+0.1900",
        "0.4200",
        "9.0 ms",
    ]
    order += ['load_model("models:/pets@champion")', "The best trials by validation"]
    places = [page.text.index(part) for part in order]
    assert places == sorted(places)


def test_a_default_that_won_and_a_model_that_is_not_registered_are_said(page: Page) -> None:
    text = Page(
        build_report(content(best=0, finals=(), gain=None, model="", baseline=None, priced=(), mistakes=()))
    ).text
    assert "the default itself, trial 0, has won" in text
    assert "all 30 test pictures were classified rightly" in text
    assert "No network's cost was measured" in text
    for gone in ("load_model", "logistic regression", "on one core"):
        assert gone in page.text
        assert gone not in text


def test_the_finals_are_shown_with_what_each_seed_gave(page: Page) -> None:
    assert "0.8900" in page.text
    assert "0.9000, 0.8800" in page.text
    assert "more than twice the noise of 0.0500" in page.text
    text = Page(build_report(content(gain=Improvement(0.02, 0.03)))).text
    assert "not more than twice the noise of 0.0300" in text


def test_the_limit_and_the_front_are_shown(page: Page) -> None:
    assert "The winner had to keep max_latency_ms=12.5" in page.text
    assert "speed, size" in page.text


def test_the_audits_pairs_are_shown_and_a_picture_that_is_gone_leaves_its_name(page: Page) -> None:
    assert "2 exact duplicates within a class" in page.text
    assert page.text.count("b.png") == 1


def test_few_trials_are_no_reason_to_fail() -> None:
    text = Page(build_report(content(trials=(tried(0, 0.5),), best=0))).text
    assert "Too few trials ran to their end" in text


def test_each_class_has_its_wilson_intervals(page: Page) -> None:
    # 9 of 10 of the first class are right, and the others' answers: Wilson's interval of 9 in 10.
    assert "0.596 to 0.982" in page.text


# --- an evaluation's page ---


def test_an_evaluations_page_shows_scores_classes_and_mistakes() -> None:
    text = build_evaluation(evaluated())
    page = Page(text)
    assert page.open == []
    assert "models:/pets@champion: 96.7 % of 30 pictures of pets (test) are right" in page.text
    for part in ("0.700 to 0.990", "0.0321", "0.596 to 0.982", f"{HOSTILE[0]}/x.png"):
        assert part in page.text
    assert "<script" not in text
    assert "There is none." in build_evaluation(evaluated(mistakes=()))


# --- charts ---


def test_the_charts_are_there_as_pictures_under_the_names_that_the_page_uses() -> None:
    pictures = build_chart_images(content())
    names = {"history", "curves", "freeze", "importance", "latency", "size", "confusion"}
    assert set(pictures) == {f"{name}.png" for name in names}
    for picture in pictures.values():
        image = Image.open(io.BytesIO(picture))
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(10**6) or ()) > 10


def test_settings_that_differ_are_weighed_and_the_others_left_out() -> None:
    assert set(importances(content())) == {"lr", "freeze_fraction"}
    study = to_study(content().trials)
    assert [trial.state.name for trial in study.trials].count("PRUNED") == 1
    assert len(study.trials) == 6


def test_drawing_leaves_matplotlib_as_it_was_and_no_figure_open() -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    build_chart_images(content())
    assert plt.get_fignums() == []
    assert {name: value for name, value in mpl.rcParams.items() if before[name] != value} == {}


# --- its pictures ---


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Return a data set of two classes with real files."""
    samples = []
    for split in ("train", "val", "test"):
        for number in range(6):
            path = f"{split}{number}.png"
            Image.new("RGB", (40, 30), (40 * number, 90, 200)).save(tmp_path / path)
            samples.append(Sample(path=path, label=number % 2, split=split, content_hash=path))  # type: ignore[arg-type]
    return Dataset(name="d", root=tmp_path, classes=("cat", "dog"), samples=tuple(samples), median_short_side=30)


def test_the_worst_mistakes_are_those_that_the_model_was_most_sure_of(dataset: Dataset) -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    of_dog = np.array([0.2, 0.4, 0.9, 0.9, 0.6, 0.02])
    found = top_losses(dataset, dataset.split("test"), np.stack([1 - of_dog, of_dog], axis=1), labels, most=3)
    assert [(mistake.path, mistake.true_label, mistake.predicted_label) for mistake in found] == [
        ("test5.png", "dog", "cat"),
        ("test2.png", "cat", "dog"),
        ("test1.png", "dog", "cat"),
    ]
    assert found[0].probability == pytest.approx(0.98)
    assert found[0].true_label_probability == pytest.approx(0.02)
    (dataset.root / "test5.png").unlink()
    assert len(top_losses(dataset, dataset.split("test"), np.stack([1 - of_dog, of_dog], axis=1), labels)) == 3


@pytest.mark.parametrize("views_shown", [0, 2])
@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_training_examples_are_what_training_sees(dataset: Dataset, views_shown: int, mix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    result = trial_record()
    seen = {
        "batches": BatchConfig(augmentation="flip", mix=mix),  # type: ignore[arg-type]
        "features": FeaturesConfig(cached_augmentations=views_shown),
    }
    config = result.config.model_copy(update=seen)
    facts = {"views_shown": views_shown}
    examples = train_examples(dataset, pixels, result.model_copy(update={"config": config, "runtime_info": facts}))
    assert [example.label for example in examples] == ["cat", "dog", "cat", "dog"]
    assert {len(example.augmented) for example in examples} == {views_shown or 4}
    for row, example in enumerate(examples):
        original, *variants = (
            np.asarray(Image.open(io.BytesIO(each))) for each in (example.thumbnail, *example.augmented)
        )
        assert np.array_equal(original, pixels[row])
        same = [any(np.array_equal(each, want) for want in (original, original[:, ::-1])) for each in variants]
        assert all(same) or mix == "cutmix"


def test_without_augmentation_there_is_the_picture_alone(dataset: Dataset) -> None:
    result = trial_record()
    config = result.config.model_copy(update={"batches": BatchConfig(augmentation="none")})
    pixels = np.zeros((6, 32, 32, 3), np.uint8)
    assert {
        example.augmented for example in train_examples(dataset, pixels, result.model_copy(update={"config": config}))
    } == {()}
    assert [example.path for example in val_examples(dataset, pixels)] == [
        "val0.png",
        "val1.png",
        "val2.png",
        "val3.png",
    ]


def test_what_the_network_is_given_can_be_shown_again() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    preprocessing = Preprocessing(32)
    assert np.array_equal(_denormalized(normalize(pixels, preprocessing), preprocessing), pixels)


def test_the_audits_pairs_are_pictures_and_a_missing_file_is_none(dataset: Dataset) -> None:
    files = (("train0.png", "gone.png"), ("val0.png", "val1.png"))
    findings = (
        Finding(kind="near_duplicate", count=4, files=files, action="kept"),
        Finding(kind="unreadable", count=1, files=(("x",),), action="skipped"),
    )
    audit = content().audit.model_copy(update={"root": dataset.root, "findings": findings})
    pairs = audit_pairs(audit)
    assert list(pairs) == ["near_duplicate"]
    assert [[picture is not None for picture in pair.thumbnails] for pair in pairs["near_duplicate"]] == [
        [True, False],
        [True, True],
    ]
