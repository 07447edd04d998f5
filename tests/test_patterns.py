"""Regular expressions: none has a text on which twice the length takes much more than twice the time."""

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import bertlora

ROOT = Path(bertlora.__file__).parent
GENERAL = "a1 <-'.?=A\n/,&;_é★"
SHORT = range(20, 80, 5)  # Small steps: an exponential time is seen before it lasts for ever.
LENGTHS = 80, 320, 1280, 5120  # At the last a square takes over 20 ms, and a line under 1 ms.
CLEAR_S = 0.003  # a shorter time is a line
Use = Callable[[str], object]


def uses() -> Iterator[tuple[str, "re.Pattern[str]", Use]]:
    """Yields each pattern of the sources, with its place, and how it is used on a text."""
    for path in sorted(ROOT.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "import re\n" not in source:
            continue
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        module = vars(importlib.import_module(name)) if "= re.compile(" in source else {}
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, method = ast.unparse(node.func.value), node.func.attr
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            if owner == "re" and method not in ("compile", "escape"):
                if isinstance(node.args[0], ast.Constant):
                    pattern = re.compile(node.args[0].value)
                    yield place, pattern, used(pattern, method)
            elif isinstance(module.get(owner), re.Pattern):
                yield place, module[owner], used(module[owner], method)


def used(pattern: "re.Pattern[str]", method: str) -> Use:
    """Returns what a method of a pattern does with a text."""
    if method in ("sub", "subn"):
        return lambda text: pattern.sub("", text)
    if method == "finditer":
        return lambda text: list(pattern.finditer(text))
    return getattr(pattern, method)  # type: ignore[no-any-return]


def seconds(use: Use, text: str) -> float:
    began = time.process_time()
    use(text)
    return time.process_time() - began


def is_slow(use: Use, start: str, unit: str) -> bool:
    """Returns whether the time grows faster than the length of a text, found at the shortest length that shows it."""
    short, texts = ([start + unit * (n // len(unit)) + "\0" for n in lengths] for lengths in (SHORT, LENGTHS))
    for text in short:
        if seconds(use, text) > CLEAR_S and min(seconds(use, text) for _ in range(3)) > CLEAR_S:
            return True
    for shorter, text in pairwise(texts):
        if seconds(use, text) > CLEAR_S:
            times = [min(seconds(use, one) for _ in range(3)) for one in (shorter, text)]
            if times[1] > max(CLEAR_S, 6 * times[0]):  # four times the length
                return True
    return False


def slow_text(pattern: "re.Pattern[str]", use: Use) -> str:
    """Returns what, if it is repeated, takes far more time than its length; empty if nothing does."""
    own = "".join(re.findall(r"[^\\()\[\]{}|^$*+]", pattern.pattern))
    letters = list(dict.fromkeys(own[:12] + GENERAL))
    texts = [("", unit) for unit in letters + [a + b for a in letters[:9] for b in letters[:9] if a != b]]
    texts += [(start, unit) for start in re.findall(r"[a-z<&(\"']+", pattern.pattern)[:4] for unit in letters]
    return next((f"{start}{unit}..." for start, unit in texts if is_slow(use, start, unit)), "")


def test_no_pattern_is_slow_on_any_text() -> None:
    every = list(uses())
    assert len(every) > 25
    assert {place: text for place, pattern, use in every if (text := slow_text(pattern, use))} == {}


@pytest.mark.parametrize("pattern", [r"\s+$", r"\w+;", r"[a-z]+1?[a-z]*;", "(a|aa)+;"])
def test_slow_patterns_are_found(pattern: str) -> None:
    slow = re.compile(pattern)
    assert slow_text(slow, used(slow, "search"))


# A group that repeats, with a repeat or a choice in it.
NESTED = re.compile(r"\((?:[^()\\]|\\.)*[*+}|](?:[^()\\]|\\.)*\)[*+{]")
# In a script: `/.../.test(`, `.split(/.../`, and the text of `new RegExp`.
IN_SCRIPT = re.compile(
    r"/((?:[^/\\\n]|\\.)+)/[a-z]*\.(?:test|exec)|\(/((?:[^/\\\n]|\\.)+)/[a-z]*[,)]|RegExp\(`([^\n]*)`,"
)
# Its choices begin with different characters, so that there is one way to match a text.
ONE_WAY = ['(?:[^"]|"")*']


def test_patterns_of_the_playground_repeat_no_repeats() -> None:
    found = [
        "".join(groups)
        for script in sorted((ROOT / "serving/playground").glob("*.js"))
        for groups in IN_SCRIPT.findall(script.read_text(encoding="utf-8"))
    ]
    assert len(found) >= 7
    for pattern in found:
        for known in ONE_WAY:
            pattern = pattern.replace(known, "")
        assert not NESTED.search(pattern), pattern
    assert NESTED.search("(a+)+")
    assert NESTED.search("(a|a)*")
