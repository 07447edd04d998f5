"""The report: its facts match the run, the file needs no other resources, and texts are escaped."""

import json
import re
import runpy
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import answer, contents, good
from html_page import Page
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import BAD, GOOD, small_recipe

from bertlora.confidence.calibration import UNCALIBRATED
from bertlora.confidence.probabilities import softmax
from bertlora.data.inputs import Inputs
from bertlora.data.prepared import Prepared, prepare
from bertlora.data.reviews import embedded_specs
from bertlora.data.template import InputTemplate
from bertlora.data.tokens import TokenTable
from bertlora.errors import ModelError, OutputError
from bertlora.evaluation.cautions import Met
from bertlora.evaluation.report import Material, facts_of, render, report_training, worst_rows, write_report
from bertlora.evaluation.report.calibration import calibration_facts, calibration_sentences
from bertlora.evaluation.report.lengths import length_facts
from bertlora.evaluation.report.mistakes import error_facts, passage, shown_texts
from bertlora.evaluation.report.page import NOTES, SECTIONS
from bertlora.evaluation.report.plot import round_ticks, share_ticks
from bertlora.evaluation.report.recall import recall_facts
from bertlora.evaluation.report.run_facts import data_name
from bertlora.evaluation.report.tables import headline
from bertlora.evaluation.side_by_side import pair_rows
from bertlora.evaluation.slices import column_slices, slice_figures
from bertlora.evaluation.verdict import Evaluated, evaluate_rows, figures
from bertlora.model.explain import Explanation, Word
from bertlora.pipeline.training_run import split_examples, train_run
from bertlora.recipe import Recipe
from bertlora.run.loaded import Run

Table = dict[str, Any]

HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)> \u202e\" '&amp; {{ 7 * 7 }}"
LABELS = ["<b>bad</b>", "good & fine"]


@pytest.fixture(scope="module")
def trained(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Prepared, Material]:
    """A run on tiny texts, one of them hostile, evaluated on its test split, with attributions of the worst errors."""
    from bertlora.model.explain import explain

    folder = tmp_path_factory.mktemp("report")
    rows = [(f"{t} {i}", label) for i in range(4) for part, label in ((GOOD, 1), (BAD, 0)) for t in part]
    # Half of these carry the wrong label, so that some are sure errors wherever they are split to.
    rows += [(f"{HOSTILE} a mess {i}", i % 2) for i in range(24)]
    lines = [json.dumps({"text": text, "label": LABELS[label]}) for text, label in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = prepare([str(folder / "rows.jsonl")], folder / "data", split="40/30/30")
    train_run(data, small_recipe(tiny("bert"), targets=("all-linear",), epochs=3, batch_size=8), folder / "a<i>run")
    run = Run.load(folder / "a<i>run")
    examples = split_examples(run.adapted.reader, data, "test")
    evaluated, texts = evaluate_rows(run, examples, data.split("test"), rows_name="test rows"), data.split("test").texts
    worst = worst_rows(evaluated)
    # Slices of more rows than a run on tiny texts has; one of them has a hostile name.
    sources = np.array([HOSTILE, "web", "mail"] * 40)
    sliced = slice_figures(sources != HOSTILE, list(column_slices("source", sources.tolist())))
    material = Material(
        evaluated=evaluated,
        where="test split",
        texts=texts,
        inputs=examples.inputs,
        lengths_where="test split",
        slices=sliced,
        explanations=dict(zip(worst, explain(run.adapted, [texts[i] for i in worst]), strict=True)),
        doubtful=[{"row": 1234, "given": LABELS[0], "suggested": LABELS[1], "confidence": 0.9, "text": HOSTILE}],
        advice=[{"topic": "x", "text": f"Read this: {HOSTILE}", "figure": "7 of 9 <rows>"}],
    )
    return run, data, material


@pytest.fixture(scope="module")
def facts(trained: tuple[Run, Prepared, Material]) -> Table:
    run, _, material = trained
    return facts_of(run, material)


@pytest.fixture(scope="module")
def page(facts: Table) -> Page:
    return Page(render(facts))


def test_facts_are_json_and_rendering_is_pure(facts: Table) -> None:
    copy = json.loads(json.dumps(facts, allow_nan=False))
    html = render(facts)
    assert render(copy) == html == render(facts)
    assert copy == facts


def test_facts_are_those_of_evaluate(trained: tuple[Run, Prepared, Material], facts: Table) -> None:
    _, _, material = trained
    assert material.evaluated is not None
    found = figures(material.evaluated)
    assert facts["verdict"]["sentence"] == found["verdict"]
    shown = {c.pop("name"): c for c in json.loads(json.dumps(facts["verdict"]["classifiers"]))}
    assert list(shown) == ["base, untrained head", "linear probe", "TF-IDF", "LoRA"]
    expected = [json.loads(json.dumps(found[name])) for name in ("base", "probe", "tfidf", "lora")]
    assert list(shown.values()) == expected
    assert facts["calibration"]["before"]["ece"] == found["uncalibrated"]["ece"]
    assert facts["calibration"]["after"]["ece"] == found["lora"]["ece"]


def test_any_number_of_classifiers_is_shown_by_name(facts: Table) -> None:
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(size=(90, 2)) for name in ("lora", "stranger", "tfidf", "probe", "base")}
    part = facts_verdict(Evaluated(LABELS, np.arange(90) % 2, logits))
    names = ["base, untrained head", "linear probe", "TF-IDF", "stranger", "LoRA"]
    assert [c["name"] for c in part["classifiers"]] == names
    shown = Page(render(facts | {"verdict": part}))
    accuracies = {key: 100 * np.mean(one.argmax(axis=1) == np.arange(90) % 2) for key, one in logits.items()}
    for name, key in zip(names, ("base", "probe", "tfidf", "stranger", "lora"), strict=True):
        assert f"{name}, {accuracies[key]:.1f} %" in shown.text


