"""The series of ``fit_auto`` runs within a budget: what runs, what is skipped, what is shown."""

from __future__ import annotations

from pathlib import Path

from flambeau_bench import image_budgets


def line(data: str, setting: str, seed: int, minutes: float, test: float = 0.5) -> dict:
    return {"data": data, "setting": setting, "seed": seed, "minutes": minutes, "test": test}


def test_finished_cells_are_skipped_and_a_torn_line_runs_again(tmp_path: Path) -> None:
    out = tmp_path / "cells.jsonl"
    cells = [("a", "auto", 0), ("a", "32/auto", 0), ("a", "auto", 1)]
    assert image_budgets.run_missing(out, cells[:2], 3.0, run=line) == 2
    torn = out.read_text().splitlines()
    out.write_text(torn[0] + "\n" + torn[1][:20] + "\n")
    ran: list[tuple] = []

    def run(*cell):
        ran.append(cell)
        return line(*cell)

    assert image_budgets.run_missing(out, cells, 3.0, run=run) == 2
    assert ran == [("a", "32/auto", 0, 3.0), ("a", "auto", 1, 3.0)]
    assert image_budgets.run_missing(out, cells, 1.0, run=run) == 3  # another budget


def test_the_table_compares_with_the_best_mean_of_the_grid() -> None:
    scores = {"auto": (0.60, 0.62), "32/auto": (0.70, 0.60), "48/one_cycle": (0.20, 0.99)}
    lines = [
        line("a", setting, seed, 3.0, score)
        for setting, pair in scores.items()
        for seed, score in enumerate(pair)
    ]
    [row] = [each for each in image_budgets.table(lines).splitlines() if " auto " in each]
    assert "0.610" in row
    assert row.split()[-1] == "+4.0"  # the best mean is 0.65, of 32/auto


def test_uneven_classes_fall_from_a_thousand_to_a_hundred_images() -> None:
    counts = list(image_budgets.uneven_counts().values())
    assert (counts[0], counts[-1], len(counts)) == (1_000, 100, 10)
    assert counts == sorted(counts, reverse=True)


def test_two_files_are_compared_image_by_image() -> None:
    now = [{**line("a", "auto", seed, 3.0), "correct": "1110" * 10} for seed in (0, 1)]
    before = [{**line("a", "auto", 0, 3.0), "correct": "1010" * 10}]
    row = image_budgets.compare(now, before).splitlines()[-1].split()
    assert row[:5] == ["a", "auto", "1", "0.750", "0.500"]  # seed 1 has no partner
    assert float(row[5]) == 0.25
    low, high = (float(one.strip("()")) for one in (row[6], row[8]))
    assert 0 < low < 0.25 < high
