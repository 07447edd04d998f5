"""Explanations: complete, exact where the answer is known, in the text's own words, and shown in colour."""

import copy
import io
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import answer, good
from helpers import EVERY, LABELS, PAIRS, TEXTS, adapted_of, logits_of, save_tiny_run
from rich.console import Console
from torch import nn

from bertlora.cli.explaining import coloured, print_explained
from bertlora.errors import InputError
from bertlora.model import integrated
from bertlora.model.adapted import Adapted
from bertlora.model.engine.changes import unwrapped
from bertlora.model.engine.execution import executing
from bertlora.model.explain import Explanation, Word, explain

Tiny = Callable[[str], Path]
LONG = " ".join(f"{text}, part {i}" for i in range(8) for text in TEXTS)
EMOJI = "A  naïve café\n😀 — don't miss it!!  "


def attributions(explanation: Explanation) -> list[float]:
    """What the words that were read did."""
    words = [*explanation.words, *(explanation.pair_words or [])]
    return [word.attribution for word in words if word.attribution is not None]


def check_complete(explanation: Explanation, scores: Any) -> None:
    """Checks label, rival and difference against the logits, and that the attributions sum to the change."""
    order = np.argsort(-scores)
    assert (explanation.label, explanation.rival) == (LABELS[order[0]], LABELS[order[1]])
    assert explanation.logit_difference == pytest.approx(scores[order[0]] - scores[order[1]], abs=1e-4)
    change = explanation.logit_difference - explanation.baseline_difference
    assert sum(attributions(explanation)) - change == pytest.approx(explanation.gap, abs=1e-9)
    assert abs(explanation.gap) <= max(0.01, 0.01 * abs(change))
    assert max(map(abs, attributions(explanation)), default=1.0) > 1e-3


@pytest.mark.parametrize("architecture", EVERY)
def test_attributions_sum_to_the_change_of_the_logit_difference(architecture: str, tiny: Tiny) -> None:
    adapted = adapted_of(tiny(architecture))
    texts = [*TEXTS[:3], EMOJI]
    found, scores = explain(adapted, texts), logits_of(adapted, texts)
    for text, explanation, row in zip(texts, found, scores, strict=True):
        check_complete(explanation, row)
        check_words(text, explanation.words)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "deberta"])
def test_the_same_for_pairs(architecture: str, tiny: Tiny) -> None:
    adapted = adapted_of(tiny(architecture))
    found, scores = explain(adapted, TEXTS[1:3], PAIRS[1:3]), logits_of(adapted, TEXTS[1:3], PAIRS[1:3])
    for text, pair, explanation, row in zip(TEXTS[1:3], PAIRS[1:3], found, scores, strict=True):
        check_complete(explanation, row)
        assert explanation.pair_words is not None
        check_words(text, explanation.words)
        check_words(pair, explanation.pair_words)
        assert all(word.attribution is not None for word in (*explanation.words, *explanation.pair_words))


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "mpnet"])
def test_the_same_for_windows(architecture: str, tiny: Tiny) -> None:
    adapted = adapted_of(tiny(architecture), max_length=32, long_texts="windows")
    assert len(adapted.reader.read([LONG]).windows.starts) > 3
    (explanation,) = explain(adapted, [LONG])
    check_complete(explanation, logits_of(adapted, [LONG])[0])
    check_words(LONG, explanation.words)
    assert all(word.attribution is not None for word in explanation.words)


def test_windows_are_averaged_and_their_overlap_added(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), LABELS[:2], max_length=32, long_texts="windows")
    text, tokenizer = "a dull and lifeless mess " * 9, adapted.reader.tokenizer  # each word is one token
    ids, windows = tokenizer.ids([text])[0], adapted.reader.read([text]).windows
    assert len(ids) == 45
    starts, room = windows.starts.tolist(), adapted.reader.template.room(pair=False)
    parts = [" ".join(text.split()[s : s + room]) for s in starts]
    (whole,), alone = explain(adapted, [text]), explain(adapted, parts)
    expected = np.zeros(len(ids))
    for first, part in zip(starts, alone, strict=True):
        sign = 1 if part.label == whole.label else -1
        expected[first : first + room] += sign * np.array(attributions(part)) / len(parts)
    assert starts[1] < room
    assert attributions(whole) == pytest.approx(expected.tolist(), abs=0.01)


