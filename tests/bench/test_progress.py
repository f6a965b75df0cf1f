"""Lines of progress of a long comparison."""

from flambeau_bench.progress import Progress


def lines(seconds_per_pair: float, count: int) -> list[str]:
    now, logged = [0.0], list[str]()
    progress = Progress(logged.append, count, lambda: now[0])
    for _ in range(count):
        now[0] += seconds_per_pair
        progress.pair_done()
    return logged


def test_long_pairs_give_a_line_each() -> None:
    assert lines(150.0, 4) == [
        "  pair 1 of 4 after 2 min 30 s, about 7 min 30 s remaining",
        "  pair 2 of 4 after 5 min 0 s, about 5 min 0 s remaining",
        "  pair 3 of 4 after 7 min 30 s, about 2 min 30 s remaining",
    ]


def test_short_pairs_give_a_line_every_30_seconds() -> None:
    assert lines(1.0, 70) == [
        "  pair 30 of 70 after 30 s, about 40 s remaining",
        "  pair 60 of 70 after 1 min 0 s, about 10 s remaining",
    ]


def test_short_comparisons_log_nothing() -> None:
    assert lines(0.1, 200) == []
