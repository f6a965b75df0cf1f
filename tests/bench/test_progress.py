"""What a long comparison says on its way."""

from flambeau_bench.progress import Progress


def lines(seconds_a_pair: float, count: int) -> list[str]:
    now, told = [0.0], list[str]()
    progress = Progress(told.append, count, lambda: now[0])
    for _ in range(count):
        now[0] += seconds_a_pair
        progress.pair_done()
    return told


def test_a_line_a_pair_where_pairs_are_long() -> None:
    assert lines(150.0, 4) == [
        "  pair 1 of 4 after 2 min 30 s, about 7 min 30 s to go",
        "  pair 2 of 4 after 5 min 0 s, about 5 min 0 s to go",
        "  pair 3 of 4 after 7 min 30 s, about 2 min 30 s to go",
    ]


def test_a_line_every_half_minute_where_they_are_short() -> None:
    assert lines(1.0, 70) == [
        "  pair 30 of 70 after 30 s, about 40 s to go",
        "  pair 60 of 70 after 1 min 0 s, about 10 s to go",
    ]


def test_nothing_where_all_is_soon_over() -> None:
    assert lines(0.1, 200) == []
