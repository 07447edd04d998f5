"""From facts to a page: one HTML file that fetches nothing."""

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bertlora.evaluation.report import tables
from bertlora.evaluation.report.pictures import pictures_of

Table = dict[str, Any]

# Section → its heading.
SECTIONS = {
    "verdict": "Verdict",
    "advice": "What to do next",
    "training": "Training",
    "confusion": "Confusion matrix",
    "classes": "Per class",
    "calibration": "Calibration",
    "lengths": "Length and truncation",
    "errors": "Most confident errors",
    "doubtful": "Doubtful labels",
    "checks": "Data checks",
    "recipe": "Recipe",
    "origin": "Origin",
}
# Section → what is to be seen there, where the heading does not say it.
NOTES = {
    "verdict": "Base with its untrained head, linear probe on the frozen base, and LoRA, on the same rows.",
    "advice": "Each with the measured figure that it rests on.",
    "training": "A validation loss that rises while the training loss falls is overfitting.",
    "calibration": "Reliability: below the dotted line it is too sure; bars show where the rows lie, whiskers are 95 % "
    "intervals. Risk and coverage: the errors left if only the surest texts are answered.",
    "lengths": "In tokens, special tokens aside.",
    "errors": "Hard texts, wrong labels, or something the model has not learned.",
    "doubtful": "Labels that models which had not seen the row disagree with.",
}


def render(facts: Table) -> str:
    """Returns the report as HTML. Every text in the facts is escaped.

    Args:
        facts: as `facts_of` gives them.
    """
    parts = {"facts": view_of(facts), "pictures": pictures_of(facts)}
    return fill("report.html", f"{facts['name']}: report", SECTIONS, NOTES, **parts)


def fill(template: str, title: str, sections: dict[str, str], notes: dict[str, str], **parts: Table) -> str:
    """Returns a template filled, without blank lines."""
    known = {name: notes.get(name, "") for name in sections}
    page = environment().get_template(template)
    html = page.render(title=title, sections=sections, notes=known, css=style_sheet(), **parts)
    return "\n".join(line for line in html.splitlines() if line.strip()) + "\n"


def view_of(facts: Table) -> Table:
    """Returns the facts as the template takes them: sentences and tables of texts."""
    verdict = facts["verdict"]
    lora = verdict and verdict["classifiers"][-1]

    def made(make: Any, part: Any) -> Any:
        return None if part is None else make(part)

    calibration = facts["calibration"]
    return {
        "name": facts["name"],
        "written": facts["origin"]["written"],
        "verdict": made(tables.verdict_view, verdict),
        "advice": facts["advice"],
        "training": facts["training"],
        "confusion": made(tables.confusion_view, lora),
        "classes": made(tables.class_view, lora),
        "calibration": calibration and {"sentence": tables.calibration_sentence(calibration)},
        "lengths": made(tables.length_view, facts["lengths"]),
        "errors": facts["errors"],
        "doubtful": tables.doubtful_view(facts["doubtful"]),
        "checks": made(tables.check_view, facts["checks"]),
        "recipe": made(tables.recipe_view, facts["recipe"]),
        "origin": tables.origin_view(facts["origin"]),
    }


@cache
def environment() -> Environment:
    """Returns the templates, with every text escaped and cleaned of characters that HTML may not hold."""
    made = Environment(
        loader=FunctionLoader(lambda name: _resource(name)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=clean,
    )
    made.filters |= {"percent": tables.in_percent, "count": "{:,}".format}
    return made


def clean(value: Any) -> Any:
    """Returns a text with what HTML may not hold (control characters, lone surrogates) replaced; others as they are.

    So are the characters that turn the direction of what follows.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join("\ufffd" if _forbidden(ord(letter)) else letter for letter in value)


def _forbidden(code: int) -> bool:
    control = (code < 0x20 and code not in (0x09, 0x0A, 0x0D)) or 0x7F <= code < 0xA0
    turns = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return control or turns or 0xD800 <= code <= 0xDFFF or code & 0xFFFE == 0xFFFE


def style_sheet() -> Markup:
    """Returns the style sheet, which is ours and goes in as it is."""
    return Markup(_resource("report.css"))


def _resource(name: str) -> str:
    return (files("bertlora.evaluation.report") / name).read_text(encoding="utf-8")
