#!/usr/bin/env python3
"""Writes docs/api.md from the docstrings of the public names; a test checks that the page is up to date.

python docs/make_api.py > docs/api.md
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import bertlora
from bertlora.recipe import Recipe

WIDTH = 99
# The order of the work; functions that are not named here come after these.
ORDER = ["prepare", "plan", "train", "evaluate", "compare", "report", "audit"]
SECTIONS = "Args|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes"
HEADINGS = {"Args": "Parameters", "Examples": "Example", "Notes": "Note"}
INTRO = """
Written by `python docs/make_api.py` from the docstrings. `import bertlora` is quick: each name loads what it needs
when it is first used. `bertlora.__version__` is the version.
"""


def api() -> str:
    """Returns the page: an overview, then functions, classes and errors."""
    public = {name: getattr(bertlora, name) for name in bertlora.__all__ if name != "__version__"}
    place = {name: i for i, name in enumerate(ORDER)}
    functions = sorted((n for n in public if inspect.isfunction(public[n])), key=lambda n: place.get(n, len(place)))
    errors = [n for n in public if inspect.isclass(public[n]) and issubclass(public[n], Exception)]
    classes = [n for n in public if inspect.isclass(public[n]) and n not in errors]
    parts = ["# API", filled(INTRO), overview({n: public[n] for n in [*functions, *classes, *errors]})]
    parts += [part for n in functions for part in function_parts(n, public[n], "##", f"bertlora.{n}")]
    parts += [part for n in classes for part in class_parts(n, public[n])]
    parts += [part for n in errors for part in error_parts(n, public[n])]
    return "\n\n".join(parts) + "\n"


def overview(public: dict[str, Any]) -> str:
    """Returns a table of the names, each with the first sentence of its docstring."""
    rows = [(name, sections(inspect.getdoc(thing) or "")[0][1].split("\n\n")[0]) for name, thing in public.items()]
    return table(["name", "what it is"], [(f"[`{n}`](#{n.lower()})", " ".join(text.split())) for n, text in rows])


def function_parts(name: str, function: Any, level: str, call: str) -> Iterator[str]:
    """Yields the heading, the signature and the docstring of a function or method."""
    yield f"{level} {name}"
    yield f"```python\n{signature(function, call)}\n```"
    yield from rendered(inspect.getdoc(function) or "")


def class_parts(name: str, kind: type) -> Iterator[str]:
    """Yields the docstring of a class, a recipe's keys, and the public methods that it has from bertlora."""
    yield f"## {name}"
    constructor = vars(kind).get("__init__")
    if inspect.isfunction(constructor) and constructor.__code__.co_filename != "<string>":  # not a dataclass's
        yield f"```python\n{signature(constructor, f'bertlora.{name}')}\n```"
        if constructor.__code__.co_flags & inspect.CO_VARKEYWORDS:
            yield "Every key of [Recipe](#recipe) is a parameter."
    yield from rendered(inspect.getdoc(kind) or "")
    if kind is Recipe:
        yield recipe_keys()
    own = re.findall("[A-Z][a-z]*", name)[-1].lower()  # how an example calls an object of this class
    members: dict[str, Any] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("bertlora"):
            members |= {name: value for name, value in vars(base).items() if name not in members}
    for member, value in members.items():
        if member.startswith("_"):
            continue
        if isinstance(value, classmethod | staticmethod):
            yield from function_parts(f"{name}.{member}", value.__func__, "###", f"{name}.{member}")
        elif inspect.isfunction(value):
            yield from function_parts(f"{name}.{member}", value, "###", f"{own}.{member}")
        elif isinstance(value, property):
            yield f"### {name}.{member}"
            yield from rendered(inspect.getdoc(value) or "")


