"""The audit: planted flips are found, no model predicts rows it was trained on, and bad input gets one line."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Answer, answer, good
from hypothesis import given, settings
from hypothesis import strategies as st
from promises.audit import audited as simulated
from sklearn.metrics import average_precision_score
from small_training import GOOD, LABELS, TEXTS, examples, run_all, same, small_recipe

from bertlora.cli.auditing import show_audit
from bertlora.data.reader import Examples
from bertlora.data.rows import Split
from bertlora.errors import DataError, InputError
from bertlora.evaluation.audit import audit, deal_folds, doubts, text_groups
from bertlora.model.adapted import Adapted
from bertlora.model.engine.execution import Execution
from bertlora.model.state import trained_state
from bertlora.sealed import Kept
from bertlora.training.events import Step
from bertlora.training.folds import out_of_fold_logits
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]
IDS = np.array([1, 0] * len(GOOD), dtype=np.int64)
WORDS = [["joy", "lovely", "superb", "moving"], ["mess", "dull", "awful", "weak"], ["plain", "fair", "middling", "so"]]
TRUST = {"most_errors", "likely_right", "contradicted", "weak"}
# A model of two layers with random weights learns the words above in a moment.
QUICK = ("--max-length", "32", "--precision", "fp32", "--batch-size", "8", "--adapt-last-layers", "1")
QUICK += ("--learning-rate", "1e-2", "--epochs", "3")
# Where the folds matter, and not what a model learns.
ONE_STEP = ("--max-steps", "1")


def planted(rows: int, classes: int, flips: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts whose every word shows their class, their true classes, and the rows with a wrong label."""
    random = np.random.default_rng(3)
    true = np.arange(rows) % classes
    texts = [f"{' '.join(random.choice(WORDS[k], 6))} film {i}" for i, k in enumerate(true)]
    flipped = np.isin(np.arange(rows), random.choice(rows, flips, replace=False))
    return texts, true, flipped


def written(path: Path, texts: Sequence[str], labels: Sequence[Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *zip(texts, labels, strict=True)])
    return path


@pytest.fixture
def flipped_file(tmp_path: Path) -> tuple[Path, list[int]]:
    """A file of 80 rows, six with the wrong label, and these six."""
    texts, true, flipped = planted(80, 2, 6)
    names = np.array(["bad", "good"])[np.where(flipped, 1 - true, true)]
    return written(tmp_path / "flipped.csv", texts, names), np.flatnonzero(flipped).tolist()


def audited(capsys: pytest.CaptureFixture[str], tiny: Tiny, *argv: object) -> Answer:
    return good(capsys, "audit", *argv, "--model", tiny("bert"), *QUICK)


# Folds


@settings(max_examples=200, deadline=None)
@given(
    groups=st.lists(st.integers(0, 30), min_size=8, max_size=80),
    folds=st.integers(2, 5),
    classes=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_groups_are_in_one_fold_and_folds_are_balanced(groups: list[int], folds: int, classes: int, seed: int) -> None:
    y_true = np.array(groups) % classes  # the same for a whole group
    found = np.unique(groups)
    counts = np.bincount(found % classes, minlength=classes)
    names = [str(k) for k in range(classes)]
    if len(found) < folds or (counts > 0).sum() < 2 or (counts == 1).any():
        with pytest.raises(DataError):
            deal_folds(np.array(groups), y_true, folds, seed, names)
        return
    fold = deal_folds(np.array(groups), y_true, folds, seed, names)
    assert set(fold.tolist()) == set(range(folds))
    dealt = {group: set(fold[np.array(groups) == group].tolist()) for group in found.tolist()}
    assert all(len(whose) == 1 for whose in dealt.values())
    homes = np.array([min(dealt[group]) for group in found.tolist()])
    for k in range(classes):
        a_fold = np.bincount(homes[found % classes == k], minlength=folds)
        assert a_fold.max() - a_fold.min() <= 1
        assert counts[k] == 0 or a_fold.max() < counts[k]  # each fold leaves some of the class to learn from


def test_the_seed_decides_the_folds() -> None:
    groups, labels = np.arange(60), np.arange(60) % 2
    first, again, other = (deal_folds(groups, labels, 5, seed, LABELS) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_copies_are_one_group_and_others_are_not() -> None:
    texts = ["A joy, from start to finish!", "a joy from  START to finish", "a joy from start to end", ":-)", ":-("]
    assert len(set(text_groups(texts)[:2].tolist())) == 1
    assert len(set(text_groups(texts).tolist())) == 4
    first, second = ["a", "a", "a b"], ["b c", "b c.", "c"]
    assert [len(set(text_groups(first, second)[rows].tolist())) for rows in ([0, 1], [0, 2])] == [1, 2]


# Out of fold


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("bert", {"adapt_last_layers": 1}),
        ("bert", {"gradient_accumulation": 2, "class_weights": "balanced", "average_weights": 0.5}),
        ("distilbert", {"max_steps": 3}),
        ("deberta", {"adapt_last_layers": 1, "epochs": 1}),  # in padded batches
    ],
)
def test_each_fold_is_a_training_on_the_other_folds(tiny: Tiny, architecture: str, changes: dict[str, Any]) -> None:
    recipe = small_recipe(tiny(architecture), **changes)
    fold = np.arange(len(TEXTS)) // 2 % 3
    adapted = Adapted.fresh(recipe, LABELS)
    steps: list[Step] = []
    found = out_of_fold_logits(adapted, recipe, examples(adapted, TEXTS, IDS), fold, steps.append)
    expected = np.full(found.shape, np.nan)
    losses = []
    for k in range(3):
        alone = Adapted.fresh(recipe, LABELS)
        learned, held_out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        train = examples(alone, [TEXTS[i] for i in learned], IDS[learned].tolist())
        losses += [step.loss for step in run_all(Training(alone, recipe, train, examples(alone)))[0]]
        expected[held_out] = alone.logits(alone.reader.read([TEXTS[i] for i in held_out]))
    assert found == pytest.approx(expected, abs=1e-4)
    assert [step.loss for step in steps] == pytest.approx(losses, abs=1e-4)
    assert [step.step for step in steps] == [*range(1, len(losses) + 1)]
    assert {step.steps for step in steps} == {len(losses)}


