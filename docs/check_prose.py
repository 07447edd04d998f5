#!/usr/bin/env python3
"""Checks the prose of this repository against docs/words.toml: words, length of sentences, width of lines, gaps.

    python docs/check_prose.py                               # the whole repository, as `make prose` does
    python docs/check_prose.py src/bertlora/data README.md   # these folders and files

Reads Markdown, notebooks and HTML templates; the comments of TOML, CSS, shell and make files; and the comments and
strings of JavaScript. Of Python it reads comments, docstrings, string literals, and names of functions and classes.
Ignores code blocks, inline code, and literals without a space. Prints a line per finding. The exit status is 1 if there
is one.
"""

import ast
import io
import json
import os
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

ROOT = Path(os.path.relpath(Path(__file__).parents[1]))
PARTS = "README.md CHANGELOG.md Makefile pyproject.toml .ci docs src tests benchmarks notebooks"
RULES = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
SENTENCE, COLUMNS = (RULES["limits"][key] for key in ("sentence_words", "markdown_columns"))

Line = tuple[int, str]  # a line number and a text: a line, a paragraph with line breaks, or a finding
Words = list[tuple[re.Pattern[str], str]]

# What begins a paragraph: a list item, an entry of a docstring's Args, a heading, a row of a table.
OPENING = re.compile(r"\s*([-*+]|\d+\.|\w+( \(.*?\))?:) |#|\||.*\S {2,}\S")
COMMAND = re.compile(r"\s*(>>>|\.\.\.|\$|python \S+\.py|bertlora .*--)")
# A word that stands for a text which was never filled in.
PLACEHOLDER = re.compile(r"\s*[A-Z][A-Z\d]*(_[A-Z\d]+)+\s*")
SENTENCE_END = re.compile(r"(?<=[:|])\s|(?<=[.!?])[\"')*]*\s+(?=\W*[A-Z\d_`])")


def findings(path: Path) -> list[Line]:
    """Returns what is wrong in a file, by line."""
    lines = list(enumerate(path.read_text(encoding="utf-8").split("\n"), start=1))
    every, old = words(RULES.keys() - {"limits"}), words(["old_name"])
    found = [f for p in prose(path, lines) for f in [*word_findings(p, every), *sentence_findings(p)]]
    for node in ast.walk(ast.parse(path.read_bytes())) if path.suffix == ".py" else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", node.name)
            found += word_findings((node.lineno, name), every if node.name.startswith("test_") else old)
    for number, text in outside_code(lines) if path.suffix == ".md" else ():
        if (width := len(re.sub(r"\]\([^)]*\)", "]", text))) > COLUMNS and not text.startswith("|"):
            found.append((number, f"line of {width} columns; wrap it at {COLUMNS}"))
        if PLACEHOLDER.fullmatch(text):
            found.append((number, f'found "{text.strip()}" on a line of its own; write what it stands for'))
    return sorted(found)


def words(groups: Iterable[str]) -> Words:
    """Returns the patterns of groups, each with its advice; a space of a pattern matches a line break too."""
    found = []
    for pattern, advice in (item for group in groups for item in RULES[group].items()):
        whole = re.compile(rf"(?<![\w-])(?:{pattern.replace(' ', chr(92) + 's')})(?![\w-])", re.IGNORECASE)
        found.append((whole, advice if isinstance(advice, str) else "write " + " or ".join(f'"{a}"' for a in advice)))
    return found


def word_findings(paragraph: Line, patterns: Words) -> Iterator[Line]:
    """Yields the words of the list that a paragraph has."""
    start, text = paragraph
    for pattern, advice in patterns:
        for match in pattern.finditer(text):
            yield start + text[: match.start()].count("\n"), f'found "{" ".join(match[0].split())}"; {advice}'


def sentence_findings(paragraph: Line) -> Iterator[Line]:
    """Yields the sentences that are too long. A colon ends a sentence; inline code is one word."""
    start, text = paragraph
    for sentence in SENTENCE_END.split(text):
        if (size := len(re.findall(r"\S*\w\S*", sentence))) > SENTENCE:
            line, begin = start + text[: text.find(sentence)].count("\n"), " ".join(sentence.split()[:4])
            yield line, f'found "{begin} ...", a sentence of {size} words; write {SENTENCE} or fewer'