def error_parts(name: str, kind: type) -> Iterator[str]:
    """Yields the docstring of an error, and a table of the errors below it."""
    yield f"## {name}"
    yield from rendered(inspect.getdoc(kind) or "")
    module = vars(inspect.getmodule(kind))
    below = [c for c in module.values() if isinstance(c, type) and issubclass(c, kind) and c is not kind]
    if below:
        yield f"All errors are in `{kind.__module__}`:"
        rows = [
            (f"`{c.__name__}`", ", ".join(f"`{b.__name__}`" for b in c.__bases__), inspect.getdoc(c)) for c in below
        ]
        yield table(["error", "subclass of", "meaning"], rows)


def recipe_keys() -> str:
    """Returns a table of the recipe's keys: the comment of each in TOML is its help and range."""
    lines = Recipe().to_toml().splitlines()
    pairs = [
        (comment.removeprefix("# "), *line.split(" = ", 1))
        for comment, line in zip(lines[::2], lines[1::2], strict=True)
    ]
    rows = [(f"`{key}`", f"`{value}`", choices_as_code(text)) for text, key, value in pairs]
    return table(["key", "default", "meaning"], rows)


def choices_as_code(comment: str) -> str:
    """Returns the comment of a key, with the choices at its end, if it has any, as inline code."""
    choices = re.search(r"\(((?:[a-z][\w-]*, )*[a-z][\w-]* or [\w-]+)\)$", comment)
    return comment[: choices.start()] + re.sub(r"\b(?!or )[a-z][\w-]*", r"`\g<0>`", choices[0]) if choices else comment


def signature(function: Callable[..., Any], name: str) -> str:
    """Returns the signature as the source has it, on one line if it fits, else with a parameter on each line."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    args = node.args
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    parts = [parameter(a, default) for a, default in zip(plain, defaults, strict=True) if a.arg not in ("self", "cls")]
    if args.vararg or args.kwonlyargs:
        parts.append(f"*{parameter(args.vararg) if args.vararg else ''}")
    parts += [parameter(a, default) for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    parts += [f"**{parameter(args.kwarg)}"] if args.kwarg else []
    line = f"{name}({', '.join(parts)}){returns}"
    text = line if len(line) <= WIDTH else f"{name}(\n" + "".join(f"    {p},\n" for p in parts) + f"){returns}"
    return re.sub(r"'(\w+)'$", r"\1", text).replace("'", '"')


def parameter(arg: ast.arg, default: ast.expr | None = None) -> str:
    """Returns a parameter with its type and its default."""
    text = ast.unparse(arg)
    if default is None:
        return text
    return f"{text} = {ast.unparse(default)}" if arg.annotation else f"{text}={ast.unparse(default)}"


def rendered(doc: str) -> Iterator[str]:
    """Yields the parts of a Google-style docstring as Markdown."""
    for heading, body in sections(doc):
        if heading:
            yield f"**{HEADINGS.get(heading, heading)}**"
        if heading in ("Args", "Attributes", "Raises"):
            entries = re.split(r"\n(?=\S)", body)
            pairs = [entry.partition(":") for entry in entries]
            yield "\n".join(filled(f"- `{name}`: {text}") for name, _, text in pairs)
        elif heading.startswith("Example"):
            yield f"```python\n{re.sub(r' *# doctest:.*', '', body)}\n```"
        elif body:
            for paragraph in re.split(r"\n\s*\n|\n(?=- )", body):
                indented = paragraph.startswith("    ")
                yield f"```text\n{textwrap.dedent(paragraph)}\n```" if indented else filled(paragraph)


def sections(doc: str) -> list[tuple[str, str]]:
    """Returns the text before the first section, under an empty heading, and then each section, without its indent."""
    pieces = re.split(rf"(?m)^({SECTIONS}):\n", doc)
    return [("", pieces[0].strip())] + [
        (heading, textwrap.dedent(body).strip()) for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def filled(text: str) -> str:
    """Returns a paragraph or a list item, its lines wrapped."""
    indent = "  " if text.startswith("- ") else ""
    words = " ".join(text.split())
    return textwrap.fill(words, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(head: list[str], rows: list[tuple[Any, ...]]) -> str:
    """Returns a Markdown table."""
    lines = [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


if __name__ == "__main__":
    print(api(), end="")