def test_a_label_does_not_influence_its_own_prediction(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"))
    adapted = Adapted.fresh(recipe, LABELS)
    fold = np.arange(len(TEXTS)) // 2 % 4
    before = out_of_fold_logits(adapted, recipe, examples(adapted, TEXTS, IDS), fold)
    changed = np.where(fold == 2, 1 - IDS, IDS)
    after = out_of_fold_logits(adapted, recipe, examples(adapted, TEXTS, changed), fold)
    assert np.array_equal(before[fold == 2], after[fold == 2])
    assert all((before[i] != after[i]).any() for i in np.flatnonzero(fold != 2))


def test_the_prefix_is_run_once_and_changes_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tiny("bert"), adapt_last_layers=1)
    adapted = Adapted.fresh(recipe, LABELS)
    rows, fold = examples(adapted, TEXTS, IDS), np.arange(len(TEXTS)) // 2 % 2
    kept: list[int] = []
    keep = Execution.keep_prefix

    def counted(self: Execution, *args: Any) -> None:
        keep(self, *args)
        kept.append(len(self.prefixes))

    monkeypatch.setattr(Execution, "keep_prefix", counted)
    shared = out_of_fold_logits(adapted, recipe, rows, fold)
    monkeypatch.setattr(Execution, "keep_prefix", lambda *_: None)
    assert out_of_fold_logits(adapted, recipe, rows, fold) == pytest.approx(shared, abs=1e-5)
    assert kept == [1]