def prose(path: Path, lines: list[Line]) -> Iterator[Line]:
    """Yields the paragraphs of a file of any kind."""
    source = "\n".join(text for _, text in lines)
    if path.suffix == ".md":
        yield from paragraphs(outside_code(lines))
    elif path.suffix == ".py":
        yield from python(lines, literals="tests" not in path.resolve().parts)
    elif path.suffix == ".ipynb":
        for cell in json.loads(source)["cells"]:
            own = "".join(cell["source"]).split("\n")
            start = next(n for n, text in lines if json.dumps(own[0], ensure_ascii=False)[:-1] in text)
            inside = list(enumerate(own, start))
            yield from python(inside) if cell["cell_type"] == "code" else paragraphs(outside_code(inside))
    elif path.suffix in (".html", ".css"):
        html, css = r"<(script|style|svg).*?</\1>|\{[{%#].*?[}%#]\}|<.*?>", r"(?:\A|[*]/).*?(?:/[*]|\Z)"
        code = re.compile(html if path.suffix == ".html" else css, re.DOTALL)
        bare = code.sub(lambda match: " " + "\n" * match[0].count("\n"), source)
        yield from paragraphs(list(enumerate(bare.split("\n"), start=1)))
    elif path.suffix == ".js":
        comment, literal = re.compile(r"\s*(?://|/?\*+)\s?(.*?)(?:\*/)?$"), re.compile(r"""(["`])(.*?\s.*?)\1""")
        yield from paragraphs([(number, found[1]) for number, text in lines if (found := comment.match(text))])
        strings = [(number, found[2]) for number, text in lines for found in literal.finditer(text)]
        yield from ((number, re.sub(r"\$\{.*?\}", "`_`", text)) for number, text in strings)
    else:
        comments = [(number, re.search(r"(?:^|\s)#+ (.*)", text)) for number, text in lines]
        yield from paragraphs([(number, found[1] if found else "") for number, found in comments])


def outside_code(lines: list[Line]) -> list[Line]:
    """Returns the lines of Markdown, those of code blocks emptied."""
    fences = [text.lstrip().startswith("```") for _, text in lines]
    code = [fence or before % 2 for fence, before in zip(fences, accumulate(fences), strict=True)]
    return [(number, "" if inside else text) for (number, text), inside in zip(lines, code, strict=True)]


def python(lines: list[Line], literals: bool = True) -> Iterator[Line]:
    """Yields the paragraphs of comments, of docstrings and, if asked, of other string literals that have a space."""
    source, before = "\n".join(text for _, text in lines), lines[0][0] - 1
    comments = {number: "" for number, _ in lines}
    for token in tokenize.generate_tokens(io.StringIO(source + "\n").readline):
        if token.type == tokenize.COMMENT:
            comments[before + token.start[0]] = re.sub(r"#+!?|(type: ignore|noqa)[^#]*", "", token.string)
    yield from paragraphs(list(comments.items()))
    tree, rows = ast.parse(source), [text.encode() for _, text in lines]
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr | ast.Constant)]
    parts = {id(part) for n in nodes for part in ast.walk(n) if part is not n}
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for n in nodes:
        if (literals or id(n) in docs) and id(n) not in parts and isinstance(getattr(n, "value", ""), str):
            own = rows[n.lineno - 1 : n.end_lineno]
            own[-1] = own[-1][: n.end_col_offset]
            own[0] = own[0][n.col_offset :]
            raw = re.sub(r"\\n", "  ", re.sub(r"\{[^{}]*\}", "_", b"\n".join(own).decode()))
            raw = re.sub(r'"\s*(\n\s*)[rbf]*"', r"\1", raw).strip("rbf\"'")
            if id(n) in docs or " " in raw.strip():
                yield from paragraphs(list(enumerate(raw.split("\n"), before + n.lineno)))


def paragraphs(lines: list[Line]) -> Iterator[Line]:
    """Yields the paragraphs, their lines joined by line breaks, without inline code and the targets of links."""
    held: list[Line] = []
    for number, text in [*lines, (0, "")]:
        text = "" if COMMAND.match(text) else re.sub(r"\]\([^)]*\)", "]", text)
        if held and (not text.strip() or OPENING.match(text) or number != held[-1][0] + 1):
            joined = "\n".join(" ".join(part.split()) for _, part in held)
            yield held[0][0], re.sub(r"`+[^`]+`+", lambda code: "`_`" + "\n" * code[0].count("\n"), joined)
            held = []
        held += [(number, text)] if text.strip() else []


def files(path: Path) -> list[Path]:
    """Returns the files at or under a path that can be checked."""
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    kinds = (".md", ".py", ".ipynb", ".html", ".css", ".js", ".toml", "Makefile", "run")
    return [p for p in inside if p.name.endswith(kinds)]


if __name__ == "__main__":
    parts = [Path(part) for part in sys.argv[1:]] or [ROOT / part for part in PARTS.split()]
    wrong = [(file, *finding) for part in parts for file in files(part) for finding in findings(file)]
    for place in wrong:
        print("{}:{}: {}".format(*place))
    sys.exit(bool(wrong))
