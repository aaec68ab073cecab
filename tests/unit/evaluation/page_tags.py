"""An HTML page taken apart."""

from html.parser import HTMLParser

VOID = {"meta", "input", "br", "hr", "img"}


class Tags(HTMLParser):
    """Every start tag with its attributes, the text, and whether end tags fit."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def attribute(self, tag: str, name: str) -> list[str | None]:
        """One attribute of every such tag."""
        return [attributes.get(name) for found, attributes in self.found if found == tag]


def assert_self_contained(page: str) -> None:
    """The page is well formed and refers to nothing outside itself."""
    tags = Tags(page)
    assert tags.open == []
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page
    for tag, attributes in tags.found:
        assert tag not in {"link", "iframe", "object"}
        assert (attributes.get("src") or "data:").startswith("data:")
        assert tag != "script" or "src" not in attributes
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {str(target)[1:] for target in tags.attribute("a", "href")} <= set(ids)
