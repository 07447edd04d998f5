"""From facts to a page: one HTML file without external resources."""

import re
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bertlora.evaluation.report import tables
from bertlora.evaluation.report.calibration import calibration_sentences
from bertlora.evaluation.report.multilabel import (
    LABEL_NOTES,
    LABEL_SECTIONS,
    label_headline,
    label_pictures,
    label_view,
)
from bertlora.evaluation.report.pictures import pictures_of, shared_pictures
from bertlora.evaluation.report.values import (
    VALUE_NOTES,
    VALUE_SECTIONS,
    value_headline,
    value_pictures,
    value_view,
)
from bertlora.task import MULTILABEL, REGRESSION

Table = dict[str, Any]

# In a table, a longer word such as a hash may be broken.
LONGEST_WORD = 30

# Section → its heading.
SECTIONS = {
    "verdict": "Verdict",
    "advice": "What to do next",
    "training": "Training",
    "confusion": "Confusion matrix",
    "classes": "Per class",
    "slices": "Slices",
    "calibration": "Calibration",
    "lengths": "Length and truncation",
    "errors": "Most confident errors",
    "doubtful": "Doubtful labels",
    "checks": "Data checks",
    "recipe": "Recipe",
    "origin": "Origin",
}
# Section → what it shows, if the heading does not say it.
NOTES = {
    "verdict": "LoRA and simpler classifiers on the same rows: the base model with its untrained head, a linear probe "
    "on the frozen base model, a linear model of TF-IDF. CI: confidence interval.",
    "advice": "Each with the measured figure behind it.",
    "training": "If the validation loss rises while the training loss falls, the model overfits.",
    "classes": "Precision and recall of LoRA at each threshold; the dotted line is chance.",
    "slices": "Accuracy of LoRA on parts of the rows, lowest p first. Slices are chosen by their number of rows, not "
    "by their errors. p: Fisher's exact test against the other rows, corrected for the number of slices by Holm's "
    "method. The intervals are not corrected.",
    "calibration": "Reliability: below the dotted line the confidence is too high. Points in the band are what perfect "
    "probabilities would show too. Bars show the number of rows, whiskers 95 % CIs. Risk and coverage: the errors that "
    "remain if only the most confident texts get a label.",
    "lengths": "In tokens, without special tokens.",
    "errors": "Hard texts, wrong labels, or patterns that the model has not learned.",
    "doubtful": "Labels that disagree with models that were not trained on the row. Many of them can be right: hard "
    "texts are here too.",
}


def render(facts: Table) -> str:
    """Returns the report as HTML. Every text in the facts is escaped.

    Args:
        facts: as `facts_of` gives them.
    """
    title = f"{facts['name']}: report"
    if facts["task"]["kind"] == REGRESSION:
        pictures = shared_pictures(facts) | value_pictures(facts)
        view = shared_view(facts) | value_view(facts) | {"headline": value_headline(facts["task"], facts["verdict"])}
        return fill("values.html", title, VALUE_SECTIONS, VALUE_NOTES, facts=view, pictures=pictures)
    if facts["task"]["kind"] == MULTILABEL:
        pictures = shared_pictures(facts) | label_pictures(facts)
        view = shared_view(facts) | label_view(facts) | {"headline": label_headline(facts["task"], facts["verdict"])}
        return fill("multilabel.html", title, LABEL_SECTIONS, LABEL_NOTES, facts=view, pictures=pictures)
    parts = {"facts": view_of(facts), "pictures": pictures_of(facts)}
    return fill("report.html", title, SECTIONS, NOTES, **parts)


def fill(template: str, title: str, sections: dict[str, str], notes: dict[str, str], **parts: Table) -> str:
    """Returns a rendered template, without blank lines."""
    known = {name: notes.get(name, "") for name in sections}
    page = environment().get_template(template)
    css = style_sheet()
    html = page.render(title=title, sections=sections, notes=known, css=css, policy=policy(css), **parts)
    return _without_blank_lines(html) + "\n"