def drawn(rng: np.random.Generator, rows: int, heat: float, shares: tuple[float, ...] = (0.5, 0.5)) -> Evaluated:
    """Rows whose probabilities are right if `heat` is 1, and overconfident above it."""
    logits = 2 * rng.normal(size=(rows, len(shares))) + np.log(shares)
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return Evaluated([f"class {k}" for k in range(len(shares))], labels, {"lora": heat * logits})


@pytest.mark.parametrize(("heat", "said"), [(1.0, "no miscalibration is shown"), (3.0, "more than chance gives")])
def test_the_sentence_on_calibration_says_what_chance_gives(heat: float, said: str) -> None:
    rows = 300
    part = calibration_facts(drawn(np.random.default_rng(2), rows, heat), fitted=False, met="")
    first, last = calibration_sentences(part)
    before = part["before"]
    assert said in first
    assert f"by {100 * before['ece']:.1f} points" in first
    assert f"With {rows} rows, perfect probabilities would differ by {100 * before['ece_floor']:.1f} points" in first
    assert (f"{100 * (before['ece'] - before['ece_floor']):.1f} points are more" in first) == (heat > 1)
    least, most = (100 * end for end in before["ece_ci95"])
    assert f"(95 % CI of the true error {least:.1f} to {most:.1f})" in first
    assert last == "No temperature was fitted."
    border = before | {"ece_ci95": [0, 0.2], "ece": before["ece_floor_range95"][1] + 0.01, "above_chance": False}
    assert "a borderline case" in calibration_sentences(part | {"before": border})[0]
    fitted = calibration_facts(drawn(np.random.default_rng(2), rows, heat), fitted=True, met="validation")
    assert [line.split(",")[0] for line in calibration_sentences(fitted)] == [
        "With temperature 1.00",
        "Without temperature scaling",
        "The temperature was fitted on these rows",
    ]


def test_precision_and_recall_are_those_at_the_thresholds(
    trained: tuple[Run, Prepared, Material], facts: Table, page: Page
) -> None:
    evaluated = trained[2].evaluated
    assert evaluated is not None
    (one,) = facts["precision_recall"]["classes"]
    figures_of_lora = facts["verdict"]["classifiers"][-1]
    assert one["average_precision"] == pytest.approx(figures_of_lora["average_precision"])
    assert one["share"] == pytest.approx(np.mean(evaluated.y_true == 1))
    score, positive = np.diff(evaluated.logits("lora"))[:, 0], evaluated.y_true == 1
    above = score >= score[:, None]  # a row for each threshold
    found = (above & positive).sum(axis=1)
    points = np.stack([found / positive.sum(), found / above.sum(axis=1)], axis=1)
    for point in one["curve"]:
        assert np.abs(points - point).sum(axis=1).min() < 1e-9
    assert f"average precision {one['average_precision']:.3f}" in page.text


def test_of_imbalanced_rows_each_class_has_a_curve_the_rarest_first() -> None:
    rng = np.random.default_rng(4)
    two = recall_facts(drawn(rng, 2000, 1.0, (0.95, 0.05)))
    assert two is not None
    assert [one["label"] for one in two["classes"]] == ["class 1", "class 0"]
    three = recall_facts(drawn(rng, 2000, 1.0, (0.6, 0.04, 0.36)))
    assert three is not None
    assert [one["label"] for one in three["classes"]] == ["class 1", "class 2", "class 0"]
    for one in three["classes"]:
        recalls = [recall for recall, _ in one["curve"]]
        assert recalls == sorted(recalls)
        assert (len(recalls) <= 201, recalls[-1]) == (True, 1)
        # The area below steps between the points of the whole curve is the average precision.
        steps = np.diff([0.0, *recalls]) @ [precision for _, precision in one["curve"]]
        assert steps == pytest.approx(one["average_precision"], abs=0.02)
    assert recall_facts(drawn(rng, 300, 1.0, (0.3, 0.3, 0.4))) is None
    assert recall_facts(Evaluated(LABELS, np.zeros(9, dtype=np.int64), {"lora": np.zeros((9, 2))})) is None


def test_risk_coverage_equals_sorting_the_rows(trained: tuple[Run, Prepared, Material], facts: Table) -> None:
    _, _, material = trained
    evaluated = material.evaluated
    assert evaluated is not None
    probabilities = softmax(evaluated.raw_logits["lora"] / evaluated.calibration.temperature)
    for point in facts["risk_coverage"]["curve"]:
        answered = probabilities.max(axis=1) >= point["confidence"]
        assert point["coverage"] == pytest.approx(answered.mean())
        assert point["risk"] == pytest.approx(np.mean(~evaluated.right("lora")[answered]))
    assert facts["risk_coverage"]["curve"][-1]["coverage"] == 1
    assert len(facts["risk_coverage"]["curve"]) > 5


