"""Reads an HTML page as a browser would: its texts, its tables, and every address that it would load."""

import re
from html.parser import HTMLParser

LOADED = ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href")


class ReadPage(HTMLParser):
    """A page.

    Attributes:
        texts: every text, without those of style and script.
        addresses: every address that it refers to, embedded images among them.
        anchors: the names within the page that it refers to. ids: those that there are.
        tables: by `data-name`, the rows of the table, that of its headings first.
        tags: every tag.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self._table: list[list[str]] | None = None
        self._cell = False
        self._hidden = False
        self.source = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.ids += [own["id"]] if "id" in own else []
        for value in (own[name] for name in LOADED if name in own):
            (self.anchors if value.startswith("#") else self.addresses).append(value.removeprefix("#"))
        for value in own.values():
            self.anchors += re.findall(r"url\(#([^)]+)\)", value)
            self.addresses += re.findall(r"url\((?!#)([^)]+)\)", value)
        self._hidden = tag in ("style", "script")
        if tag == "table":
            self._table = self.tables.setdefault(own.get("data-name", ""), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
        self._cell = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._hidden = False

    def handle_data(self, data: str) -> None:
        if self._hidden:
            self.addresses += re.findall(r"(?:url\(|@import\s+)([^);\s]+)", data)
            return
        self.texts.append(data)
        if self._cell and self._table:
            self._table[-1][-1] += data

    @property
    def outside(self) -> list[str]:
        """The addresses that are not part of the page: files, and other machines."""
        return [address for address in self.addresses if not address.startswith("data:image/png;base64,")]
