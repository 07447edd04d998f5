"""The documents tell the truth: commands, file tree, links."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from command_line import parsed

import bertlora
from bertlora.cli import verbs
from bertlora.recipe import recipe_names

VERBS = verbs.commands
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_commands_page_is_the_help_pages() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_commands.py"))["commands"]()
    assert made == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_api_page_is_the_docstrings() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["api"]()
    assert made == (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in bertlora.__all__ if f"## {name}\n" not in made] == ["__version__"]


def test_schemas_are_as_written_and_every_verb_has_one() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_schemas.py"))["schemas"]()
    kept = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "schemas").iterdir()}
    assert made == kept
    assert set(kept) == {f"{verb}.json" for verb in VERBS}


DOC = """Joins texts,
as `str.join` does.

    a + b

Args:
    texts: (N,) texts,
        in order.
    sep: what goes between.

Returns:
    One text.

Raises:
    DataError: no texts.

Example:
    >>> join(["a", "b"])  # doctest: +SKIP
"""
DOC_AS_MARKDOWN = """Joins texts, as `str.join` does.

```text
a + b
```

**Parameters**

- `texts`: (N,) texts, in order.
- `sep`: what goes between.

**Returns**

One text.

**Raises**

- `DataError`: no texts.

**Example**

```python
>>> join(["a", "b"])
```"""


def test_a_docstring_becomes_markdown() -> None:
    rendered = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["rendered"]
    assert "\n\n".join(rendered(DOC)) == DOC_AS_MARKDOWN


def join(texts: list[str], sep: str = ", ", *, limit: "int | None" = None, **more: int) -> "str":
    return sep.join(texts[:limit])


def test_a_signature_is_the_source_wrapped_if_it_is_long() -> None:
    signature = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["signature"]
    arguments = ["texts: list[str]", 'sep: str = ", "', "*", 'limit: "int | None" = None', "**more: int"]
    assert signature(join, "join") == f"join({', '.join(arguments)}) -> str"
    long = "a_module_with_a_long_name.join"
    assert signature(join, long) == "\n".join([f"{long}(", *(f"    {a}," for a in arguments), ") -> str"])


def test_every_verb_and_recipe_is_in_the_readme() -> None:
    assert [name for name in VERBS if f"bertlora {name}" not in README] == []
    assert [name for name in recipe_names() if f"`{name}`" not in README] == []


@pytest.mark.parametrize("page", ["README.md", "docs/exports.md"])
def test_every_format_of_exports_is_in_a_table(page: str) -> None:
    (option,) = (param for param in VERBS["export"].params if param.name == "format")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [name for name in option.type.choices if name not in rows] == []


def test_first_screen_has_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:60])
    assert "make demo" in first
    assert "make test" in first


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_documents_parse(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("bertlora ")]
    if page.name == "README.md":  # its table of verbs too
        commands += re.findall(r"^\| `(bertlora [^`]+)`", text, flags=re.MULTILINE)
        assert len(commands) > len(VERBS) + 5
    for command in commands:
        words = shlex.split(re.split(r"\s[|>]\s", command, maxsplit=1)[0], comments=True)
        verb, *rest = ["default" if word == "R" else word for word in words[1:]]  # R stands for any recipe
        assert parsed(verb, *rest).info_name in VERBS


def test_the_tree_in_the_readme_is_the_tree() -> None:
    block = re.search(r"```text\nsrc/bertlora/\n(.*?)```", README, flags=re.DOTALL)
    assert block is not None
    named = re.findall(r"^  (\S+)", block.group(1), flags=re.MULTILINE)
    rooms = [f"{p.name}/" if p.is_dir() else p.name for p in (ROOT / "src" / "bertlora").iterdir()]
    ignored = {"__pycache__/", "py.typed", "__main__.py"}
    assert sorted(named) == sorted(set(rooms) - ignored)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_sections_lead_to_headings(page: Path) -> None:
    for name, section in re.findall(r"\]\(([^):#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / name if name else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        assert section in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_no_document_names_a_path_of_a_machine() -> None:
    assert [page.name for page in PAGES if re.search(r"/(root|work|home|tmp)/", page.read_text(encoding="utf-8"))] == []
