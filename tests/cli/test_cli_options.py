"""Verbs and options: help pages, recipe keys as options, completion, and what is found without heavy imports."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import answer, good, parsed

from bertlora.cli import verbs
from bertlora.cli.auditing import UNUSED
from bertlora.cli.training import NOT_PLANNED
from bertlora.errors import InputError
from bertlora.recipe import Recipe, recipe_keys

Capsys = pytest.CaptureFixture[str]
VERBS = verbs.commands
VERB_NAMES = ("demo", "cache", "prepare", "plan", "train", "evaluate", "predict", "recipes", "env", "export")
HEAVY = {"torch", "transformers", "pandas", "pyarrow", "datasets", "sklearn", "peft", "accelerate", "numpy"}


def test_the_verbs_are_those_promised() -> None:
    assert set(VERB_NAMES) <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_of_help_with_an_example_that_parses(verb: str, capsys: Capsys) -> None:
    page = answer(capsys, verb, "--help")
    assert (page.status, page.err) == (0, "")
    assert f"Usage: bertlora {verb}" in page.out
    example = page.out.partition("Example:\n")[2].strip()
    assert example == VERBS[verb].example
    program, *argv = shlex.split(example.partition(" > ")[0])
    assert program == "bertlora"
    assert argv[0] == verb
    assert parsed(*argv).info_name == verb


@pytest.mark.parametrize("argv", [(), ("--help",)])
def test_the_first_page_lists_every_verb(argv: tuple[str, ...], capsys: Capsys) -> None:
    page = good(capsys, *argv)
    for verb in VERBS.values():
        assert re.search(rf"^ +{verb.name}\s+{re.escape(str(verb.short_help)[:20])}", page.out, re.MULTILINE), verb.name


def test_version(capsys: Capsys) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", good(capsys, "--version").out)


def test_help_imports_nothing_heavy() -> None:
    program = "import sys; from bertlora.cli import main; main([]); print(*sys.modules, file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Usage: bertlora" in found.stdout
    assert HEAVY.isdisjoint([*found.stderr.split()])
    assert "rich" not in found.stderr.split()


WRONG = ("--rank 0", "--rank four", "--rnak 1", "--recipe nope", "--split 50/50", "--seeds 0")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_option_is_found_before_anything_heavy_is_imported(wrong: str, tmp_path: Path) -> None:
    argv = ["train", "r.csv", "--out", str(tmp_path / "run"), *wrong.split()]
    program = f"import sys; from bertlora.cli import main; print(main({argv})); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("2\n")
    assert found.stderr.count("\n") == 1
    assert HEAVY.isdisjoint(found.stdout.split())


@pytest.mark.parametrize("verb", ["plan", "train"])
@pytest.mark.parametrize("option", fields(Recipe), ids=lambda option: option.name)
def test_every_recipe_key_is_a_flag(verb: str, option: Any) -> None:
    text, value = another(option.name, option.metadata["choices"])
    required = ["--out", "run"] if verb == "train" else []
    given = parsed(verb, *required, f"--{option.name.replace('_', '-')}", text).params[option.name]
    assert getattr(Recipe.named("default").replace(**{option.name: given}), option.name) == value


@pytest.mark.parametrize("option", fields(Recipe), ids=lambda option: option.name)
def test_audit_takes_the_recipe_keys_that_it_uses(option: Any) -> None:
    flag, (text, value) = f"--{option.name.replace('_', '-')}", another(option.name, option.metadata["choices"])
    if option.name == "split":  # names a split
        assert parsed("audit", flag, "test").params["split"] == "test"
    elif option.name in UNUSED:
        with pytest.raises((InputError, click.NoSuchOption)):
            parsed("audit", flag, text)
    else:
        given = parsed("audit", flag, text).params[option.name]
        assert getattr(Recipe.named("audit").replace(**{option.name: given}), option.name) == value


def test_help_shows_ranges_choices_and_the_defaults_of_the_verb(capsys: Capsys) -> None:
    train, audit, plan = (" ".join(good(capsys, verb, "--help").out.split()) for verb in ("train", "audit", "plan"))
    default, folds = Recipe.named("default"), Recipe.named("audit")
    assert f"[1 or more; default: {default.rank}]" in train
    assert "--schedule [linear|cosine|constant]" in train
    assert f"[0 to 0.99; default: {default.lora_dropout:g}]" in train
    for page, recipe, name in ((train, default, "default"), (audit, folds, "audit")):
        assert f"[default: {name}]" in page
        assert f"--epochs N passes over the training split [1 or more; default: {recipe.epochs}]" in page
        assert f"0 = all [0 or more; default: {recipe.adapt_last_layers}]" in page
    assert default.epochs != folds.epochs
    assert [key for key in UNUSED if key != "split" and f"--{key.replace('_', '-')} " in audit] == []
    assert [key for key in NOT_PLANNED if f"--{key.replace('_', '-')} " in plan] == []
    assert "--fix" not in train


def complete(words: str, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> list[str]:
    """What bash is offered for the last of these words."""
    monkeypatch.setenv("_BERTLORA_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    found = good(capsys).out.splitlines()
    monkeypatch.delenv("_BERTLORA_COMPLETE")
    return [line.removeprefix("plain,") for line in found if line]


def test_shells_complete_verbs_options_and_values(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    for words, expected in {
        "bertlora tr": ["train"],
        "bertlora train --recipe imdb-b": ["imdb-bert-cased"],
        "bertlora recipes sst": ["sst2-bert"],
        "bertlora train --head-l": ["--head-learning-rate"],
        "bertlora train --variant d": ["dora"],
        "bertlora export runs/a --format m": ["merged"],
        "bertlora plan --trac": [],
        "bertlora audit --trac": [],
        "bertlora evaluate runs": ["file,runs"],
        "bertlora train --recipe mine/": ["file,mine/"],
    }.items():
        assert complete(words, monkeypatch, capsys) == expected, words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_every_shell(shell: str, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    page = good(capsys, "--help").out
    assert f"_BERTLORA_COMPLETE={shell}_source bertlora" in page
    monkeypatch.setenv("_BERTLORA_COMPLETE", f"{shell}_source")
    script = good(capsys).out
    assert "_bertlora_completion" in script
    assert f"_BERTLORA_COMPLETE={shell}_complete" in script


def test_an_option_takes_several_values(capsys: Capsys) -> None:
    sources = ("train=a.csv", "test=b.csv")
    for words in (("runs/a", "--data", *sources), ("--data", *sources, "--split", "test", "runs/a")):
        params = parsed("evaluate", *words).params
        assert (params["run"], params["data"]) == ("runs/a", sources)
    for word in ("--data", "--data --split test"):
        assert "bertlora: --data: expected a value; see" in answer(capsys, "evaluate", "runs/a", *word.split()).err
    assert "--out: expected a value; see" in answer(capsys, "train", "a.csv", "--out", "--overwrite").err


def another(key: str, choices: tuple[str, ...]) -> tuple[str, Any]:
    """A value for a recipe key that is not its default, as text and as it should be read."""
    kind, default = recipe_keys()[key], getattr(Recipe.named("default"), key)
    if choices:
        other = next(choice for choice in choices if choice != default)
        return other, other
    if kind is int:
        return str(default + 1), default + 1
    if kind is float:
        return str(default + 0.25), default + 0.25
    if kind == tuple[str, ...]:
        return "ffn-in, ffn-out", ("ffn-in", "ffn-out")
    if kind is str:
        other = "80/10/10" if key == "split" else "other"
        return other, other
    return "query=3,key=4", {"query": 3, "key": 4}
