import math
import sys

import pytest

from flambeau.errors import InputError, MissingDependencyError
from flambeau.report import plot_history
from flambeau.training.history import History

Figure = pytest.importorskip("matplotlib.figure").Figure
Image = pytest.importorskip("PIL.Image")


def history(epochs: int = 3, steps: int = 40, **extra: float) -> History:
    made = History()
    for epoch in range(epochs):
        for step in range(steps):
            made.step_losses.append(2.0 / (1 + epoch * steps + step) + 0.1 * (step % 2))
        made.add(
            {
                "phase": "fit",
                "epoch": epoch + 1,
                "step": (epoch + 1) * steps,
                "train_loss": 1.0 / (epoch + 1),
                "valid_loss": 1.5 / (epoch + 1),
                "valid_accuracy": 0.5 + 0.1 * epoch,
                "lr": 1e-3 / (epoch + 1),
                "seconds": 1.0,
                **extra,
            }
        )
    larger, smaller = ("valid_accuracy", "valid_macro_f1"), ("valid_mae", "valid_rmse")
    made.modes |= dict.fromkeys(larger, "max") | dict.fromkeys(smaller, "min")
    return made


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def lines(figure: Figure, panel: int) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in figure.axes[panel].get_lines()
    }


def test_history_has_a_panel_for_loss_metrics_and_lr(tmp_path) -> None:
    figure = plot_history(history(), tmp_path / "curves.png")
    assert titles(figure) == ["loss", "accuracy on validation", "learning rate"]
    assert lines(figure, 0)["valid"] == ([1, 2, 3], [1.5, 0.75, 0.5])
    assert lines(figure, 1)["accuracy, best 0.7"] == ([1, 2, 3], [0.5, 0.6, 0.7])
    positions, smooth = lines(figure, 0)["train"]
    assert (positions[0], positions[-1], len(positions)) == (1 / 40, 3, 120)
    assert smooth[50] == pytest.approx(
        sum(history().step_losses[49:52]) / 3, rel=1e-9
    )  # a window of three for 120 steps
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > image.height > 300
        assert len(set(image.convert("L").tobytes())) > 50, "the plot must not be empty"


def test_unbounded_metrics_have_separate_panels() -> None:
    figure = plot_history(history(valid_rmse=12.0, valid_macro_f1=0.4))
    on_validation = ["metrics on validation", "rmse on validation"]
    assert titles(figure) == ["loss", *on_validation, "learning rate"]
    assert "rmse, best 12" in lines(figure, 2)


def test_the_best_error_is_the_lowest() -> None:
    made = history()
    for row, value in zip(made.rows, [3.0, 1.25, 2.0], strict=True):
        row["valid_mae"] = value
    assert "mae, best 1.25" in lines(plot_history(made), 2)


def test_history_without_steps_or_validation() -> None:
    made = History()
    made.add({"phase": "fit", "epoch": 1, "step": 5, "train_loss": 1.0})
    figure = plot_history(made)
    assert titles(figure) == ["loss"]
    assert lines(figure, 0)["train"] == ([1], [1.0])


def test_steps_of_a_resumed_run_are_in_their_epochs() -> None:
    made = history(epochs=3, steps=10)
    del made.step_losses[:15]  # the first epoch and a half ran in another process
    positions, _ = lines(plot_history(made), 0)["train"]
    assert positions == pytest.approx([1 + (i + 1) / 10 for i in range(5, 20)])


def test_large_and_nan_losses_do_not_hide_the_curve() -> None:
    made = history()
    made.step_losses[7] = math.nan
    made.step_losses[0] = 1e6
    figure = plot_history(made)
    figure.canvas.draw()
    assert figure.axes[0].get_ylim()[1] < 10


def test_an_empty_history_is_refused() -> None:
    with pytest.raises(InputError, match="contains no epoch"):
        plot_history(History())


def test_without_matplotlib_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'flambeau\[plot\]'"):
        plot_history(history())


def test_plotting_needs_no_pyplot(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it raises
    assert plot_history(history()).axes


def test_a_metric_of_unknown_direction_shows_its_last_value() -> None:
    figure = plot_history(history(valid_wer=0.4))
    assert titles(figure)[1:3] == ["accuracy on validation", "wer on validation"]
    assert list(lines(figure, 2)) == ["wer, last 0.4"]


def test_a_long_run_has_one_point_for_several_steps() -> None:
    made = History()
    made.loss_interval = 8
    for epoch in range(2):
        made.add_step_losses([1.0, 3.0] * 20)
        made.add({"epoch": epoch + 1, "step": 40 * (epoch + 1), "train_loss": 2.0})
    [points, *_] = plot_history(made).axes[0].get_lines()
    assert list(points.get_xdata()) == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert set(points.get_ydata()) == {2.0}


def test_evaluations_inside_epochs_have_an_axis_of_steps() -> None:
    made = History()
    for step in (4, 8, 10):
        made.step_losses.extend([1.0] * (step - len(made.step_losses)))
        row = {"phase": "fit", "epoch": step / 6, "step": step, "train_loss": 1.0}
        made.add({**row, "valid_loss": float(step), "train_kl": 2.0, "valid_kl": 3.0})
    figure = plot_history(made)
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    assert lines(figure, 0)["valid"] == ([4, 8, 10], [4, 8, 10])
    assert lines(figure, 0)["train"][0] == list(range(1, 11))


def test_logged_values_have_a_panel_for_train_and_valid() -> None:
    figure = plot_history(history(train_kl=0.5, valid_kl=0.25, train_only=1.0))
    assert titles(figure) == ["loss", "accuracy on validation", "kl", "only", "learning rate"]
    assert lines(figure, 2) == {
        "train": ([1, 2, 3], [0.5] * 3),
        "valid": ([1, 2, 3], [0.25] * 3),
    }