def test_errors_are_wrong_most_confident_first_and_whole(trained: tuple[Run, Prepared, Material], facts: Table) -> None:
    _, data, material = trained
    evaluated, rows = material.evaluated, data.split("test")
    assert evaluated is not None
    errors = facts["errors"]
    wrong = evaluated.raw_logits["lora"].argmax(axis=1) != rows.labels
    assert errors["count"] == wrong.sum() > 0
    assert len(errors["shown"]) == min(8, errors["count"])
    confidences = [one["confidence"] for one in errors["shown"]]
    assert confidences == sorted(confidences, reverse=True)
    for one in errors["shown"]:
        assert wrong[one["row"]]
        assert one["given"] == LABELS[rows.labels[one["row"]]] != one["predicted"]
        (text,) = one["texts"]
        assert "".join(piece["text"] for piece in text["pieces"]) == rows.texts[one["row"]]
        weights = [piece["weight"] for piece in text["pieces"] if piece["weight"] is not None]
        assert max(abs(weight) for weight in weights) == 1
    unsure = softmax(evaluated.raw_logits["lora"] / evaluated.calibration.temperature).max(axis=1)
    assert confidences[-1] >= np.sort(unsure[wrong])[::-1][len(confidences) - 1] - 1e-12


def test_of_a_long_text_the_passage_with_the_largest_attributions_is_shown() -> None:
    text = "word " * 300 + "very " * 60 + "word " * 300
    words = [Word(w.group(), w.start(), w.end(), 0.1) for w in re.finditer(r"\w+", text)]
    words = [replace(w, attribution=-4.0) if w.text == "very" else w for w in words]
    (found,) = shown_texts([text], Explanation("a", "b", words, None, 1.0, 0.0, 0.0))
    shown = "".join(piece["text"] for piece in found["pieces"])
    assert shown in text
    assert 590 < len(shown) <= 600
    assert shown.count("very") == 60
    assert (found["before"], found["after"]) == (True, True)
    assert {p["weight"] for p in found["pieces"] if p["text"] == "very"} == {-1.0}


@pytest.mark.parametrize("text", ["x" * 700, "word " * 200, " " * 700 + "end", "a short one", "y" * 650 + " end"])
@pytest.mark.parametrize("explained", [True, False])
def test_a_passage_is_never_too_long(text: str, explained: bool) -> None:
    words = [Word(w.group(), w.start(), w.end(), 1.0) for w in re.finditer(r"\S+", text)] if explained else []
    found = passage(text, words, 1.0)
    shown = "".join(piece["text"] for piece in found["pieces"])
    assert 0 < len(shown) <= 600
    assert shown in text
    assert found["before"] or text.strip().startswith(shown.strip())
    assert found["after"] or text.strip().endswith(shown.strip())
    assert len(text) > 600 or shown == text


def test_both_texts_of_a_pair_are_shown(facts: Table) -> None:
    evaluated = Evaluated(LABELS, np.array([0, 1]), {"lora": np.array([[0.0, 2.0], [0.0, 2.0]])})
    errors = error_facts(evaluated, ["first one", "first two"], ["second one", "second two"], {})
    assert [part["pieces"][0]["text"] for part in errors["shown"][0]["texts"]] == ["first one", "second one"]
    found = Page(render(facts | {"errors": errors}))
    assert found.quoted == "first onesecond one"
    assert "solid underline" not in found.text


def test_pairs_share_one_scale() -> None:
    words = [[Word("good", 0, 4, 1.0)], [Word("bad", 0, 3, -2.0)]]
    found = shown_texts(["good", "bad"], Explanation("a", "b", *words, 1.0, 0.0, 0.0))
    assert [part["pieces"] for part in found] == [[{"text": "good", "weight": 0.5}], [{"text": "bad", "weight": -1.0}]]


def test_hostile_texts_are_escaped(page: Page, facts: Table) -> None:
    assert page.of("script", "img", "b", "i") == []
    assert [a for a in page.of(*{tag for tag, _ in page.elements}) if any(key.startswith("on") for key in a)] == []
    # In the advice, the slices and their sentence, the doubtful labels and the errors; the sign that turns the reading
    # direction is gone.
    shown = HOSTILE.replace("\u202e", "\ufffd")
    errors = ["".join(p["text"] for p in one["texts"][0]["pieces"]) for one in facts["errors"]["shown"]]
    assert sum(HOSTILE in text for text in errors) == page.quoted.count(shown) > 0
    assert page.text.count(shown) == 4
    assert "<b>bad</b>" in page.text
    assert "\u202e" not in page.text
    assert "49" not in [word for _, data in page.words for word in data.split()]


def test_characters_that_html_forbids_are_replaced(facts: Table) -> None:
    advice = [{"text": "a\x00b\x1bc\ud800d\x85e\ufffff", "figure": "tab\tand\nline"}]
    html = render(facts | {"advice": advice})
    assert "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf" in html
    html.encode("utf-8")


def test_every_section_is_there_in_order(page: Page) -> None:
    assert [a["id"] for a in page.of("section")] == list(SECTIONS)
    assert [a["href"] for a in page.of("a")] == ["#content", *(f"#{name}" for name in SECTIONS)]
    assert set(NOTES) <= set(SECTIONS)
    assert "missing" not in {a.get("class") for a in page.of("p")} or "The checks found nothing." in page.text


