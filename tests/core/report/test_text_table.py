import pytest

from flambeau.errors import InputError
from flambeau.report import text_table


def test_numbers_are_aligned_right_and_text_left() -> None:
    found = text_table(
        ["model", "accuracy", "n"],
        [["majority class", 0.1, 10], ["ours", 0.987654, 1200], ["none", None, None]],
    )
    assert found.split("\n") == [
        "model           accuracy     n",
        "──────────────  ────────  ────",
        "majority class       0.1    10",
        "ours              0.9877  1200",
        "none",
    ]


def test_a_column_with_text_is_aligned_left() -> None:
    assert text_table(["v"], [[1], ["off"]]) == "v\n───\n1\noff"
    assert text_table(["v"], [[True], [False]]).split("\n")[2] == "True"


def test_long_cells_are_wrapped_to_the_width() -> None:
    reason = "50,000 images of 32×32 take 147 MiB, less than a quarter of the memory"
    found = text_table(["key", "value", "reason"], [["cache", "ram", reason]], width=40)
    lines = found.split("\n")
    assert max(map(len, lines)) <= 40
    assert len(lines) > 4
    assert " ".join(line[14:].strip() for line in lines[2:]) == reason
    assert [line[:14].strip() for line in lines[3:]] == [""] * (len(lines) - 3)


def test_text_without_spaces_is_broken() -> None:
    found = text_table(["path"], [["/a/very/long/path/to/a/file.png"]], width=12)
    assert max(map(len, found.split("\n"))) <= 12
    assert "".join(found.split("\n")[2:]) == "/a/very/long/path/to/a/file.png"


def test_columns_have_a_minimum_width() -> None:
    found = text_table(["a", "b"], [["x" * 30, "y" * 30]], width=5)
    assert found.split("\n")[1] == "────────  ────────"


def test_wide_characters_take_two_columns() -> None:
    lines = text_table(["class", "n"], [["猫", 1], ["犬と猫", 22], ["dog", 3]]).split("\n")
    assert lines[2] == "猫       1"
    assert lines[3] == "犬と猫  22"
    assert lines[4] == "dog      3"
    wrapped = text_table(["class"], [["犬と猫犬と猫犬と猫"]], width=8).split("\n")
    assert wrapped[2:] == ["犬と猫犬", "と猫犬と", "猫"]


def test_line_breaks_in_a_cell_are_kept() -> None:
    assert text_table(["a", "b"], [["x\ny", 1]]).split("\n")[2:] == ["x  1", "y"]


def test_no_rows_and_no_columns() -> None:
    assert text_table(["a", "b"], []) == "a  b\n─  ─"
    assert text_table([], []) == ""


def test_rows_of_a_wrong_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"Row 1 of the table has 1 cells for 2 headers \(a, b\)"):
        text_table(["a", "b"], [[1, 2], [3]])
