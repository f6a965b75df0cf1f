import sys

import pytest
import torch

from flambeau.errors import InputError, MissingDependencyError
from flambeau.report import (
    Interval,
    calibration,
    plot_calibration,
    plot_confusion,
    plot_residuals,
    plot_scores,
)

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

SCORES = {
    "loss": Interval(0.4, 0.3, 0.5),
    "accuracy": Interval(0.9, 0.85, 0.93),
    "mae": Interval(0.2, 0.1, 0.3),
    "r2": Interval(0.1, -0.2, 0.4),
}


def test_bars_show_scores_intervals_and_baselines(tmp_path) -> None:
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


def test_the_reliability_curve_shows_the_bins() -> None:
    p = torch.tensor([[0.9, 0.1]] * 3 + [[0.6, 0.4]])
    found = calibration(p, torch.tensor([0, 0, 1, 0]))
    [axes] = plot_calibration(found).axes
    points = axes.collections[-1].get_offsets().tolist()
    assert [pair[0] for pair in points] == pytest.approx([0.6, 0.9])
    assert [pair[1] for pair in points] == pytest.approx([1, 2 / 3])
    sizes = axes.collections[-1].get_sizes()
    assert sizes[1] > sizes[0], "three samples give a larger point than one"


def test_residuals_have_two_panels_per_target() -> None:
    targets = torch.arange(20.0).reshape(10, 2)
    figure = plot_residuals(targets + 1, targets, ["$height$", "weight"])
    assert len(figure.axes) == 4
    points = figure.axes[1].collections[0].get_offsets()
    assert points[:, 1].tolist() == [1.0] * 10
    assert figure.axes[0].get_xlabel() == r"\$height\$, target"
    with pytest.raises(InputError, match=r"\(n, 1\)"):
        plot_residuals(targets, targets, ["one"])


def test_the_same_3000_points_are_shown_each_time() -> None:
    targets = torch.arange(10_000.0).unsqueeze(1)
    drawn = [
        plot_residuals(targets, targets).axes[0].collections[0].get_offsets() for _ in range(2)
    ]
    assert len(drawn[0]) == 3000
    assert (drawn[0] == drawn[1]).all()


def test_a_confusion_matrix_shows_counts_and_shares(tmp_path) -> None:
    matrix = torch.tensor([[30, 10], [0, 5]])
    figure = plot_confusion(matrix, ["ant", "bee"], tmp_path / "matrix.png")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["30", "10", "5"]
    assert axes.get_title() == "35 of 45 correct (77.8%)"
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee"]
    with Image.open(tmp_path / "matrix.png") as image:
        assert min(image.size) > 300


def test_a_confusion_matrix_of_90_classes_is_readable() -> None:
    figure = plot_confusion(
        torch.eye(90, dtype=torch.long), [f"a long name {i}" for i in range(90)]
    )
    assert len(figure.axes[0].texts) == 0
    assert len(figure.axes[0].get_xticks()) == 30
    assert max(figure.get_size_inches()) < 14


def test_a_confusion_matrix_with_an_absent_class() -> None:
    figure = plot_confusion([[0, 0], [1, 3]], ["a", "b"])
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 0], [0.25, 0.75]]


def test_a_confusion_matrix_of_a_wrong_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 2\), but for 3 classes"):
        plot_confusion(torch.eye(2), ["a", "b", "c"])


def test_without_matplotlib_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"flambeau\[plot\]"):
        plot_scores(SCORES)


def test_plotting_needs_no_pyplot(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it raises
    assert plot_confusion([[1]], ["a"]).axes