@pytest.mark.parametrize(
    ("truncation", "read"), [("right", range(14)), ("left", range(26, 40)), ("head-tail", [*range(3), *range(29, 40)])]
)
def test_words_that_were_cut_are_unread(truncation: str, read: Any, tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), max_length=16, truncation=truncation)
    text = "a dull and lifeless mess " * 8
    (explanation,) = explain(adapted, [text])
    check_words(text, explanation.words)
    check_complete(explanation, logits_of(adapted, [text])[0])
    assert [i for i, word in enumerate(explanation.words) if word.attribution is not None] == list(read)


def test_characters_that_the_tokenizer_leaves_out_are_unread(tiny: Tiny) -> None:
    (explanation,) = explain(adapted_of(tiny("bert")), ["a \u200b joy"])
    assert [(w.text, w.attribution is None) for w in explanation.words] == [
        ("a", False),
        ("\u200b", True),
        ("joy", False),
    ]


def test_a_text_without_tokens_has_nothing_to_attribute(tiny: Tiny) -> None:
    (explanation,) = explain(adapted_of(tiny("bert")), [""])
    assert explanation.words == []
    assert explanation.gap == 0
    assert explanation.logit_difference == explanation.baseline_difference


def test_of_several_word_pieces_the_sum_is_the_word(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted, text = adapted_of(tiny("bert")), "unforgettable joy"
    assert len(adapted.reader.tokenizer.ids(["unforgettable"])[0]) > 1
    given = np.arange(1.0, 1 + len(adapted.reader.tokenizer.ids([text])[0]))
    result = integrated.Attributed(0, 1, given, 1.0, 0.0)

    def given_result(*_: Any) -> Any:
        yield 0
        return result

    monkeypatch.setattr("bertlora.model.explain.attributed", given_result)
    (explanation,) = explain(adapted, [text])
    assert attributions(explanation) == [given[:-1].sum(), given[-1]]


def check_words(text: str, words: list[Word]) -> None:
    """Checks that words and what lies between them are the text."""
    rebuilt, place = "", 0
    for word in words:
        assert word.text == text[word.start : word.end]
        assert text[place : word.start].strip() == ""
        rebuilt += text[place : word.start] + word.text
        place = word.end
    assert text[place:].strip() == ""
    assert rebuilt + text[place:] == text


class Linear(nn.Module):
    """A classifier that is linear in the word embeddings: the sum over tokens of W x."""

    def __init__(self, like: Any, classes: int) -> None:
        super().__init__()
        self.config = like.config
        self.table = copy.deepcopy(like.get_input_embeddings())
        self.weight = nn.Parameter(torch.randn(classes, self.table.embedding_dim, generator=torch.manual_seed(1)))

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        states = self.table(input_ids) * attention_mask[..., None]
        return SimpleNamespace(logits=(states @ self.weight.T).sum(1))


def test_of_a_linear_model_each_token_has_what_it_adds(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    model = Linear(unwrapped(adapted.model), len(LABELS))
    inputs, blank = adapted.reader.read([TEXTS[1]]), integrated.blank_id(adapted.reader.tokenizer)
    with executing(model, adapted.reader.pad_id, "fp32", pack=False) as execution:
        found = integrated.finished(integrated.attributed(lambda: nullcontext(execution), inputs, blank))
    slope = (model.weight[found.label] - model.weight[found.rival]).double()
    moved = model.table.weight[inputs.first[0].tolist()] - model.table.weight[blank]
    assert found.tokens == pytest.approx((moved.double() @ slope).tolist(), abs=1e-4)
    assert blank == adapted.reader.tokenizer.mask_id


class Cubic(Linear):
    """A classifier of one cube and one 0, F(x) = Σ u³ with u = w x: along a line the gradient is a quadratic."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        cubes = ((self.table(input_ids) @ self.weight[0]) * attention_mask) ** 3
        return SimpleNamespace(logits=torch.stack([cubes.sum(1), 0 * cubes.sum(1)], dim=1))


def test_of_a_cubic_model_each_token_has_its_own_cubes_change(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    model, inputs = Cubic(unwrapped(adapted.model), 2), adapted.reader.read([TEXTS[0]])
    with executing(model, adapted.reader.pad_id, "fp32", pack=False) as execution:
        found = integrated.finished(integrated.attributed(lambda: nullcontext(execution), inputs, 103))
    values = (model.table.weight.double() @ model.weight[0].double()) ** 3
    sign = 1 if found.label == 0 else -1
    assert found.tokens == pytest.approx((sign * (values[inputs.first[0].tolist()] - values[103])).tolist(), rel=1e-3)


def test_steps_are_doubled_until_the_tolerance_holds(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted, asked, quadrature = adapted_of(tiny("bert")), [], integrated._Path._quadrature

    def counted(self: Any, enter: Any, points: int) -> Any:
        own: Any = quadrature(self, enter, points)
        asked.append((points, next(own) / integrated.GRADIENT_COST))
        return (yield from own)

    monkeypatch.setattr(integrated._Path, "_quadrature", counted)
    monkeypatch.setattr(integrated, "FIRST_STEPS", 1)
    monkeypatch.setattr(integrated, "TOLERANCE_SHARE", 1e-3)
    monkeypatch.setattr(integrated, "TOLERANCE_LOGITS", 1e-3)
    (explanation,) = explain(adapted, [TEXTS[1]])
    assert abs(explanation.gap) <= 1e-3 * max(1, abs(sum(attributions(explanation))))
    assert [steps for steps, _ in asked] == [2**i for i in range(len(asked))]
    assert len(asked) > 1
    assert max(tokens for _, tokens in asked) <= integrated.BATCH_TOKENS
    monkeypatch.setattr(integrated, "MOST_STEPS", 2)
    assert abs(explain(adapted, [TEXTS[1]])[0].gap) > abs(explanation.gap)
    assert asked[-1][0] == 2


def test_the_integral_is_captums(tiny: Tiny) -> None:
    from captum.attr import IntegratedGradients

    adapted = adapted_of(tiny("bert"))
    inputs, blank = adapted.reader.read([TEXTS[1]]), integrated.blank_id(adapted.reader.tokenizer)
    with adapted.execution() as execution:
        path = integrated._Path(execution, inputs, 0, blank, (0, 1))
        ours = integrated.finished(path._quadrature(lambda: nullcontext(execution), 50))
        oracle = IntegratedGradients(lambda embedded: path.difference(execution, embedded))
        theirs = oracle.attribute(path.stop, path.start, n_steps=50)[0].detach().double().sum(-1)
    assert np.abs(ours).max() > 0.01
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_the_model_is_left_as_it_came_and_answers_the_same_again(variant: str, tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), variant=variant, bias="all")
    adapted.model.train()
    before = {name: (value.detach().clone(), value.requires_grad) for name, value in adapted.model.named_parameters()}
    modes = [module.training for module in adapted.model.modules()]
    first, again = (explain(adapted, TEXTS[:2]) for _ in range(2))
    assert first == again
    assert [module.training for module in adapted.model.modules()] == modes
    assert not any(module._forward_hooks for module in adapted.model.modules())
    for name, value in adapted.model.named_parameters():
        assert torch.equal(value, before[name][0])
        assert value.requires_grad == before[name][1]
        assert value.grad is None


def test_the_base_is_explained_by_itself(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    (explanation,) = explain(adapted, TEXTS[:1], base=True)
    check_complete(explanation, logits_of(adapted, TEXTS[:1], base=True)[0])
    assert explanation.logit_difference != explain(adapted, TEXTS[:1])[0].logit_difference


def test_mates_do_not_change_an_explanation(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    assert explain(adapted, TEXTS) == [explain(adapted, [text])[0] for text in TEXTS]


def test_one_class_cannot_be_explained(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="one class"):
        explain(adapted_of(tiny("bert"), ["only"]), TEXTS)


@pytest.fixture
def run(tmp_path: Path, tiny: Tiny) -> Path:
    """Returns a run folder whose adapter is drawn at random."""
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert"), max_length=16))
    return tmp_path / "run"


def test_predict_prints_explanations_as_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, lines = (good(capsys, "predict", run, *TEXTS, *words).lines for words in ((), ("--explain",)))
    for text, before, line in zip(TEXTS, plain, lines, strict=True):
        found = line.pop("explanation")
        # Without an explanation the model is held ready, with its adapter merged: equal up to rounding.
        assert line.pop("probabilities") == pytest.approx(before.pop("probabilities"), abs=1e-6)
        assert line.pop("confidence") == pytest.approx(before.pop("confidence"), abs=1e-6)
        assert line == before
        assert list(found) == ["label", "rival", "logit_difference", "baseline_difference", "gap", "words"]
        assert found["label"] == line["label"]
        assert "".join(word["word"] for word in found["words"]) == text.replace(" ", "")
        read = [word["attribution"] for word in found["words"] if word["attribution"] is not None]
        change = found["logit_difference"] - found["baseline_difference"]
        assert sum(read) == pytest.approx(change + found["gap"], abs=1e-9)
    assert good(capsys, "predict", run, *TEXTS, "--explain", "--json").lines[0].keys() >= {"explanation"}


def test_predict_explains_pairs_of_a_file(tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert"), pairs=True))
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2\nit was good,it was bad\n")
    (line,) = good(capsys, "predict", tmp_path / "run", "--file", tmp_path / "pairs.csv", "--explain").lines
    assert [word["word"] for word in line["explanation"]["words"]] == ["it", "was", "good"]
    assert [word["word"] for word in line["explanation"]["pair_words"]] == ["it", "was", "bad"]


def test_predict_explains_only_in_fp32(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = answer(capsys, "predict", run, "a joy", "--explain", "--precision", "int8")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == "bertlora: --explain works in fp32; leave --precision int8 out\n"


WORDS = [("A", 0.0), ("joy", 3.0), (",", 0.4), ("but", -1.0), ("dull", -2.0), ("here", None), ("there", None)]


def made(text: str = "A joy,  but dull\nhere there") -> tuple[dict[str, Any], Explanation]:
    """An answer and its explanation, made up."""
    words, place = [], 0
    for word, value in WORDS:
        place = text.index(word, place)
        words.append(Word(word, place, place + len(word), value))
    found = Explanation("good", "bad", words, None, 0.9, 0.5, 0.0)
    return {"text": text, "label": "good", "confidence": 0.7123}, found


def printed(*, no_color: bool = False, text: str = "A joy,  but dull\nhere there") -> str:
    """What a terminal is sent."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", no_color=no_color, width=140)
    print_explained(*made(text), console=console)
    return out.getvalue()


def test_a_terminal_shows_signs_and_strength_with_colour() -> None:
    out = printed()
    blue, orange = "38;2;31;122;224", "38;2;200;90;23"
    assert f"\x1b[1;4;{blue}m+joy\x1b[0m" in out
    assert f"\x1b[{blue}m,\x1b[0m" in out
    assert f"\x1b[1;{orange}m-but\x1b[0m" in out
    assert f"\x1b[1;4;{orange}m-dull\x1b[0m" in out
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert plain.startswith("good  71.2 %\nA +joy,  -but -dull\n[here there]\n")
    assert "+for good  -for bad" in plain
    assert "[not read]" in plain
    assert "logit difference 0.90: +0.40 by the words, +0.50 without them" in plain


def test_without_colour_signs_and_strength_remain() -> None:
    out = printed(no_color=True)
    assert "38;2" not in out
    assert "\x1b[1;4m+joy\x1b[0m" in out
    assert "\x1b[1m-but\x1b[0m" in out


def test_a_text_cannot_steer_the_terminal() -> None:
    out = printed(text="A joy\x1b[2J,  but dull\nhere there\x9b")
    assert "\x1b[2J" not in out
    assert "\x9b" not in out


def test_markup_in_a_text_is_text() -> None:
    _, found = made()
    assert coloured("[red]", [Word("[red]", 0, 5, 1.0)], 1.0).plain == "+[red]"
    assert coloured("x", [Word("x", 0, 1, 0.0)], 0.0).plain == "x"
    assert found.words[0].text == "A"


def test_predict_shows_colours_on_a_terminal_and_json_where_asked(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    words = ("predict", run, "a joy, a joy, a joy", "--explain")
    shown = good(capsys, *words).out
    assert re.search(r"\x1b\[[\d;]*38;", shown)
    assert "+for" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    shown = good(capsys, *words).out
    assert "38;" not in shown
    assert "+for" in shown
    assert good(capsys, *words, "--json").json["explanation"]["words"][1]["word"] == "joy"
    assert "explanation" not in good(capsys, *words[:-1], "--json").json
    assert good(capsys, *words[:-1]).out.split()[:3] == ["label", "confidence", "text"]


def test_explain_takes_no_texts_at_all(tiny: Tiny) -> None:
    adapted: Adapted = adapted_of(tiny("bert"))
    assert explain(adapted, []) == []


def test_the_terminal_says_when_there_is_no_label_and_which_may_be_right(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    (why,) = explain(adapted, ["a joy"])
    shown = io.StringIO()
    answer = {"text": "a joy", "label": None, "confidence": 0.5, "labels": ["negative", "mixed"]}
    print_explained(answer, why, Console(file=shown, width=100))
    assert shown.getvalue().startswith(f"no label; the likeliest, {why.label}, has 50.0 %  (may be: negative, mixed)")