def view_of(facts: Table) -> Table:
    """Returns the facts of a classification as the template needs them: sentences and tables of strings."""
    verdict, calibration = facts["verdict"], facts["calibration"]
    lora = verdict and verdict["classifiers"][-1]
    return shared_view(facts) | {
        "headline": tables.headline(facts),
        "verdict": _made(tables.verdict_view, verdict),
        "confusion": _made(tables.confusion_view, lora),
        "classes": _made(tables.class_view, lora),
        "slices": _made(tables.slice_view, facts["slices"]),
        "calibration": calibration and {"sentences": calibration_sentences(calibration)},
        "doubtful": tables.doubtful_view(facts["doubtful"]),
    }


def shared_view(facts: Table) -> Table:
    """Returns the facts that every task has as the template needs them."""
    return {
        "name": facts["name"],
        "written": facts["origin"]["written"],
        "advice": facts["advice"],
        "training": facts["training"],
        "lengths": _made(tables.length_view, facts["lengths"]),
        "errors": facts["errors"],
        "checks": _made(tables.check_view, facts["checks"]),
        "recipe": _made(tables.recipe_view, facts["recipe"]),
        "origin": tables.origin_view(facts["origin"]),
    }


def _made(make: Callable[[Any], Any], part: Any) -> Any:
    """Returns a part as `make` shows it; None without facts."""
    return None if part is None else make(part)


@cache
def environment() -> Environment:
    """Returns the template environment: it escapes every text and replaces characters that HTML forbids."""
    made = Environment(
        loader=FunctionLoader(lambda name: _resource(name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=clean,
    )
    made.tests["long"] = lambda text: max(map(len, re.split(r"[\s/]", str(text)))) > LONGEST_WORD
    made.filters |= {"percent": tables.in_percent, "count": "{:,}".format, "bound": bound, "breakable": breakable}
    return made


def clean(value: Any) -> Any:
    """Returns a text with the characters replaced that HTML forbids: control characters and lone surrogates.

    Characters that change the reading direction are replaced too. Values that are not texts are returned unchanged.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join("\ufffd" if _forbidden(ord(letter)) else letter for letter in value)


def _forbidden(code: int) -> bool:
    control = (code < 0x20 and code not in (0x09, 0x0A, 0x0D)) or 0x7F <= code < 0xA0
    turns = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return control or turns or 0xD800 <= code <= 0xDFFF or code & 0xFFFE == 0xFFFE


def bound(text: str) -> str:
    """Returns a text whose numbers stay on one line with their units: `81.4 %`, `p = 0.03`."""
    return text.replace(" %", "\u00a0%").replace("p = ", "p\u00a0=\u00a0")


def breakable(text: str) -> str:
    """Returns a text whose long paths may be broken after a slash."""
    words = re.split(r"(\s+)", text)
    if not any("/" in word and len(word) > LONGEST_WORD for word in words):
        return text
    slash = Markup("/<wbr>")
    return Markup("").join(
        slash.join(clean(part) for part in word.split("/")) if len(word) > LONGEST_WORD else clean(word)
        for word in words
    )


def style_sheet() -> Markup:
    """Returns the style sheet, unescaped."""
    return Markup(_without_blank_lines(_resource("report.css")))


def policy(css: str) -> str:
    """Returns the page's Content-Security-Policy: no script runs and nothing is loaded, whatever a text contains.

    The style sheet has its hash. Attributes that set a style are allowed: they give cells and words their shades.
    Browsers that do not know the difference read `style-src`.
    """
    digest = b64encode(sha256(f"\n{css}\n".encode()).digest()).decode()
    styles = f"style-src 'unsafe-inline'; style-src-elem 'sha256-{digest}'; style-src-attr 'unsafe-inline'"
    return f"default-src 'none'; {styles}; img-src data:; base-uri 'none'; form-action 'none'"


def _without_blank_lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())


def _resource(name: str) -> str:
    return (files("bertlora.evaluation.report") / name).read_text(encoding="utf-8")
