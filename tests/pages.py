"""Read a rendered page as a browser does: how its template is indented makes no difference."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from django.http import HttpResponse

PAGE = """
    html head body title meta link script template main header footer nav aside section article div
    p h1 h2 h3 ul ol li dl dt dd table caption colgroup col thead tbody tfoot tr th td form fieldset
    legend select option details summary dialog pre figure br
"""
# inside a drawing white space shows in a text only
DRAWING = "symbol g path line rect circle polyline text use"
BLOCKS = frozenset((PAGE + DRAWING).split())
"""Elements at whose edges white space does not show. All others are part of a sentence."""
AS_WRITTEN = frozenset({"pre", "textarea"})
"""Elements in which a browser keeps white space."""


def shown(answer: HttpResponse | str) -> str:
    """Return a page's HTML without the white space that a browser drops.

    Every run of white space is one space, and none is left at the edges of blocks or before the end
    of a tag. Between words and inline elements it stays: a person sees whether it is missing there.
    """
    reader = _Reader()
    reader.feed(answer if isinstance(answer, str) else answer.content.decode())
    reader.close()
    return "".join(reader.parts).strip()


class _Reader(HTMLParser):
    """Writes a page again piece by piece. Entities and attributes stay as they were written."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self.after_space = True
        """Whether a space here would be one too many: after another, or at a block's edge."""
        self.as_written = 0
        """How many of the open elements keep their white space."""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        written = " ".join((self.get_starttag_text() or "").split())
        self._put_tag(tag, re.sub(r" ?(/?>)$", r"\1", written))
        self.as_written += tag in AS_WRITTEN

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self.as_written -= tag in AS_WRITTEN
        self._put_tag(tag, f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.as_written:
            data = re.sub(r"\s+", " ", data)
            if self.after_space:
                data = data.removeprefix(" ")
        if data:
            self.parts.append(data)
            self.after_space = data.endswith(" ")

    def handle_entityref(self, name: str) -> None:
        self._put(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._put(f"&#{name};")

    def handle_decl(self, decl: str) -> None:
        self._put_tag("html", f"<!{decl}>")

    def _put_tag(self, tag: str, text: str) -> None:
        """Add a tag. A block's tag takes the space before it, and that after it does not come."""
        block = tag in BLOCKS
        if block and self.parts and not self.as_written:
            self.parts[-1] = self.parts[-1].removesuffix(" ")
        space = self.after_space
        self._put(text)
        # "word <b> word": the space stands already, outside of the element
        self.after_space = block or space

    def _put(self, text: str) -> None:
        self.parts.append(text)
        self.after_space = False
