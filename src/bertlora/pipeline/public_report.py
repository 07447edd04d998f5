"""A report without the texts that it quotes, for people who may not read the data."""

import re

# The sections that quote rows; see the templates in `evaluation/report`. `report.html` has both, the pages of other
# tasks only the first.
QUOTING = re.compile(
    r'(<section id="(?:errors|doubtful)"[^>]*>.*?<div class="body">).*?(</div>\s*</section>)', re.DOTALL
)
LEFT_OUT = '<p class="missing">This copy of the report quotes no texts. The run folder has the whole report.</p>'
QUOTES = "<blockquote", "Labels to check"


def without_texts(page: str) -> str | None:
    """Returns a report whose sections of errors and doubtful labels quote no row.

    Args:
        page: the HTML of a report.

    Returns:
        The page. None if it does not have these sections as this version writes them: then nobody knows what it quotes.
    """
    cut, sections = QUOTING.subn(rf"\1\n{LEFT_OUT}\n\2", page)
    return None if sections == 0 or any(mark in cut for mark in QUOTES) else cut
