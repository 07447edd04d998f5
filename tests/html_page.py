"""An HTML page, parsed strictly."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(HTMLParser):
    """A page parsed strictly: every element must be closed by its own tag, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[tuple[str, str]] = []  # (innermost element, text)
        self.quoted = ""  # the text in blockquotes
        self.parents: list[tuple[str, ...]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parents.append(tuple(self.open))
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        assert len(attrs) == len({key for key, _ in attrs}), f"{tag} has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.quoted += data if "blockquote" in self.open else ""
        if data.strip():
            self.words.append((self.open[-1] if self.open else "", data))

    def of(self, *tags: str) -> list[dict[str, str]]:
        """Attributes of the elements of these names, in order."""
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def text(self) -> str:
        """All visible text."""
        return " ".join(" ".join(data.split()) for tag, data in self.words if tag not in ("style", "title", "desc"))
