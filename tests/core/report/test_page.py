"""The page is self-contained, and text of the user is never interpreted as markup."""

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from flambeau.data import Preview
from flambeau.errors import InputError, StorageError
from flambeau.plotting import draw_panels
from flambeau.report import Cards, Figures, Matrix, Page, Preformatted, Table, Text, plot_confusion

EVIL = "<script>alert('x')</script>\" onload=\"alert(1)"
VOID = {"meta", "img", "br", "use", "path", "rect", "image"}
PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f"
    b"\x15\xc4\x89\x00\x00\x00\nIDATx\x9cc\x00\x01\x00\x00\x05\x00\x01\r\n-\xb4\x00\x00\x00\x00IEND"
    b"\xaeB`\x82"
)


class Parsed(HTMLParser):
    """Checks that tags are closed in order; collects text and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)


def check_self_contained(html: str) -> Parsed:
    """Check that the page has no scripts, event handlers, external files or duplicate ids."""
    parsed = Parsed(html)
    assert "script" not in parsed.tags
    assert not {"iframe", "object", "link", "base", "form"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert not name.startswith("on"), (name, value)
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:image/")), value
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    return parsed


def test_all_text_is_escaped() -> None:
    pytest.importorskip("matplotlib")
    page = Page(EVIL, EVIL)
    figure = plot_confusion(torch.eye(2, dtype=torch.long), [EVIL[:12], "$x$ & <b>"])
    page.add(
        EVIL,
        Text(EVIL),
        Preformatted(EVIL),
        Table([EVIL, "b"], [[EVIL, 1.5]]),
        Table([EVIL, "b"], [[EVIL, EVIL]], prose=(1,)),
        Matrix([EVIL, "<i>"], torch.eye(2)),
        Figures([(figure, EVIL), (figure, EVIL)]),
        Cards([Preview(f"{EVIL}\n{EVIL}", PIXEL)]),
    )
    html = page.html()
    parsed = check_self_contained(html)
    assert "".join(parsed.words).count("alert('x')") >= 9
    assert "".join(parsed.words).count("$x$ & <b>") == 4, "both names in both figures"


def test_the_page_supports_phones_and_dark_mode() -> None:
    page = Page("Title")
    page.add("First", Text("One.\n\nTwo."))
    page.add("Second", Text("Aside.", note=True))
    html = page.html()
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in html
    assert "prefers-color-scheme:dark" in html
    assert "default-src 'none'" in html
    assert html.count("<p>") == 2
    assert '<a href="#s2">Second</a>' in html


def test_a_figure_uses_the_colours_of_the_page() -> None:
    pytest.importorskip("matplotlib")

    def make() -> str:
        figure = plot_confusion([[1, 2], [0, 4]], ["fill: #000000", 'id="x'])
        return Figures([(figure, "a matrix")], min_width=300).html(7)

    html = make()
    assert "stroke: currentColor" in html
    assert 'aria-label="a matrix"' in html
    assert "<style" not in html, "it would style the whole page"
    assert "min-width:300px" in html
    words = "".join(Parsed(html).words)
    assert "fill: #000000" in words, "text is unchanged"
    assert 'id="x' in words
    assert make() == html, "the same figure gives the same text"


def test_numbers_are_aligned_right_and_missing_ones_a_dash() -> None:
    html = Table(
        ["a", "b", "c"],
        [[0.123456, float("nan"), 1234567], [None, 1e-9, True], [12345.678, 0, "x"]],
    ).html(1)
    cells = re.findall(r"<td([^>]*)>([^<]*)</td>", html)
    assert [text for _, text in cells] == [
        *("0.1235", "–", "1,234,567"),
        *("–", "1e-09", "True"),
        *("1.235e+04", "0", "x"),
    ]
    assert ["number" in kind for kind, _ in cells] == [True] * 3 + [True, True, False] + [
        True,
        True,
        False,
    ]


def test_rows_of_a_wrong_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"Row 1 of the table has 1 cells for 2 headers \(a, b\)"):
        Table(["a", "b"], [[1, 2], [3]])
    with pytest.raises(InputError, match="'Empty' is empty"):
        Page("x").add("Empty")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x89PNG....", "png"),
        (b"\xff\xd8....", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF....WEBP", "webp"),
    ],
)
def test_images_have_their_media_type(start: bytes, kind: str) -> None:
    assert f"data:image/{kind};base64," in Cards([Preview("a", start)]).html(1)


def test_bytes_that_are_not_an_image_are_refused() -> None:
    with pytest.raises(InputError, match="not a PNG, JPEG"):
        Cards([Preview("a", b"<svg onload=...>")]).html(1)
    assert "<img" not in Cards([Preview("only text")]).html(1)


def test_the_colour_of_a_cell_is_the_share_of_its_row() -> None:
    html = Matrix(["a", "b"], torch.tensor([[9, 1], [0, 0]])).html(1)
    assert 'title="90.0%">9<' in html
    assert 'title="10.0%">1<' in html
    assert html.count("<td></td>") == 3, "the corner and two empty cells"


def test_saving_creates_missing_folders(tmp_path) -> None:
    page = Page("Größe")
    page.add("A", Text("ü"))
    path = page.save(tmp_path / "new" / "page.html")
    assert "Größe" in path.read_text(encoding="utf-8")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"page\.html"):
        page.save(tmp_path / "file" / "page.html")


def test_text_and_tables_need_no_matplotlib(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page("x")
    page.add("A", Text("b"), Table(["a"], [[1]]), Matrix(["a"], torch.ones(1, 1)))
    check_self_contained(page.html())


class OnlyHtml:
    def html(self, number: int) -> str:
        return "<p>drawn</p>"


def mixed_page() -> Page:
    page = Page("Pets & co", "first *run*")
    page.add("Scores", Text("One.\n\nTwo <b>."), Table(["a|b", "c"], [["x_y", 0.5], [None, 3]]))
    matrix = Matrix(["cat", "dog"], torch.tensor([[3, 1], [0, 2]]))
    page.add("Others", matrix, Preformatted("a\n```"), OnlyHtml(), Cards([Preview("one\ntwo")]))
    return page


def test_markdown_escapes_text_and_has_tables() -> None:
    text = mixed_page().markdown()
    assert text.startswith("# Pets & co\n\nfirst *run*\n\n## Scores\n\nOne.\n\nTwo \\<b\\>.")
    assert "| a\\|b | c |\n| --- | --- |\n| x\\_y | 0.5000 |\n| – | 3 |" in text
    assert "| cat | 3 | 1 |" in text
    assert "````\na\n```\n````" in text
    assert "only in HTML" in text
    assert "- one; two" in text


def test_json_has_the_numbers_in_full(tmp_path: Path) -> None:
    page = mixed_page()
    page.add("Limits", Table(["x"], [[math.nan], [1 / 3]]))
    content = json.loads(page.save(tmp_path / "page.json").read_text())
    assert [each["title"] for each in content["sections"]] == ["Scores", "Others", "Limits"]
    assert content["sections"][2]["blocks"] == [{"headers": ["x"], "rows": [[None], [1 / 3]]}]
    assert content["sections"][1]["blocks"][0]["counts"] == [[3, 1], [0, 2]]
    assert page.save(tmp_path / "page.md").read_text() == page.markdown()
    assert page.save(tmp_path / "page.htm").read_text() == page.html()


def test_plots_have_their_table_in_place_of_them() -> None:
    pytest.importorskip("matplotlib")
    figure = draw_panels([lambda axes: axes.plot([1, 2])], 2.0, 2.0, None)
    table = Table(["x", "y"], [[0, 1]])
    assert Figures([(figure, "A line")], 0, table).markdown() == table.markdown()
    assert Figures([(figure, "A line")], 0, table).content() == table.content()
    assert Figures([(figure, "A line")]).markdown() == "*Plot: A line*"
    assert Figures([(figure, "A line")]).content() == {"plots": ["A line"]}
