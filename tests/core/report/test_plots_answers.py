import sys

import pytest
import torch

from flambeau.errors import InputError, MissingDependencyError
from flambeau.report import Interval, calibration, plot_calibration, plot_residuals, plot_scores

pytest.importorskip("matplotlib")

SCORES = {
    "loss": Interval(0.4, 0.3, 0.5),
    "accuracy": Interval(0.9, 0.85, 0.93),
    "mae": Interval(0.2, 0.1, 0.3),
    "r2": Interval(0.1, -0.2, 0.4),
}


def test_bars_are_the_shares_with_their_intervals_and_baselines(tmp_path) -> None:
    figure = plot_scores(
        SCORES, {"majority class": {"accuracy": 0.6, "loss": 1}}, tmp_path / "a.png"
    )
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["accuracy"]
    assert [bar.get_width() for bar in axes.patches] == [0.9]
    [interval] = axes.collections[0].get_segments()
    assert interval[:, 0].tolist() == pytest.approx([0.85, 0.93])
    assert axes.collections[1].get_offsets().tolist() == [[0.6, 0]]
    assert (tmp_path / "a.png").stat().st_size > 2000
    with pytest.raises(InputError, match="no score"):
        plot_scores({"loss": SCORES["loss"]})


def test_the_curve_goes_through_the_bins() -> None:
    p = torch.tensor([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    found = calibration(p, torch.tensor([0, 0, 1, 0]))
    [axes] = plot_calibration(found).axes
    points = axes.collections[-1].get_offsets().tolist()
    assert [pair[0] for pair in points] == pytest.approx([0.6, 0.9])
    assert [pair[1] for pair in points] == pytest.approx([1, 2 / 3])
    sizes = axes.collections[-1].get_sizes()
    assert sizes[1] > sizes[0], "three samples make a larger point than one"


def test_residuals_have_two_panels_a_value() -> None:
    truth = torch.arange(20.0).reshape(10, 2)
    figure = plot_residuals(truth + 1, truth, ["$height$", "weight"])
    assert len(figure.axes) == 4
    points = figure.axes[1].collections[0].get_offsets()
    assert points[:, 1].tolist() == [1.0] * 10
    assert figure.axes[0].get_xlabel() == r"\$height\$, true"
    with pytest.raises(InputError, match=r"\(n, 1\)"):
        plot_residuals(truth, truth, ["one"])


def test_of_many_points_some_are_drawn_the_same_ones_every_time() -> None:
    truth = torch.arange(10_000.0).unsqueeze(1)
    drawn = [plot_residuals(truth, truth).axes[0].collections[0].get_offsets() for _ in range(2)]
    assert len(drawn[0]) == 3000
    assert (drawn[0] == drawn[1]).all()


def test_without_matplotlib_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"flambeau\[plot\]"):
        plot_scores(SCORES)