def test_folds_that_are_done_are_not_trained_again(tiny: Tiny, tmp_path: Path) -> None:
    """Stopped in the second of three folds, a call goes on there; other folds of the same rows begin again."""
    recipe = small_recipe(tiny("bert"), adapt_last_layers=1)
    adapted = Adapted.fresh(recipe, LABELS)
    rows, fold = examples(adapted, TEXTS, IDS), np.arange(len(TEXTS)) // 2 % 3
    whole: list[int] = []
    expected = out_of_fold_logits(adapted, recipe, rows, fold, lambda step: whole.append(step.step))
    kept, stopping = Kept(tmp_path / "folds", {"belongs": 1}), whole[len(whole) // 2]

    def stop(step: Step) -> None:
        if step.step == stopping:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        out_of_fold_logits(adapted, recipe, rows, fold, stop, kept)
    assert sorted(path.name for path in kept.folder.iterdir()) == ["fold-0", "prefix"]
    adapted, steps = Adapted.fresh(recipe, LABELS), []
    found = out_of_fold_logits(adapted, recipe, rows, fold, lambda step: steps.append(step.step), kept)
    assert np.array_equal(found, expected)
    assert steps == whole[len(whole) // 3 :]
    again = out_of_fold_logits(adapted, recipe, rows, fold, stop_if_called, kept)
    assert np.array_equal(again, expected)
    with pytest.raises(AssertionError, match="a step"):
        out_of_fold_logits(adapted, recipe, rows, 2 - fold, stop_if_called, kept)


def stop_if_called(step: Step) -> None:
    raise AssertionError("a step")


def test_the_adapter_is_unchanged_afterwards(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"))
    adapted = Adapted.fresh(recipe, LABELS)
    before = trained_state(adapted.model)
    out_of_fold_logits(adapted, recipe, examples(adapted, TEXTS, IDS), np.arange(len(TEXTS)) % 3)
    assert same(before, trained_state(adapted.model))


# Doubts


def test_cleanlab_ranks_by_the_probability_of_the_label() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 3, 600)
    wrong = random.random(600) < 0.1
    labels = np.where(wrong, (true + 1) % 3, true)
    probabilities = random.dirichlet([1, 1, 1], 600) * 0.1
    probabilities[np.arange(600), true] += 0.9
    found = doubts(probabilities, labels, np.zeros(600, dtype=np.int64))
    assert found.quality == pytest.approx(probabilities[np.arange(600), labels])
    assert (np.diff(found.quality[found.flagged]) >= 0).all()
    assert (found.suggested[found.flagged] != labels[found.flagged]).all()
    assert np.mean(wrong[found.flagged]) == 1
    assert len(found.flagged) >= 0.9 * wrong.sum()
    assert wrong.sum() * 0.7 < found.most_errors < wrong.sum() * 2.5
    assert found.likely_right <= len(found.flagged) <= found.most_errors
    assert found.accuracy == np.mean(true == labels)


@pytest.mark.parametrize("rows", [400, 1500])
@pytest.mark.parametrize("spread", [0.42, 1.4, 4.2])
@pytest.mark.parametrize("share", [0.0, 0.05])
def test_weak_models_are_called_weak_and_good_ones_are_not(rows: int, spread: float, share: float) -> None:
    """The models have an accuracy of 62, 80 and 92 %. `test_promises.py` counts how often the bound holds."""
    found, wrong = simulated(np.random.default_rng(rows), rows, spread, share)
    assert found.likely_right <= len(found.flagged) <= found.most_errors
    if spread == 0.42:
        assert found.weak
    if spread == 4.2 and rows == 1500:
        assert not found.weak
        assert found.likely_right < 2 * wrong.sum() + 0.02 * rows


def test_the_words_bound_what_may_be_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = simulated(np.random.default_rng(0), 1500, 4.2, 0.05)
    line = {"place": "r.csv line 2", "given": "bad", "suggested": "good", "confidence": 0.9, "text": "good"}
    told = {"doubtful": [line] * len(found.flagged), "rows": 1500, "folds": 5, "seconds": 1.0, "weak": found.weak}
    told |= {"accuracy": found.accuracy, "contradicted": found.contradicted}
    show_audit(told | {"most_errors": found.most_errors, "likely_right": found.likely_right})
    said = " ".join(capsys.readouterr().out.split())
    assert f"{len(found.flagged)} rows are worth a look, the first 20 above." in said
    assert f"So at most {found.most_errors} of all labels are wrong, at a confidence level of 95 %." in said
    assert f"Of those worth a look about {found.likely_right} are, or fewer; the others are hard texts." in said
    assert found.likely_right < len(found.flagged)
    show_audit(told | {"doubtful": [line], "most_errors": 5, "likely_right": 0})
    said = " ".join(capsys.readouterr().out.split())
    assert "1 row is worth a look." in said
    assert "So at most 5 of all labels are wrong" in said
    assert "cannot be estimated" in said


def test_the_bound_assumes_that_easy_texts_have_errors_too() -> None:
    """As the documentation says: if only hard texts have wrong labels, there are more of them than the bound."""
    random = np.random.default_rng(0)
    p = random.random(1000)
    hard = np.abs(p - 0.5) < 0.4
    true = (random.random(1000) < p).astype(np.int64)
    wrong = hard & (random.random(1000) < 0.3)
    found = doubts(np.stack([1 - p, p], axis=1), np.where(wrong, 1 - true, true), np.zeros(1000, dtype=np.int64))
    assert wrong.sum() > 1.5 * found.most_errors


def test_planted_flips_of_three_classes_are_found(tiny: Tiny) -> None:
    """Those of two classes are found in `test_json`."""
    classes, flips = 3, 9
    texts, true, flipped = planted(120, classes, flips)
    labels = np.where(flipped, (true + 1) % classes, true).astype(np.int64)
    recipe = small_recipe(tiny("bert"), epochs=4, batch_size=8)
    adapted = Adapted.fresh(recipe, [f"class {k}" for k in range(classes)])
    rows = Examples(adapted.reader.read(texts), labels)
    found = audit(adapted, recipe, rows, Split(texts, None, labels, np.arange(120)), folds=4)
    assert flipped[np.argsort(found.quality)[:flips]].sum() >= flips - 1
    assert flipped[found.flagged].sum() >= 2 * flips // 3
    assert len(found.flagged) <= 2 * flips
    assert average_precision_score(flipped, -found.quality) > 0.9
    assert np.mean(found.suggested == true) > 0.9
    assert sorted(found.fold.tolist()) == sorted([k for k in range(4) for _ in range(30)])


# The verb


def test_json(capsys: pytest.CaptureFixture[str], tiny: Tiny, flipped_file: tuple[Path, list[int]]) -> None:
    file, flipped = flipped_file
    found = audited(capsys, tiny, file, "--folds", "4", "--json").json
    assert set(found) == {"doubtful", "rows", "folds", "accuracy", "seconds"} | TRUST
    assert (found["rows"], found["folds"]) == (80, 4)
    assert 0.8 < found["accuracy"] <= 1 - 5 / 80
    assert found["seconds"] > 0
    rows = [one["row"] for one in found["doubtful"]]
    assert len(set(rows)) == len(rows)
    assert len(set(rows[:6]) & set(flipped)) >= 5
    names = file.read_text(encoding="utf-8").splitlines()[1:]
    for one in found["doubtful"]:
        assert set(one) == {"row", "given", "suggested", "confidence", "text", "place"}
        assert names[one["row"]].startswith(one["text"][:20])
        assert one["place"] == f"{file.name} line {one['row'] + 2}"
        assert names[one["row"]].endswith(f",{one['given']}")
        assert {one["given"], one["suggested"]} == {"bad", "good"}
        assert 0.5 < one["confidence"] <= 1
    sure = [one["confidence"] for one in found["doubtful"]]
    assert sure == sorted(sure, reverse=True)


def test_table_and_file(
    capsys: pytest.CaptureFixture[str], tiny: Tiny, flipped_file: tuple[Path, list[int]], tmp_path: Path
) -> None:
    file, flipped = flipped_file
    out = tmp_path / "doubtful.csv"
    said = audited(capsys, tiny, file, "--out", out).out
    assert "80 rows" in said
    assert "worth a look" in said
    with out.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert sorted(int(row["row"]) for row in rows) == [*range(80)]
    flags = [row["doubtful"] == "true" for row in rows]
    assert flags == sorted(flags, reverse=True)
    assert len({int(row["row"]) for row in rows[:6]} & set(flipped)) >= 5
    assert f"{sum(flags)} rows are worth a look" in said
    places = {f"{file.name} line {int(row['row']) + 2} " for row in rows[: min(20, sum(flags))]}
    assert all(place in said for place in places)
    texts = file.read_text(encoding="utf-8").splitlines()[1:]
    assert all(texts[int(row["row"])] == f"{row['text']},{row['given']}" for row in rows)
    assert "use the list only as an order" in said, "16 of 80 rows bound nothing"
    again = answer(capsys, "audit", file, "--out", out)
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "--overwrite" in again.err


def test_a_table_is_audited_whole(capsys: pytest.CaptureFixture[str], tiny: Tiny, tmp_path: Path) -> None:
    """A training would hold out a tenth of these rows."""
    texts, true, _ = planted(400, 2, 0)
    file, out = written(tmp_path / "table.csv", texts, true), tmp_path / "out.csv"
    found = audited(capsys, tiny, file, "--folds", "2", "--json", "--out", out, *ONE_STEP).json
    with out.open(encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == found["rows"] == 400


def test_prepared_folder_split_and_rows_of_the_source(
    capsys: pytest.CaptureFixture[str], tiny: Tiny, flipped_file: tuple[Path, list[int]], tmp_path: Path
) -> None:
    file, _ = flipped_file
    data, out = tmp_path / "data", tmp_path / "all.csv"
    good(capsys, "prepare", file, "--out", data, "--split", "50/50/0")
    before = sorted(data.glob("*.parquet"))
    texts = file.read_text(encoding="utf-8").splitlines()[1:]
    seen = []
    for split in ("train", "validation"):
        found = audited(capsys, tiny, data, "--split", split, *ONE_STEP, "--out", out, "--overwrite", "--json").json
        assert found["rows"] == 40
        with out.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        assert all(texts[int(row["row"])] == f"{row['text']},{row['given']}" for row in rows)
        seen += [int(row["row"]) for row in rows]
    assert sorted(seen) == [*range(80)]
    assert sorted(data.glob("*.parquet")) == before


def test_copies_share_a_fold_and_pairs_are_taken(
    capsys: pytest.CaptureFixture[str], tiny: Tiny, tmp_path: Path
) -> None:
    texts, true, _ = planted(24, 2, 0)
    file, out = tmp_path / "pairs.csv", tmp_path / "out.csv"
    lines = [["sentence1", "sentence2", "label"]]
    for text, k in zip(texts, true, strict=True):
        lines += [["a film", text, str(k)], ["A film.", text.upper(), str(k)]]
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)
    assert audited(capsys, tiny, file, "--out", out, "--folds", "3", *ONE_STEP, "--json").json["rows"] == 48
    with out.open(newline="", encoding="utf-8") as stream:
        fold = {int(row["row"]): row["fold"] for row in csv.DictReader(stream)}
    assert [fold[i] for i in range(0, 48, 2)] == [fold[i] for i in range(1, 48, 2)]
    assert sorted(set(fold.values())) == ["0", "1", "2"]


@pytest.mark.parametrize("is_prepared", [False, True])
def test_rows_of_one_author_share_a_fold(
    capsys: pytest.CaptureFixture[str], tiny: Tiny, tmp_path: Path, is_prepared: bool
) -> None:
    texts, true, _ = planted(40, 2, 0)
    texts[3] = texts[4].upper()  # so that the authors of both are in one fold
    authors = [f"author {i % 13}" if i % 4 else "" for i in range(40)]
    file, out = tmp_path / "r.csv", tmp_path / "out.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["text", "label", "who"], *zip(texts, true.tolist(), authors, strict=True)])
    data, flags = file, ["--group-column", "who"]
    if is_prepared:
        data = tmp_path / "data"
        good(capsys, "prepare", file, "--out", data, "--split", "100/0/0", *flags)
        flags = []
    assert audited(capsys, tiny, data, "--out", out, "--folds", "3", *ONE_STEP, *flags, "--json").json["rows"] == 40
    with out.open(newline="", encoding="utf-8") as stream:
        fold = {int(row["row"]): row["fold"] for row in csv.DictReader(stream)}
    assert len({(authors[i], fold[i]) for i in range(40) if authors[i]}) == len(set(authors) - {""})
    assert fold[3] == fold[4]
    assert len({fold[i] for i in range(40) if not authors[i]}) == 3, "a blank is no group"


@pytest.mark.parametrize(
    ("labels", "flags", "said"),
    [
        ([1] * 8, (), "every label is '1'"),
        ([0, 1] * 2, ("--folds", "5"), "4 different texts"),
        ([0, 1] * 4, ("--folds", "1"), "folds: got 1"),
        ([0, 1] * 4, ("--folds", "many"), "--folds"),
        ([0, 1, 0, 1, 0, 1, 0, 2], ("--folds", "2"), "'2': a single text"),
        ([0, 1] * 4, ("--split", "test"), "has no test split, only train"),
        ([0, 1] * 4, ("--max-length", "4000"), "max_length"),
        ([0, 1] * 4, ("--recipe", "adit"), "audit"),
        ([0, 1] * 4, ("--out", "missing/out.csv"), "missing"),
        ([0, 1] * 4, ("--out", "."), "is a folder"),
    ],
)
def test_bad_input_gets_one_line(
    capsys: pytest.CaptureFixture[str],
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    labels: list[int],
    flags: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "rows.csv", [f"a film {i}" for i in range(len(labels))], labels)
    found = answer(capsys, "audit", "rows.csv", "--model", tiny("bert"), *QUICK, *flags)
    assert (found.status, found.out) == (2, "")
    assert found.err.splitlines()[-1].startswith("bertlora: ")
    assert said in found.err.splitlines()[-1]
    assert "Traceback" not in found.err
    assert "/tmp" not in found.err.replace(str(tmp_path), "").replace(str(tiny("bert")), "")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_the_input_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path / "rows.csv", ["a", "b"], [0, 1])
    before = file.read_bytes()
    found = answer(capsys, "audit", file, "--out", file, "--overwrite")
    assert found.status == 2
    assert "is the input" in found.err
    assert file.read_bytes() == before


def test_too_few_folds_in_python() -> None:
    with pytest.raises(InputError, match="folds: got 1"):
        deal_folds(np.arange(4), np.array([0, 1, 0, 1]), 1, 0, LABELS)
