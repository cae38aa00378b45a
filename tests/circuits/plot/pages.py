"""What the tests of pages and figures share."""

from __future__ import annotations

from html.parser import HTMLParser

from matplotlib.figure import Figure

HOSTILE = '<script>alert("x")</script>$\\frac{ & \'\x00\u202e'


class Page(HTMLParser):
    """What a page refers to, and whether its elements are closed."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.refs: list[str] = []
        self.ids: list[str] = []
        self.visualizations: list[str] = []
        self.images_without_alt = 0
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.refs += [v for k, v in values.items() if k in ("src", "href", "xlink:href", "srcset", "data", "action")]
        self.ids += [values["id"]] if "id" in values else []
        self.images_without_alt += tag == "img" and not values.get("alt")
        if tag == "img" and values.get("class", "").startswith("image"):
            self.visualizations.append(values["src"])
        assert not any(name.startswith("on") for name in values), values
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def check_safe(text: str, *, beside: bool = False) -> Page:
    """A page that holds `HOSTILE` shows it as text, runs and fetches nothing."""
    page = Page(text)
    assert not page.open
    assert page.tags.count("script") == 1 and "alert(" in page.text
    assert beside or all(r.startswith(("#", "data:image/")) for r in page.refs)
    assert "\x00" not in text and "\u202e" not in text
    text.encode("utf-8")
    return page


def texts_of(figure: Figure) -> list[str]:
    """Every text of a figure."""
    return [t.get_text() for t in figure.axes[0].texts]
