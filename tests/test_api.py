"""What `import bertlora` gives, and how little it loads; the tree of errors."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import bertlora
from bertlora import errors

HEAVY = ["torch", "transformers", "peft", "accelerate", "sklearn", "scipy", "pandas", "pyarrow", "datasets", "numpy"]

BASES = {
    "BertloraError": Exception,
    "InputError": ValueError,
    "DataError": ValueError,
    "RecipeError": ValueError,
    "ModelError": ValueError,
    "RunError": ValueError,
    "NotMixableError": ValueError,
    "OutputError": OSError,
    "HubError": OSError,
    "ServerError": OSError,
    "HealthError": RuntimeError,
    "InUseError": RuntimeError,
    "FullMemoryError": ValueError,
}


def loaded_after(statement: str) -> list[str]:
    """The heavy libraries that a fresh interpreter has loaded after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_exported_members() -> None:
    verbs = ["audit", "compare", "evaluate", "plan", "prepare", "report", "train"]
    errors = ["BertloraError"]
    classes = ["Client", "LoraClassifier", "LoraMultilabelClassifier", "LoraRegressor", "Recipe", "Run"]
    assert sorted(bertlora.__all__) == [*errors, *classes, "__version__", *verbs]
    for name in bertlora.__all__:
        assert getattr(bertlora, name) is not None
    assert bertlora.__version__ == version("bertlora")


def test_exported_members_are_the_ones_at_home() -> None:
    assert bertlora.LoraClassifier is importlib.import_module("bertlora.classifier").LoraClassifier
    assert bertlora.Run is importlib.import_module("bertlora.run.loaded").Run


def test_an_unknown_member_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'bertlora' has no attribute 'Lora'"):
        bertlora.Lora  # noqa: B018


def test_public_members_are_documented() -> None:
    members = [bertlora.Client, bertlora.LoraClassifier, bertlora.Run, bertlora.Recipe]
    assert all(getattr(bertlora, name).__doc__ for name in bertlora.__all__)
    for member in members:
        assert member.__doc__
        public = {name: f for name, f in vars(member).items() if not name.startswith("_") and inspect.isroutine(f)}
        assert all(inspect.getdoc(getattr(member, name)) for name in public), public


def test_import_loads_no_torch() -> None:
    assert loaded_after("import bertlora") == []
    assert loaded_after("from bertlora import Recipe, BertloraError; Recipe.named('default')") == []


def test_the_command_line_loads_no_torch_until_a_verb_needs_it() -> None:
    assert loaded_after("import bertlora.cli") == []


def test_a_heavy_library_would_be_noticed() -> None:
    assert loaded_after("import numpy") == ["numpy"]


# Errors


def test_the_tree_is_complete() -> None:
    found = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert set(found) == set(BASES)


@pytest.mark.parametrize("name", BASES)
def test_each_error_is_ours_and_of_a_standard_type(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.BertloraError)
    assert issubclass(kind, BASES[name])
    assert str(kind("where: what")) == "where: what"
    assert kind.__doc__


def test_inputs_share_a_parent() -> None:
    for kind in (errors.DataError, errors.RecipeError, errors.ModelError):
        assert issubclass(kind, errors.InputError)


def test_the_docstring_draws_the_tree() -> None:
    drawn = re.findall(r"(\w+Error) +\((\w+)\)", errors.__doc__ or "")
    assert {name: getattr(__import__("builtins"), base) for name, base in drawn}.items() <= BASES.items()
    assert all(name in (errors.__doc__ or "") for name in BASES)


@pytest.mark.parametrize(("word", "said"), [("postive", "; did you mean 'positive'?"), ("xyz", ""), ("", "")])
def test_suggestion(word: str, said: str) -> None:
    assert errors.suggestion(word, ["negative", "positive"]) == said


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("r.csv: name one with --text-column", "r.csv: name one with text_column"),
        ("a: give --resume, or --overwrite to start again", "a: give resume=True, or overwrite=True to start again"),
        ("run 'bertlora cache x --to DIR', then --model DIR", "run 'bertlora cache x --to DIR', then model DIR"),
        ("/data/--odd/my--file.csv: is blank", "/data/--odd/my--file.csv: is blank"),
    ],
)
def test_messages_name_parameters_in_python_and_flags_on_a_command_line(written: str, read: str) -> None:
    for kind in (errors.InputError, errors.OutputError, errors.HealthError):
        assert str(kind(written)) == read
        with errors.flags_shown():
            assert str(kind(written)) == written
