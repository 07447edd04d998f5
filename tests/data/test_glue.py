"""GLUE's tasks as published: the files and the hub's splits are read whole, and each label has an answer."""

from pathlib import Path

import pytest
from glue_files import ROWS, TASKS, hub_splits, label_of, texts, write, write_published
from hypothesis import given, settings
from hypothesis import strategies as st

import bertlora.data.hub
from bertlora.data.glue import SUBMISSIONS, score_answer
from bertlora.data.prepared import iter_texts, prepare
from bertlora.recipe import Recipe


@pytest.mark.parametrize("name", TASKS)
def test_published_files_are_read_whole_with_their_quotes(name: str, tmp_path: Path) -> None:
    task, folder, recipe = TASKS[name], write_published(tmp_path, name), Recipe.named(f"glue-{name}")
    prepared = prepare([str(folder)], tmp_path / "out", task=recipe.task)
    kind = "_matched" if name == "mnli" else ""
    assert prepared.rows == {"train": ROWS, "validation": ROWS}
    assert prepared.task == recipe.task == ("classification" if task.labels else "regression")
    for split, file in (("train", "train"), ("validation", f"dev{kind}")):
        found = prepared.split(split)
        expected = [texts(file, i) for i in range(ROWS)]
        assert found.texts == [first for first, _ in expected]
        assert found.pairs == (None if name == "cola" else [second for _, second in expected])
        labels = [prepared.labels[k] for k in found.labels] if task.labels else [f"{x:.3f}" for x in found.labels]
        assert labels == [label_of(task.labels, i) for i in range(ROWS)]
    assert f"test{kind}.tsv: has no labels, so there is no test split" in prepared.notes
    # The two odd rows at the end of these files.
    broken = "train.tsv: 2 broken rows, which are known in GLUE's QQP, were left out"
    blank = {check["name"]: check["count"] for check in prepared.checks}.get("blank", 0)
    assert (broken in prepared.notes, blank) == (name == "qqp", 2 if name == "mnli" else 0)
    mismatched = "validation is dev_matched.tsv; the mismatched set was left out"
    assert (mismatched in prepared.notes) == (name == "mnli")
    for suffix in ("_matched", "_mismatched") if kind else ("",):
        read = [row for batch in iter_texts(str(folder / f"test{suffix}.tsv")) for row in batch]
        expected = [texts(f"test{suffix}", i) for i in range(ROWS)]
        assert read == [(first, None if name == "cola" else second) for first, second in expected]


@pytest.mark.parametrize("name", TASKS)
def test_the_hubs_splits_and_an_answer_for_each_label(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, recipe, asked = TASKS[name], Recipe.named(f"glue-{name}"), []
    monkeypatch.setattr(bertlora.data.hub, "_load", lambda way: asked.append(way) or hub_splits(way.split("/")[-1]))
    prepared = prepare(list(recipe.data), tmp_path / "out", task=recipe.task)
    assert asked == [f"nyu-mll/glue/{name}"]
    assert prepared.rows == {"train": ROWS, "validation": ROWS}
    assert prepared.labels == list(task.hub_labels or ["label"])
    assert [prepared.columns[part] for part in ("text", "text_pair")] == [*task.hub_columns, None][:2]
    kind = "_matched" if name == "mnli" else ""
    assert sum("the mismatched set was left out" in note for note in prepared.notes) == bool(kind)
    assert f"hub:nyu-mll/glue/{name} test{kind}: has no labels, so there is no test split" in prepared.notes
    for file in ("MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv") if kind else (f"{task.folder}.tsv",):
        answers = SUBMISSIONS[file]
        assert [answers[label] for label in task.labels] == list(task.labels)
        assert [answers[label] for label in task.hub_labels] == list(task.labels)


@settings(max_examples=50)
@given(words=st.lists(st.text(st.sampled_from("\"' ab,é"), min_size=1, max_size=6), min_size=1, max_size=8))
def test_any_quotes_below_a_header_of_glue_are_text(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rte") / "test.tsv"
    write(path, ["index\tsentence1\tsentence2", *(f"{i}\t{word}\t{word}" for i, word in enumerate(words))])
    read = [row for batch in iter_texts(str(path)) for row in batch]
    assert read == [("" if word.isspace() else word,) * 2 for word in words]


@given(st.floats(allow_nan=False))
def test_a_similarity_is_answered_in_its_range(value: float) -> None:
    answer = float(score_answer(value))
    assert 0 <= answer <= 5
    if 0 <= value <= 5:
        assert answer == pytest.approx(value, abs=5e-4)
