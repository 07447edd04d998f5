"""The prose checker finds each kind of fault in each kind of file, and accepts good English."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

CHECKER = Path(__file__).parents[1] / "docs" / "check_prose.py"
findings = runpy.run_path(str(CHECKER))["findings"]
LONG = "This sentence " + "and this part of it " * 8 + "ends here."

CLEAN = {
    "clean.md": f"""# A heading

A paragraph of two sentences. It has `judge`, which is code, and a [link](https://example.org/{"x" * 90}).

- one item
- another item

| a | b |
|---|---|
| {"short cells " * 5} | {"make a long row " * 5} |

The variable `FORMATS_TABLE`, or FORMATS_TABLE within a line.

```text
{"The judged door stands alone. " * 5}
FORMATS_TABLE
```
""",
    "clean.py": '''"""Does one thing.

    python benchmarks/judge.py --judged
"""


class Reader:
    """Reads texts.

    Args:
        first: the first text.
        second: the second text.
        probe: the linear probe.
        probing: a line of text.
    """

    probe: "Probe | None" = None


KEY = "judged"
MESSAGE = f"{KEY.count('alone')} texts of {len(KEY)} read"  # noqa: RUF100  # it is short
''',
    "clean.toml": '# The rank of the update.\nname = "judged alone"\n',
    "clean.html": "<p class='judged'>{{ judged }} texts {# told #}</p><style>.alone {}</style>",
    "clean.css": "/* Two columns. */\n.judged { margin: 0 }\n",
}
FAULTS = {
    "word.md": ("Texts\nare judged here.", 2, 'found "judged"; write "evaluate"'),
    "broken.md": ("It is a coin\ntoss, or less.", 1, 'found "coin toss"; write "chance"'),
    "advice.md": ("Four runs, of which two are long.", 1, 'found "of which"; start a new sentence'),
    "item.md": ("- one\n- a door", 2, 'found "door"; write "interface" or "function" or "way"'),
    "cell.md": ("| a | b |\n|---|---|\n| one | told |", 3, 'found "told"; write "said" or "reported"'),
    "probe.md": ("| the probe | a |", 1, 'found "probe"; write "linear probe"'),
    "probing.md": ("It is probing.", 1, 'found "probing"; write "fitting the linear probe"'),
    "wide.md": ("short words " * 10, 1, "line of 120 columns; wrap it at 100"),
    "placeholder.md": ("The formats:\n\nFORMATS_TABLE\n", 3, 'found "FORMATS_TABLE" on a line of its own'),
    "sentence.md": (LONG.replace(" and", "\nand"), 1, "a sentence of 44 words; write 30 or fewer"),
    "comment.py": ("x = 1\n# the first\n# and so many", 3, 'found "so many"'),
    "docstring.py": ('def f():\n    """Reads.\n\n    Args:\n        x: torn\n    """', 5, 'found "torn"'),
    "literal.py": ('x = (\n    "one "\n    "text alone"\n)', 3, 'found "alone"'),
    "format.py": ('x = f"{1 + 1} texts {2:.1f} alone"', 1, 'found "alone"'),
    "name.py": ("class JudgedRows:\n    pass", 1, 'found "Judged"; write "evaluate"'),
    "test_name.py": ("def test_it_stands_alone():\n    pass", 1, 'found "alone"'),
    "recipe.toml": ('# for short texts alone\nname = "x"', 1, 'found "alone"'),
    "page.html": ("{% if x %}\n<p>The\n<b>door</b></p>\n{% endif %}", 3, 'found "door"'),
    "page.css": (".x { margin: 0 }\n/* beside\n   the table */", 2, 'found "beside"'),
    "Makefile": ("test: lint  ## every test alone\n\tpytest", 1, 'found "alone"'),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_text_passes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CLEAN[name], encoding="utf-8")
    assert findings(tmp_path / name) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_once_at_its_line(tmp_path: Path, name: str) -> None:
    text, line, message = FAULTS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    ((found_line, found),) = findings(tmp_path / name)
    assert found_line == line
    assert message in found


@pytest.mark.parametrize(
    "text",
    [
        "of which every so manieth key may be there alone",
        "so that no sentence is torn in both that it stands in",
        "what suffers is the confidence, which the temperature is there to mend",
        "tells the texts of a pair apart",
    ],
)
def test_compressed_sentences_of_the_past_are_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    assert findings(tmp_path / "page.md") != []


def test_faults_in_a_notebook_have_the_line_of_the_file(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Told again."]},
        {"cell_type": "code", "source": ["x = 1\n", "y = 2  # alone"]},
    ]
    path = tmp_path / "book.ipynb"
    path.write_text(json.dumps({"cells": cells}, indent=1), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    found = findings(path)
    assert [line for line, _ in found] == [i for i, text in enumerate(lines, 1) if "Told" in text or "alone" in text]


def test_literals_of_tests_are_data(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    path = tmp_path / "tests" / "test_x.py"
    path.write_text('x = "judged alone"\n\n\ndef test_x():\n    """Judges."""\n', encoding="utf-8")
    assert [line for line, _ in findings(path)] == [5]


def test_the_command_prints_each_fault_and_fails(tmp_path: Path) -> None:
    (tmp_path / "faulty.md").write_text("All is\ntold.\n", encoding="utf-8")
    (tmp_path / "clean.md").write_text("All is said.\n", encoding="utf-8")
    command = [sys.executable, str(CHECKER)]
    faulty = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert faulty.stdout.startswith(f'{tmp_path / "faulty.md"}:2: found "told"; write "said"')
    assert (faulty.returncode, faulty.stdout.count("\n")) == (1, 1)
    clean = subprocess.run([*command, str(tmp_path / "clean.md")], capture_output=True, text=True, check=False)
    assert (clean.returncode, clean.stdout) == (0, "")