def test_the_file_needs_nothing_else(page: Page, facts: Table) -> None:
    for tag, attributes in page.elements:
        for key in ("src", "href", "action", "data", "srcset", "poster"):
            if key in attributes:
                assert attributes[key].startswith("#") or attributes[key] == "data:,", (tag, attributes)
    html = render(facts)
    assert re.findall(r"url\(|@import|https?:", html) == []
    assert len(html.encode()) < 200_000


def test_screen_readers_can_read_it(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for key in ("aria-labelledby", "aria-describedby"):
            assert set(attributes.get(key, "").split()) <= set(ids)
    assert page.of("html") == [{"lang": "en"}]
    for landmark in ("header", "nav", "main", "footer", "title", "h1"):
        assert (
            sum(tag == landmark and "svg" not in up for (tag, _), up in zip(page.elements, page.parents, strict=True))
            == 1
        )
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == [1] + [2] * len(SECTIONS)
    assert all(a.get("scope") in ("col", "row") for a in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table")) > 8
    regions = [a for a in page.of("div") if a.get("class") == "scroll"]
    assert len(regions) == len(page.of("table"))
    assert all(a["role"] == "region" and a["aria-label"] and a["tabindex"] == "0" for a in regions)


def test_every_chart_is_a_picture_with_title_description_and_table(page: Page) -> None:
    charts = [a for a in page.of("svg") if "aria-hidden" not in a]
    assert len(charts) == 7 == len(page.of("figure"))
    assert all(a["role"] == "img" for a in charts)
    assert [len(page.of(tag)) for tag in ("desc", "figcaption")] == [7, 7]
    # Each figure holds a table with its numbers.
    tables = [up for (tag, _), up in zip(page.elements, page.parents, strict=True) if tag == "table" and "figure" in up]
    assert len(tables) == 7
    titles = [data for tag, data in page.words if tag == "title"]
    assert len(titles) == 8
    assert all(titles)


def test_signs_are_shown_without_colour(page: Page, facts: Table) -> None:
    pieces = [p for one in facts["errors"]["shown"] for text in one["texts"] for p in text["pieces"]]
    for name, sign in (("for", 1), ("against", -1)):
        shaded = [p for p in pieces if p["weight"] is not None and sign * p["weight"] >= 0.2]
        assert sum(a.get("class") == name for a in page.of("span")) == len(shaded) + 1  # one in the legend
    css = next(data for tag, data in page.words if tag == "style")
    assert "text-decoration-style: solid" in css
    assert "text-decoration-style: dotted" in css


def test_numbers_on_the_page_are_those_of_the_facts(page: Page, facts: Table) -> None:
    lora = facts["verdict"]["classifiers"][-1]
    assert f"{100 * lora['accuracy']:.1f} %" in page.text
    for line in lora["confusion"]:
        for count in line:
            assert f"{count} {100 * count / sum(line):.1f} %" in page.text
    for line in lora["per_class"].values():
        assert f"{line['precision']:.3f} {line['recall']:.3f} {line['f1']:.3f} {line['support']}" in page.text
    for line in facts["training"]["epochs"]:
        assert f"{line['train_loss']:.4f} {line['validation_loss']:.4f}" in page.text
    for value in ("53aa51", facts["origin"]["fingerprint"], facts["origin"]["sha256"]):
        assert value in page.text or value == "53aa51"
    assert "7 of 9 <rows>" in page.text
    assert "epochs 3 3" not in page.text  # the same as in the recipe `default`
    assert "batch_size 8 16" in page.text


SENTENCES = {
    "verdict": "No labelled rows were evaluated.",
    "advice": "This run has no advice",
    "training": "The folder has no training history",
    "slices": "The texts of the evaluated rows were not available, so there are no slices.",
    "calibration": "No labelled rows were evaluated.",
    "lengths": "The texts were not available",
    "errors": "The texts of the evaluated rows were not available.",
    "doubtful": "The labels were not audited.",
    "checks": "The training data of this run is not available.",
    "recipe": "The folder has no recipe",
}


@pytest.mark.parametrize("part", SENTENCES)
def test_a_part_without_facts_says_so(part: str, facts: Table, page: Page) -> None:
    gone = facts | {part: None} | ({"risk_coverage": None} if part == "calibration" else {})
    without = Page(render(gone))
    assert SENTENCES[part] in without.text
    assert SENTENCES[part] not in page.text
    assert [a["id"] for a in without.of("section")] == list(SECTIONS)


def test_a_report_with_only_an_adapter(trained: tuple[Run, Prepared, Material], tmp_path: Path) -> None:
    """As it is for an adapter that PEFT trained: no history, no recipe, no data."""
    run, _, _ = trained
    bare = Run(tmp_path, run.manifest, run.adapted, UNCALIBRATED)
    empty = facts_of(bare, Material())
    left = {"name", "task", "origin", "checks"}
    assert {key for key, value in empty.items() if value is not None} <= left
    found = Page(render(empty))
    assert sum(a.get("class") == "missing" for a in found.of("p")) >= len(SECTIONS) - 2


def test_nothing_wrong_and_nothing_doubtful(facts: Table) -> None:
    found = Page(render(facts | {"errors": facts["errors"] | {"shown": []}, "doubtful": [], "advice": []}))
    for sentence in (
        "All rows are right.",
        "The audit found no doubtful label.",
        "No measurement suggests a change.",
    ):
        assert sentence in found.text


def test_many_classes_give_the_most_frequent_confusions(facts: Table) -> None:
    labels = [f"class {i}" for i in range(30)]
    evaluated = Evaluated(labels, np.arange(90) % 30, {"lora": np.eye(30)[(np.arange(90) * 7) % 30]})
    many = facts | {"verdict": facts_verdict(evaluated)}
    found = Page(render(many))
    assert "confusion" not in {a.get("class") for a in found.of("table")}
    assert "The most frequent confusions" in found.text
    assert "These 20 of 30 classes have the lowest F1." in found.text
    assert "All 30 classes" in found.text
    assert "The right class is among LoRA's first 3 for" in found.text
    three = Evaluated(labels[:3], np.arange(9) % 3, {"lora": np.eye(3)[(np.arange(9) // 3) % 3]})
    found = Page(render(facts | {"verdict": facts_verdict(three)}))
    assert "confusion" in {a.get("class") for a in found.of("table")}
    assert "class 0 class 1 1 33.3 %" in found.text


def facts_verdict(evaluated: Evaluated) -> Table:
    from bertlora.evaluation.report.facts import verdict_facts

    return verdict_facts(evaluated, "made up", Met(len(evaluated.y_true), 0, len(evaluated.y_true)))


def test_without_rivals_the_verdict_is_the_accuracy(facts: Table) -> None:
    evaluated = Evaluated(LABELS, np.array([0, 1] * 20), {"lora": np.eye(2)[[0, 1] * 15 + [1, 0] * 5]})
    part = facts_verdict(evaluated)
    assert part["sentence"].startswith("LoRA gets 75.0 % of 40 rows right, 95 % CI ")
    found = Page(render(facts | {"verdict": part}))
    assert "The simpler classifiers have not run on these rows" in found.text
    assert "The epoch and the temperature were chosen on these rows" in found.text


def test_the_headline_says_the_task_the_data_and_the_accuracy(page: Page, facts: Table) -> None:
    accuracy = f"{100 * facts['verdict']['classifiers'][-1]['accuracy']:.1f} % accuracy on {facts['verdict']['n']}"
    task = "Classify texts as <b>bad</b> or good & fine: "
    (shown,) = [data for tag, data in page.words if tag == "h1"]
    assert " ".join(shown.split()) == f"{task}{accuracy} test rows of rows.jsonl" == headline(facts)
    elsewhere = facts | {"verdict": facts["verdict"] | {"where": "new/more.csv, test split"}}
    assert headline(elsewhere) == f"{task}{accuracy} test rows of more.csv"
    assert headline(facts | {"verdict": None}) == f"{task}trained on rows.jsonl"
    many = {"labels": [str(k) for k in range(14)], "pairs": True, "data": ""}
    assert headline(facts | {"task": many}) == f"Classify text pairs into 14 classes: {accuracy} test rows"
    assert headline(facts | {"task": many | {"labels": ["a", "b", "c"]}, "verdict": None}) == (
        "Classify text pairs as a, b or c: no accuracy measured"
    )


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (("/home/me/reviews.csv",), "reviews.csv"),
        (("train=/data/sst2/a.tsv", "validation=/data/sst2/b.tsv"), "sst2"),
        (("hub:stanfordnlp/imdb",), "stanfordnlp/imdb"),
        (tuple(embedded_specs()), "the embedded film reviews"),
        ((), ""),
    ],
)
def test_data_has_a_short_name(sources: tuple[str, ...], name: str) -> None:
    run = SimpleNamespace(recipe=lambda: Recipe().replace(data=sources), data_folder=None)
    assert data_name(run) == name  # type: ignore[arg-type]


def test_after_training_the_model_does_not_run_again(
    trained: tuple[Run, Prepared, Material], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, _ = trained
    assert run.calibration is not None
    train = split_examples(run.adapted.reader, data, "train")
    monkeypatch.setattr(run.adapted.model, "forward", lambda *_, **__: pytest.fail("the model ran"))
    path = report_training(run, data, train.inputs)
    assert path == run.path / "report.html"
    found = Page(path.read_text(encoding="utf-8"))
    accuracy = run.metrics()["validation"]["accuracy"]
    assert f"LoRA gets {100 * accuracy:.1f} % of {data.rows['validation']} validation rows right" in found.text
    assert run.metrics()["advice"][0]["figure"] in found.text if run.metrics()["advice"] else True
    assert "Most confident errors" in found.text
    assert "No slice has 20 rows or more" in found.text
    path.unlink()


def test_a_report_is_written_whole_or_not_at_all(
    trained: tuple[Run, Prepared, Material], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, _ = trained
    bare = Run(tmp_path, run.manifest, run.adapted, UNCALIBRATED)
    assert write_report(bare, Material()).read_text(encoding="utf-8").endswith("</html>\n")
    (tmp_path / "report.html").write_text("old")

    opened = Path.open

    def full(self: Path, *words: Any, **options: Any) -> Any:
        if ".partial" in self.name:
            raise OSError(28, "No space left on device")
        return opened(self, *words, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=r"report\.html: cannot be written"):
        write_report(bare, Material())
    monkeypatch.undo()
    assert (tmp_path / "report.html").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


lengths_of_texts = st.lists(st.integers(1, 400), min_size=1, max_size=60)


@settings(deadline=None)
@given(lengths_of_texts, st.sampled_from(["right", "left", "head-tail"]), st.sampled_from(["truncate", "windows"]))
def test_tokens_read_are_those_in_the_windows(lengths: list[int], truncation: str, long_texts: str) -> None:
    one = np.array([1_000_000], dtype=np.int32)
    framing = InputTemplate((one, one), None, (0, 0), 18, truncation, long_texts)
    rows = [list(range(1000 * i, 1000 * i + n)) for i, n in enumerate(lengths)]
    inputs = Inputs(framing, TokenTable.of(rows))
    found = length_facts(inputs, "made up")
    assert found is not None
    read = {int(token) for p in range(len(inputs.windows.texts)) for token in inputs.window(p)[0]} - {1_000_000}
    whole = {token for row in rows for token in row}
    assert read <= whole
    assert found["tokens_lost_share"] == pytest.approx(1 - len(read) / len(whole))
    assert found["cut"] == sum(not set(row) <= read for row in rows)
    assert found["ways"][long_texts]["tokens_lost_share"] == pytest.approx(found["tokens_lost_share"])
    assert found["ways"]["windows"]["tokens_lost_share"] <= found["ways"]["truncate"]["tokens_lost_share"]
    assert found["ways"]["truncate"]["run_share"] <= found["ways"]["windows"]["run_share"]
    assert found["over"] == sum(n > 16 for n in lengths)
    assert found["longest"] == max(lengths)
    # Every text is counted once, and a bin never mixes texts that fit with texts that do not.
    assert sum(count for *_, count in found["bins"]) + found["longer"] == len(lengths)
    for low, high, count in found["bins"]:
        assert count == sum(low <= n < high for n in lengths)
        assert high <= 17 or low >= 17
    assert len(found["bins"]) <= 26


def test_pairs_are_as_long_as_both_texts() -> None:
    one = np.array([9], dtype=np.int32)
    framing = InputTemplate((one, one), (one, one, one), (0, 1), 13, "right")
    inputs = Inputs(framing, TokenTable.of([[1] * 4, [1] * 8]), TokenTable.of([[1] * 5, [1] * 8]))
    found = length_facts(inputs, "made up")
    assert found is not None
    assert (found["room"], found["longest"], found["over"], found["cut"]) == (10, 16, 1, 1)
    assert found["tokens_lost_share"] == pytest.approx(6 / 25)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_enclose_the_values(low: float, width: float, most: int) -> None:
    ticks = round_ticks(low, low + width, most)
    steps = np.diff(ticks)
    assert 2 <= len(ticks) <= most + 2
    assert np.allclose(steps, steps[0])
    slack = 1e-6 * steps[0] + 1e-12
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack
    digits = float(f"{steps[0]:.0e}") / 10 ** np.floor(np.log10(steps[0]) + 1e-9)
    assert round(digits, 6) in (1, 2, 5, 10)


@given(st.floats(0, 1), st.floats(0, 1))
def test_ticks_of_shares_are_shares(first: float, second: float) -> None:
    low, high = sorted((first, second))
    ticks = share_ticks(low, high)
    assert 0 <= ticks[0] <= low + 1e-9
    assert high - 1e-9 <= ticks[-1] <= 1
    assert len(ticks) >= 2


@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("right", [True, False])
def test_one_row_and_identical_rows_can_be_drawn(
    trained: tuple[Run, Prepared, Material], rows: int, right: bool
) -> None:
    run, _, material = trained
    assert material.inputs is not None
    logits = np.tile([9.0, -9.0] if right else [-9.0, 9.0], (rows, 1))
    evaluated = Evaluated(LABELS, np.zeros(rows, dtype=np.int64), dict.fromkeys(("base", "probe", "lora"), logits))
    found = Page(
        render(facts_of(run, Material(evaluated=evaluated, texts=["a text"] * rows, inputs=material.inputs.take([0]))))
    )
    assert ("All rows are right." in found.text) == right
    assert f"{100 * right:.1f} %" in found.text
    over = [word for word in re.findall(r"([\d.]+) %", found.text) if float(word) > 100]
    assert over == []


def test_report_verb_evaluates_and_prints_the_path(
    trained: tuple[Run, Prepared, Material], facts: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data, _ = trained
    doubtful = tmp_path / "doubtful.csv"
    doubtful.write_text(
        "row,given,suggested,confidence,label_quality,doubtful,fold,text\n"
        "7,good & fine,<b>bad</b>,0.97,0.01,true,1,an odd one\n"
        "8,good & fine,good & fine,0.99,0.99,false,1,a sound one\n"
    )
    found = good(capsys, "report", run.path, "--data", data.folder, "--audit", doubtful, "--out", tmp_path / "r.html")
    assert found.out == f"{tmp_path / 'r.html'}\n"
    shown = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    lines = facts["verdict"]["sentence"].split("\n")
    assert len(lines) > 1
    assert all(line in shown.text for line in lines)
    assert "an odd one" in shown.text
    assert "a sound one" not in shown.text
    assert "solid underline" in shown.text


def test_slices_of_a_column_are_in_the_report_and_in_evaluate(
    trained: tuple[Run, Prepared, Material], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, _ = trained
    rows = [
        f"{text} {i},{LABELS[label]},{i % 3}"
        for i in range(9)
        for part, label in ((GOOD, 1), (BAD, 0))
        for text in part
    ]
    (tmp_path / "more.csv").write_text("text,label,shelf\n" + "\n".join(rows) + "\n")
    flags = ("--data", tmp_path / "more.csv", "--slice-column", "shelf")
    found = good(capsys, "evaluate", run.path, *flags, "--json").json["slices"]
    shelves = [one for one in found["found"] if one["kind"] == "column"]
    assert {one["name"] for one in shelves} == {"shelf = 0", "shelf = 1", "shelf = 2"}
    assert sum(one["n"] for one in shelves) == len(rows)
    assert {one["kind"] for one in found["found"]} >= {"length", "column"}
    assert found["verdict"] in good(capsys, "evaluate", run.path, *flags).out
    facts = good(capsys, "report", run.path, *flags, "--out", tmp_path / "r.html", "--json").json["facts"]
    assert facts["slices"] == found
    assert "shelf = 1" in Page((tmp_path / "r.html").read_text(encoding="utf-8")).text


def test_report_verb_does_without_attributions(
    trained: tuple[Run, Prepared, Material], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, _ = trained

    def cannot(*_: Any) -> None:
        raise ModelError("the tokenizer does not tell")

    monkeypatch.setattr("bertlora.model.explain.explain", cannot)
    found = good(capsys, "report", run.path, "--data", data.folder, "--split", "validation", "--json")
    assert "the report has no attributions: the tokenizer does not tell" in found.err
    printed = found.json
    assert not printed["facts"]["errors"]["explained"]
    assert printed["report"] == str(run.path / "report.html")
    assert "chosen on these rows" in printed["facts"]["verdict"]["caution"]
    assert printed["facts"]["verdict"]["n"] == data.rows["validation"]
    rows = data.split("validation").rows.tolist()
    assert {one["row"] for one in printed["facts"]["errors"]["shown"]} <= set(rows) != set(range(len(rows)))
    (run.path / "report.html").unlink()


def test_report_verb_refuses_in_one_line(
    trained: tuple[Run, Prepared, Material], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data, _ = trained
    there = tmp_path / "there.html"
    there.write_text("mine")
    csv = tmp_path / "other.csv"
    csv.write_text("a,b\n1,2\n")
    lame = tmp_path / "lame.csv"
    lame.write_text("row,given,suggested,confidence,doubtful,text\nx,a,b,0.5,true,t\n")
    before = contents(run.path)
    for argv, fault in (
        ((tmp_path / "none",), "no such run folder"),
        ((run.path, f"{run.path}/"), "expected two or more different runs"),
        ((run.path, "--out", there), "is there already"),
        ((run.path, "--out", tmp_path), "is a folder"),
        ((run.path, "--out", tmp_path / "no" / "r.html"), "not a folder that may be written to"),
        ((run.path, "--audit", tmp_path / "none.csv"), "cannot be read"),
        ((run.path, "--audit", csv), "has no column 'row'"),
        ((run.path, "--audit", lame), "a line cannot be read"),
        ((run.path, tmp_path, "--audit", csv), "a comparison has no doubtful labels"),
        ((run.path, "--data", data.folder, "--split", "dev"), "has no dev split"),
        ((run.path, "--slice-column", "a"), "--slice-column: the run's own data keeps only texts and labels"),
        ((run.path, "--data", data.folder, "--slice-column", "a"), "keeps only texts and labels"),
        ((run.path, "--data", csv, "--slice-column", "c"), "other.csv: column 'c' is not one of its columns, 'a', 'b'"),
        ((run.path, tmp_path, "--slice-column", "a"), "a comparison has no slices"),
    ):
        found = answer(capsys, "report", *argv)
        assert found.status == 2, argv
        assert fault in found.err
        assert found.err.splitlines()[-1].startswith("bertlora: ")
        assert found.out == ""
    assert contents(run.path) == before
    assert there.read_text() == "mine"


@pytest.fixture(scope="module")
def compared(
    trained: tuple[Run, Prepared, Material], tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Two runs on the same data, the second for one epoch with another rank."""
    run, data, _ = trained
    other = tmp_path_factory.mktemp("other") / "b"
    train_run(data, small_recipe(tiny("distilbert"), epochs=1, rank=2, batch_size=8), other)
    return run.path, other


def test_two_runs_are_compared(
    compared: tuple[Path, Path], trained: tuple[Run, Prepared, Material], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = compared
    _, data, material = trained
    by_default = good(capsys, "report", first, second, "--data", data.folder, "--json").json["facts"]
    assert by_default["where"] == f"{data.folder}, validation split", (
        "these rows may choose a run; the test rows may not"
    )
    found = good(capsys, "report", first, second, "--data", data.folder, "--split", "test", "--json").json
    path = first / "comparison.html"
    assert found["report"] == str(path)
    shown = Page(path.read_text(encoding="utf-8"))
    path.unlink()
    facts = found["facts"]
    assert facts["names"] == ["a<i>run", "b"]
    assert facts["n"] == data.rows["test"]
    assert material.evaluated is not None
    assert facts["classifiers"][0]["accuracy"] == pytest.approx(material.evaluated.right("lora").mean())
    (pair,) = pair_rows(facts["ranking"], facts["pairs"])
    assert " ".join(pair) in shown.text
    best = max(facts["classifiers"], key=lambda c: c["accuracy"])
    assert f"run accuracy 95 % CI macro F1 log loss ECE ECE by chance 1. {best['name']} " in shown.text
    assert shown.text.index(f"1. {best['name']} ") < shown.text.index(" ".join(pair))
    assert (
        f"Classify texts as <b>bad</b> or good & fine: {100 * best['accuracy']:.1f} % accuracy with {best['name']}, "
        f"the best of 2 runs, on {facts['n']} test rows of data"
    ) in shown.text
    assert facts["choice"] is None if facts["n"] < 30 else facts["choice"]["sentence"] in shown.text
    assert facts["note"] in shown.text
    assert {"rank", "epochs", "model", "targets"} == {row["key"] for row in facts["recipe"]}
    assert "rank 8 2" in shown.text
    assert [a["id"] for a in shown.of("section")] == ["verdict", "training", "classes", "recipe", "origin"]
    assert len([a for a in shown.of("svg") if a.get("role") == "img"]) == 3
    assert shown.of("i", "script") == []


SCREENSHOT = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "make_screenshot.py"))
ARGUMENTS, CHROMIUM = SCREENSHOT["ARGUMENTS"], SCREENSHOT["CHROMIUM"]

# Elements with text of their own, the colour of that text, and what lies behind it, over the page's ground.
COLOURS = """
() => {
  const parts = (colour) => {
    const n = colour.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = colour.startsWith("color(srgb") ? 255 : 1;
    return [n[0] * scale, n[1] * scale, n[2] * scale, n.length > 3 ? n[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat([1]);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parts(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ["STYLE", "title", "desc"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const text = parts(element.closest("svg") ? style.fill : style.color);
    const ground = behind(element);
    found.push([element.tagName + "." + element.getAttribute("class"), over(text, ground), ground]);
  }
  return found;
}
"""


def luminance(colour: list[float]) -> float:
    """WCAG's relative luminance of an sRGB colour in 0..255."""
    shares = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: list[float], second: list[float]) -> float:
    """WCAG's contrast ratio, 1..21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(facts: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "report.html"
    path.write_text(render(facts), encoding="utf-8")
    return path


# The words in tables that stand on more than one line; words of more than 30 letters, such as hashes, may.
BROKEN = r"""
() => {
  const found = [];
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  for (const table of document.querySelectorAll("table")) {
    const texts = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
      for (const word of node.data.matchAll(/[\p{L}\p{N}_.]+/gu)) {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].map((r) => Math.round(r.top)));
        if (lines.size > 1 && word[0].length <= 30) found.push(word[0]);
      }
    }
  }
  return found;
}
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_tables_break_no_word(
    browser: Any,
    file: Path,
    compared: tuple[Path, Path],
    width: int,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    comparison = tmp_path / "comparison.html"
    good(capsys, "report", *compared, "--out", comparison)
    shown = browser.new_page(viewport={"width": width, "height": 800})
    for path in (file, comparison):
        shown.goto(path.as_uri())
        assert shown.evaluate(BROKEN) == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_in_a_browser(browser: Any, file: Path, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    shown = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(file.as_uri(), wait_until="networkidle")
    shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert said == []
    assert [url for url in asked if url != "data:,"] == [file.as_uri()]
    assert shown.title() == "a<i>run: report"  # the hostile script has not run
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance([float(c) for c in re.findall(r"[\d.]+", ground)]) < 0.2) == (scheme == "dark")
    colours = shown.evaluate(COLOURS)
    assert len(colours) > 200
    poor = [(name, round(contrast(text, behind), 2)) for name, text, behind in colours if contrast(text, behind) < 4.5]
    assert poor == []
    context.close()


def test_no_script_runs_in_a_report_whatever_is_in_it(browser: Any, file: Path, tmp_path: Path) -> None:
    """As if nothing were escaped."""
    attack = (
        "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"><style>p{top:9px}</style>"
    )
    broken = tmp_path / "broken.html"
    broken.write_text(file.read_text().replace("</main>", f"{attack}<iframe srcdoc='a'></iframe></main>"))
    shown = browser.new_page()
    said: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.goto(broken.as_uri(), wait_until="networkidle")
    assert shown.title() == "a<i>run: report"
    assert shown.evaluate("getComputedStyle(document.querySelector('p')).top") == "auto"
    for what in ("inline script", "image", "inline style"):
        assert any(what in line and "Content Security Policy" in line for line in said), said
    shown.close()


def test_in_print(browser: Any, file: Path) -> None:
    shown = browser.new_page(viewport={"width": 688, "height": 1000}, color_scheme="dark")
    shown.goto(file.as_uri())
    shown.emulate_media(media="print")
    colours = shown.evaluate(COLOURS)
    assert min(contrast(text, behind) for _, text, behind in colours) >= 4.5
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("document.documentElement.scrollWidth") <= 688
    assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    shown.close()


def test_the_picture_in_the_documents_can_be_taken(browser: Any, file: Path, tmp_path: Path) -> None:
    """In a separate process, because playwright runs only once in a process."""
    script = Path(__file__).parents[2] / "docs" / "make_screenshot.py"
    subprocess.run([sys.executable, script, file, tmp_path / "report.png"], check=True)
    size = struct.unpack(">II", (tmp_path / "report.png").read_bytes()[16:24])
    assert size[0] == 1200
    assert 800 < size[1] < 3000


def test_keyboard_reaches_the_content(browser: Any, file: Path) -> None:
    shown = browser.new_page()
    shown.goto(file.as_uri())
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert shown.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "content"
    shown.close()
