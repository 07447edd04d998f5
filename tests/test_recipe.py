"""Recipes: the named ones as published, TOML in and out, and what is said of a bad value."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlora.errors import RecipeError
from bertlora.options import split_shares
from bertlora.recipe import GROUPS, Recipe, parse_value, recipe_keys, recipe_names, recipe_path

DISTILBERT = {
    "model": "distilbert-base-uncased",
    "rank": 4,
    "alpha": 32.0,
    "lora_dropout": 0.01,
    "bias": "none",
    "targets": ("query",),
    "learning_rate": 1e-3,
    "batch_size": 4,
    "weight_decay": 0.01,
    "max_length": 512,
    "truncation": "left",
    "evaluate_every_steps": 0,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "imdb-distilbert": DISTILBERT | {"data": ("hub:shawhin/imdb-truncated",), "epochs": 10},
    "imdb-distilbert-quick": DISTILBERT
    | {"sample": 1000, "sample_from": "split"}
    | {"epochs": 1, "label_names": ("Negative", "Positive")},
    "imdb-bert-cased": {
        "model": "bert-base-cased",
        "sample": 2000,
        "split": "70/15/15",
        "rank": 1,
        "alpha": 1.0,
        "lora_dropout": 0.1,
        "targets": ("query", "value"),
        "epochs": 25,
        "evaluate_every_steps": 0,
    },
    "imdb-distilbert-b16": {
        "model": "distilbert-base-uncased",
        "data": ("hub:shawhin/imdb-truncated",),
        "learning_rate": 1e-3,
        "batch_size": 16,
        "epochs": 10,
    },
    "sst2-bert": {
        "model": "bert-base-uncased",
        "data": ("hub:nyu-mll/glue/sst2",),
        "rank": 4,
        "alpha": 16.0,
        "targets": ("query", "value"),
        "adapt_last_layers": 0,
        "learning_rate": 1e-4,
        "batch_size": 32,
        "evaluation_batch_size": 64,
        "epochs": 3,
        "max_length": 128,
    },
}
# What each recipe trained when the defaults of the class were not yet those of `default`.
DEFAULT: dict[str, Any] = {
    "model": "minilm",
    "data": (),
    "sample": 0,
    "sample_from": "table",
    "split": "70/15/15",
    "label_names": (),
    "samples": (),
    "rank": 8,
    "alpha": 16.0,
    "lora_dropout": 0.0,
    "bias": "none",
    "targets": ("all-linear",),
    "adapt_last_layers": 0,
    "variant": "lora",
    "rank_pattern": {},
    "alpha_pattern": {},
    "head_start": "probe",
    "learning_rate": 1e-3,
    "head_learning_rate": 0.0,
    "lora_plus_ratio": 1.0,
    "batch_size": 16,
    "evaluation_batch_size": 64,
    "gradient_accumulation": 1,
    "epochs": 3,
    "max_steps": 0,
    "weight_decay": 0.01,
    "schedule": "linear",
    "warmup_fraction": 0.06,
    "max_grad_norm": 1.0,
    "max_length": 512,
    "truncation": "head-tail",
    "long_texts": "truncate",
    "hidden_dropout": 0.0,
    "encoder_dropout": 0.0,
    "average_weights": 0.15,
    "task": "auto",
    "loss": "auto",
    "class_weights": "auto",
    "label_smoothing": 0.0,
    "evaluate_every_steps": 0,
    "best_metric": "auto",
    "early_stopping_patience": 0,
    "precision": "auto",
    "seed": 42,
    "tracker": "none",
    "checkpoint_minutes": 5.0,
    "validation_fraction": 0.1,
}
SAMPLES = (
    "I loved every minute of it.",
    "Save your money and stay at home.",
    "The sequel beats the first part by a mile.",
    "A cold, clumsy film that I could not wait to see the end of.",
    "Not bad at all.",
)
SIMPLE = {"head_start": "random", "warmup_fraction": 0.0, "average_weights": 0.0}
SIMPLE |= {"class_weights": "none", "best_metric": "accuracy"}
IMDB = SIMPLE | {"model": "distilbert-base-uncased", "rank": 4, "alpha": 32.0, "lora_dropout": 0.01}
IMDB |= {"truncation": "left", "targets": ("query",), "sample_from": "split"}
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "audit": {
        "adapt_last_layers": 1,
        "head_start": "random",
        "epochs": 2,
        "max_length": 256,
        "average_weights": 0.0,
    },
    "imdb-bert-cased": SIMPLE
    | {"model": "bert-base-cased", "sample": 2000, "rank": 1, "alpha": 1.0, "lora_dropout": 0.1, "epochs": 25}
    | {"targets": ("query", "value"), "truncation": "right"},
    "imdb-distilbert": IMDB
    | {"data": ("hub:shawhin/imdb-truncated",), "samples": SAMPLES, "batch_size": 4, "epochs": 10},
    "imdb-distilbert-b16": IMDB
    | {"data": ("hub:shawhin/imdb-truncated",), "samples": SAMPLES, "epochs": 10, "targets": ("query", "value")},
    "imdb-distilbert-quick": IMDB
    | {"data": ("hub:stanfordnlp/imdb",), "sample": 1000, "label_names": ("Negative", "Positive")}
    | {"batch_size": 4, "epochs": 1},
    "sst2-bert": SIMPLE
    | {"model": "bert-base-uncased", "data": ("hub:nyu-mll/glue/sst2",), "rank": 4, "targets": ("query", "value")}
    | {"learning_rate": 1e-4, "batch_size": 32, "max_length": 128, "truncation": "right"},
}
# Of each task of GLUE: batch size, epochs, learning rate, and the metric that GLUE reports.
GLUE: dict[str, tuple[int, int, float, str]] = {
    "cola": (32, 80, 4e-4, "matthews"),
    "mnli": (16, 30, 5e-4, "accuracy"),
    "mrpc": (16, 30, 4e-4, "f1"),
    "qnli": (32, 25, 4e-4, "accuracy"),
    "qqp": (16, 25, 5e-4, "f1"),
    "rte": (32, 80, 5e-4, "accuracy"),
    "stsb": (16, 40, 4e-4, "pearson"),
    "wnli": (32, 80, 5e-4, "accuracy"),
}
ROBERTA = SIMPLE | {"model": "roberta-base", "task": "classification", "targets": ("query", "value")}
ROBERTA |= {"warmup_fraction": 0.06, "weight_decay": 0.1, "hidden_dropout": 0.1, "truncation": "right"}
CHANGES |= {
    f"glue-{task}": ROBERTA
    | {"data": (f"hub:nyu-mll/glue/{task}",), "batch_size": batch, "epochs": epochs}
    | {"learning_rate": rate, "best_metric": metric}
    | ({"task": "regression", "class_weights": "auto"} if task == "stsb" else {})
    for task, (batch, epochs, rate, metric) in GLUE.items()
}


def refusal(**keys: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe().replace(**keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def round_trip(recipe: Recipe, folder: Path, comments: bool = True) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(recipe.to_toml(comments), encoding="utf-8")
    return Recipe.named(str(path))


def test_the_five_recipes_and_our_own_are_there() -> None:
    assert recipe_names()[0] == "default"
    assert set(recipe_names()) >= {"default", *PUBLISHED}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_recipe_says_what_was_published(name: str) -> None:
    recipe = Recipe.named(name)
    assert {key: getattr(recipe, key) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_quick_differs_from_imdb_distilbert_only_in_data_and_epochs() -> None:
    slow, quick = Recipe.named("imdb-distilbert"), Recipe.named("imdb-distilbert-quick")
    different = {key for key in recipe_keys() if getattr(slow, key) != getattr(quick, key)}
    assert different == {"data", "sample", "label_names", "samples", "epochs"}


def test_imdb_distilbert_predicts_five_samples() -> None:
    assert len(Recipe.named("imdb-distilbert").samples) == 5


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("comments", [True, False])
def test_toml_round_trip_of_named_recipes(name: str, comments: bool, tmp_path: Path) -> None:
    recipe = Recipe.named(name)
    assert round_trip(recipe, tmp_path, comments) == recipe
    assert recipe_path(name).is_file()


@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3),
    rate=st.floats(1e-9, 10),
    patterns=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), st.integers(1, 99)
    ),
)
def test_toml_round_trip_of_any_text_and_number(
    samples: list[str], rate: float, patterns: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe = Recipe().replace(
        samples=tuple(samples),
        learning_rate=rate,
        rank_pattern=patterns,
        alpha_pattern={k: v / 3 for k, v in patterns.items()},
        class_weights={k: v / 3 for k, v in patterns.items()},
    )
    assert round_trip(recipe, tmp_path_factory.mktemp("toml")) == recipe


def test_toml_explains_every_key() -> None:
    text = Recipe().to_toml()
    for key in recipe_keys():
        assert f"\n{key} = " in "\n" + text
    assert text.count("# ") == len(recipe_keys())
    assert "# " not in Recipe().to_toml(comments=False)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rank", 0, "rank: got 0, expected a whole number (1 or more)"),
        ("rank", 2.5, "rank: got 2.5, expected a whole number (1 or more)"),
        ("rank", "8", "rank: got '8', expected a whole number (1 or more)"),
        ("rank", True, "rank: got True, expected a whole number (1 or more)"),
        ("alpha", 0, "alpha: got 0, expected a number (above 0)"),
        ("alpha", float("nan"), "alpha: got nan, expected a number (above 0)"),
        ("learning_rate", 0, "learning_rate: got 0, expected a number (above 0, at most 10)"),
        ("learning_rate", 11, "learning_rate: got 11, expected a number (above 0, at most 10)"),
        ("lora_dropout", -0.1, "lora_dropout: got -0.1, expected a number (0 to 0.99)"),
        ("lora_dropout", 1, "lora_dropout: got 1, expected a number (0 to 0.99)"),
        ("lora_plus_ratio", 0.5, "lora_plus_ratio: got 0.5, expected a number (1 or more)"),
        ("epochs", 0, "epochs: got 0, expected a whole number (1 or more)"),
        ("max_length", 7, "max_length: got 7, expected a whole number (8 or more)"),
        ("seed", -1, "seed: got -1, expected a whole number (0 to 4.29497e+09)"),
        ("bias", "al", "bias: got 'al', expected one of none, lora_only, all; did you mean 'all'?"),
        ("variant", "dorra", "variant: got 'dorra', expected one of lora, rslora, dora, pissa; did you mean 'dora'?"),
        ("truncation", "lft", "truncation: got 'lft', expected one of right, left, head-tail; did you mean 'left'?"),
        ("schedule", 3, "schedule: got 3, expected one of linear, cosine, constant"),
        ("model", 3, "model: got 3, expected a string"),
        ("targets", "query", "targets: got 'query', expected a list of strings"),
        ("targets", [1], "targets: got [1], expected a list of strings"),
        ("rank_pattern", [1], "rank_pattern: got [1], expected a table of name = number"),
        ("rank_pattern", {"query": 0}, "rank_pattern of 'query': got 0, expected a whole number (1 or more)"),
        ("alpha_pattern", {"query": 0}, "alpha_pattern of 'query': got 0, expected a number (above 0)"),
        ("class_weights", {"rare": 0}, "class_weights of 'rare': got 0, expected a number (above 0)"),
        ("class_weights", {"rare": "3"}, "class_weights of 'rare': got '3', expected a number (above 0)"),
        (
            "class_weights",
            "balancd",
            "class_weights: got 'balancd', expected one of auto, none, balanced, or a table of name = number; "
            "did you mean 'balanced'?",
        ),
        ("label_smoothing", 1.5, "label_smoothing: got 1.5, expected a number (0 to 1)"),
        ("split", "70/30", "split: got '70/30', expected train/validation/test in percent such as 70/15/15"),
        (
            "split",
            "0/50/50",
            "split: got '0/50/50', expected three shares of 0 or more that add up to 100, train above 0",
        ),
        (
            "split",
            "80/30/0",
            "split: got '80/30/0', expected three shares of 0 or more that add up to 100, train above 0",
        ),
        ("lerning_rate", 1, "recipe key 'lerning_rate' is unknown; did you mean 'learning_rate'?"),
        ("zzz", 1, "recipe key 'zzz' is unknown"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(key: str, value: Any, said: str) -> None:
    assert refusal(**{key: value}) == said


@pytest.mark.parametrize("value", [None, 3, {"a": 1}])
@pytest.mark.parametrize("key", ["targets", "samples"])
def test_a_list_of_the_wrong_type_is_refused(key: str, value: Any) -> None:
    assert refusal(**{key: value}) == f"{key}: got {value!r}, expected a list of strings"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("key", ["alpha", "learning_rate", "max_grad_norm", "weight_decay"])
def test_numbers_that_are_none_are_refused(key: str, value: float) -> None:
    assert f"{key}: got {value}" in refusal(**{key: value})


def test_values_take_the_type_of_their_key() -> None:
    recipe = Recipe().replace(alpha=32, targets=["query"])
    assert (recipe.alpha, type(recipe.alpha), recipe.targets) == (32.0, float, ("query",))


def test_a_recipe_is_a_value() -> None:
    assert Recipe().replace(rank=3) == Recipe(rank=3) != Recipe()
    first = Recipe()
    first.rank_pattern["query"] = 3
    assert Recipe().rank_pattern == {}


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"recipe 'sst2-brt' is not one of default, .*did you mean 'sst2-bert'\?"):
        Recipe.named("sst2-brt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rank = ", "not a TOML file"),
        ("rnk = 3", "recipe key 'rnk' is unknown; did you mean 'rank'?"),
        ("self = 3", "recipe key 'self' is unknown"),
        ('targets = "query"', "targets: got 'query', expected a list of strings"),
        ("rank = 0", "rank: got 0, expected a whole number (1 or more)"),
    ],
)
def test_a_bad_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        Recipe.named(str(path))
    assert said in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("targets", "query, value,", ("query", "value")),
        ("targets", "", ()),
        ("label_names", "Bad,Good", ("Bad", "Good")),
        ("data", "train=my reviews.csv,test=b.csv", ("train=my reviews.csv", "test=b.csv")),
        ("rank_pattern", "query=8, value = 2", {"query": 8, "value": 2}),
        ("alpha_pattern", "query=1.5", {"query": 1.5}),
        ("class_weights", "rare=3.5,other=1", {"rare": 3.5, "other": 1}),
        ("class_weights", "balanced", "balanced"),
        ("rank", "8", 8),
        ("rank", "8.5", 8.5),  # refused by Recipe, which knows the range to name
        ("learning_rate", "1e-3", 1e-3),
        ("max_steps", "1e3", 1000),
        ("model", "minilm", "minilm"),
    ],
)
def test_values_from_the_command_line(key: str, text: str, value: Any) -> None:
    assert parse_value(key, text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("rank", "many"),
        ("rank_pattern", "query"),
        ("rank_pattern", "query=x"),
        ("class_weights", "rare=-1"),
        ("alpha", "inf"),
        ("alpha", "nan"),
    ],
)
def test_bad_numbers_from_the_command_line(key: str, text: str) -> None:
    with pytest.raises(RecipeError, match=f"^{key}"):
        Recipe().replace(**{key: parse_value(key, text)})


def test_split_shares() -> None:
    assert split_shares("70/15/15") == (0.7, 0.15, 0.15)
    assert split_shares("100/0/0") == (1, 0, 0)
    with pytest.raises(RecipeError, match="nan"):
        split_shares("nan/50/50")


def test_every_recipe_trains_what_it_did() -> None:
    assert set(CHANGES) == set(recipe_names())
    for name, changes in CHANGES.items():
        assert dataclasses.asdict(Recipe.named(name)) == DEFAULT | changes, name


def test_the_defaults_are_the_default_recipe(tmp_path: Path) -> None:
    assert Recipe() == Recipe.named("default")
    (tmp_path / "r.toml").write_text("rank = 16\n")
    assert Recipe.named(str(tmp_path / "r.toml")) == Recipe.named("default").replace(rank=16)


def test_every_option_has_a_group_and_a_help_text() -> None:
    facts = [field.metadata for field in dataclasses.fields(Recipe)]
    assert {fact["group"] for fact in facts} == set(GROUPS)
    assert all(fact["help"] for fact in facts)
    groups = [fact["group"] for fact in facts]
    assert [group for i, group in enumerate(groups) if group not in groups[:i]] == list(GROUPS)
    assert groups == sorted(groups, key=GROUPS.index), "the options of a group are next to each other"


def test_one_source_needs_no_brackets(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('data = "a b.csv"')
    assert Recipe.named(str(tmp_path / "mine.toml")).data == ("a b.csv",)
