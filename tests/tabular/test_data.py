"""``TabularData``: targets, structure, parts, and the same encoding in prediction."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from flambeau import Learner, Predictor, Split
from flambeau.data.loader import LoaderOptions
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, SplitError
from flambeau_tabular import TabularData, TabularOptions, assemble

N = 40


def table(**more: Any) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    return {
        "age": draws.integers(20, 70, N).astype(float),
        "job": [["clerk", "nurse", "pilot", None][row % 4] for row in range(N)],
        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N), unit="D"),
        "income": ["low", "high"] * (N // 2),
        **more,
    }


def plan_values(data: TabularData) -> dict[str, Any]:
    return {"task": data.targets.kind, "scaling": "standard", "min_count": 1}


def encoded(data: TabularData, part: str = "train") -> dict[str, torch.Tensor]:
    preprocessor = data.preprocessor(plan_values(data))
    dataset = data.dataset(part, preprocessor, plan_values(data))
    [batch] = dataset.loader(LoaderOptions(batch_size=N)).batches(0)
    return {**batch.inputs, **batch.targets}


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("target", "kind", "names"),
    [
        (["b", "a"] * 20, "classification", ("a", "b")),
        ([True, False] * 20, "classification", ("False", "True")),
        ([0, 1] * 20, "classification", ("0", "1")),
        ([float(row) / 3 for row in range(N)], "regression", ("y",)),
        (list(range(N)), "regression", ("y",)),  # more whole numbers than classes have
        (pd.Categorical(["x", "y"] * 20), "classification", ("x", "y")),
    ],
)
def test_the_target_decides_the_task(target: Any, kind: str, names: tuple[str, ...]) -> None:
    data = TabularData.from_df({"x": np.arange(N) * 0.7, "y": target}, "y")
    assert (data.targets.kind, data.targets.names) == (kind, names)
    assert "y" not in data.frame.column_names


def test_whole_numbers_are_amounts_or_classes_as_the_user_says() -> None:
    frame = {"x": np.arange(N) * 0.7, "y": list(range(N))}
    [reading] = TabularData.from_df(frame, "y").readings
    assert "40 distinct whole numbers from 0 to 39 in 40 rows" in reading.what
    rated = {**frame, "y": [1, 2, 3, 4, 5] * 8}
    assert TabularData.from_df(rated, "y").targets.kind == "classification"
    options = TabularOptions(task="regression")
    assert TabularData.from_df(rated, "y", options=options).targets.kind == "regression"
    options = TabularOptions(task="classification")
    found = TabularData.from_df(frame, "y", options=options, valid=0)
    assert len(found.targets.names) == N


def test_several_targets() -> None:
    numbers = {"x": np.arange(N) * 0.7, "a": np.arange(N) * 1.5, "b": [0, 1] * 20}
    options = TabularOptions(task="regression")  # b alone is a class: test_several_targets.py
    data = TabularData.from_df(numbers, ["a", "b"], options=options)
    assert (data.targets.kind, data.targets.names) == ("regression", ("a", "b"))
    np.testing.assert_array_equal(data.targets.values[:, 0].numpy(), (np.arange(N) * 1.5))
    flags = {"x": np.arange(N) * 0.7, "a": [1, 0, 0, 1] * 10, "b": [True, False] * 20}
    data = TabularData.from_df(flags, ["a", "b"])
    assert data.targets.kind == "multi_label"
    assert data.targets.values[:4].tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]


def test_rows_without_a_target_are_left_out_and_counted() -> None:
    target = ["low", None, "high", " "] * 10
    data = TabularData.from_df(table(income=target), "income", valid=0)
    assert len(data.frame) == 20
    assert "20 rows without a target are left out (the first is row 1)" in data.report()
    split = Split.from_indices([0, 1, 2, 3], [4, 5, 6])
    data = TabularData.from_df(table(income=target), "income", split=split)
    kept = [data.frame.column("age")[row].as_py() for row in data.split.train]
    assert kept == [table()["age"][row] for row in (0, 2)]


BAD_TARGETS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "none": ({}, None, "No target is given.*target='y', on the command line --target y\\."),
    "unknown": ({}, "z", "no column 'z'"),
    "all missing": ({"y": [None] * N}, "y", "missing in all 40 rows"),
    "infinite": ({"y": [1.5, np.inf] * 20}, "y", "infinite in 20 rows, the first is row 1"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets_are_refused(case: str) -> None:
    more, target, message = BAD_TARGETS[case]
    with pytest.raises(InputError, match=message):
        TabularData.from_df({"x": np.arange(N) * 0.7, "y": [0.5, 1.5] * 20, **more}, target)


def test_a_constant_target_is_refused() -> None:
    with pytest.raises(InputError, match="'y': All 40 labels are 'a'"):
        TabularData.from_df({"x": np.arange(N) * 0.7, "y": ["a"] * N}, "y")
    data = TabularData.from_df({"x": np.arange(N) * 0.7, "y": [3.5] * N}, "y")
    with pytest.raises(InputError, match=r"The target 'y' is 3\.5 in all 32 train rows"):
        Learner(data).fit(1)


# ---------------------------------------------------------------- structure


def test_time_splits_in_time_with_an_embargo() -> None:
    options = TabularOptions(embargo=datetime.timedelta(days=3))
    data = TabularData.from_df(table(), "income", time="day", valid=8, test=5, options=options)
    assert data.split.test.tolist() == list(range(35, 40))
    assert data.split.valid.tolist() == list(range(25, 33))
    assert data.split.train.tolist() == list(range(23))
    assert "day" in data.columns  # dates are inputs, too


def test_a_group_is_in_one_part_and_no_input() -> None:
    groups = np.repeat(np.arange(10), 4)
    data = TabularData.from_df(table(who=groups), "income", group="who", test=0.2)
    data.split.check_groups(groups)
    assert "who" not in data.columns
    with pytest.raises(SplitError, match="groups are in both train and valid"):
        TabularData.from_df(table(who=groups), "income", group="who", split=Split.random(N, seed=1))


def test_weights_reach_the_batches() -> None:
    weights = np.linspace(0.5, 2, N)
    data = TabularData.from_df(table(w=weights), "income", weight="w", valid=0)
    dataset = data.dataset("train", data.preprocessor(plan_values(data)), plan_values(data))
    assert dataset.sample_weight.numpy() == pytest.approx(weights)
    assert "w" not in data.columns
    with pytest.raises(InputError, match=r"column 'w' of the weights.*-1 in row 2"):
        TabularData.from_df(table(w=[1, 1, -1, 1] * 10), "income", weight="w")


def test_missing_structure_is_refused() -> None:
    days = list(table()["day"])
    days[3] = pd.NaT
    with pytest.raises(InputError, match=r"'day' of the times is missing in 1 rows \(first in row"):
        TabularData.from_df(table(day=days), "income", time="day")
    with pytest.raises(InputError, match="time='income' is also the target"):
        TabularData.from_df(table(), "income", time="income")
    with pytest.raises(InputError, match="are the same column"):
        TabularData.from_df(table(), "income", time="day", group="day")


def test_the_split_column_is_found_and_used() -> None:
    parts = ["train"] * 30 + ["valid"] * 6 + ["test"] * 4
    data = TabularData.from_df(table(split=parts), "income")
    assert [len(data.split.part(part)) for part in ("train", "valid", "test")] == [30, 6, 4]
    assert "split" not in data.frame.column_names
    assert any("contains the part of each row" in reading.what for reading in data.readings)
    ignored = TabularData.from_df(table(split=parts), "income", split=False)
    assert len(ignored.split.train) == 32
    assert "split" in ignored.columns


def test_separate_frames_become_parts() -> None:
    test = pd.DataFrame(table()).head(10)[["income", "day", "job", "age"]]
    data = TabularData.from_df(pd.DataFrame(table()), "income", test=test)
    assert (len(data.split.train), len(data.split.valid), len(data.split.test)) == (32, 8, 10)
    assert [data.frame.column("age")[row].as_py() for row in data.split.test] == list(test["age"])
    with pytest.raises(InputError, match="The test frame has no column 'job'"):
        TabularData.from_df(pd.DataFrame(table()), "income", test=test.drop(columns="job"))
    with pytest.raises(ArgumentError, match="cannot be combined with split"):
        TabularData.from_df(table(), "income", test=test, split="day")


# ---------------------------------------------------------------- the same rows everywhere


def test_frames_of_every_library_give_the_same_data() -> None:
    plain = pd.DataFrame(table())
    sources = [plain, pa.Table.from_pandas(plain, preserve_index=False), table()]
    if polars := pytest.importorskip("polars"):
        sources.append(polars.from_pandas(plain))
    found = []
    for source in sources:
        data = TabularData.from_df(source, "income")
        found.append(data.preprocessor(plan_values(data)).spec.hash())
    assert len(set(found)) == 1
    pd.testing.assert_frame_equal(plain, pd.DataFrame(table()))


def test_files_give_the_same_data_as_frames(tmp_path: Path) -> None:
    frame = pd.DataFrame(table())
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    wanted = encoded(TabularData.from_df(frame, "income"))
    for data in (
        TabularData.from_csv(tmp_path / "rows.csv", "income"),
        TabularData.from_parquet(tmp_path / "rows.parquet", "income"),
        TabularData.from_path(tmp_path / "rows.csv", {"target": "income"}),
    ):
        for name, value in encoded(data).items():
            assert torch.equal(value, wanted[name]), name


def test_valid_rows_do_not_change_what_is_fitted() -> None:
    data = TabularData.from_df(table(), "income")
    other = table()
    for row in data.split.valid:
        other["age"][row] = 1e6
        other["job"][row] = "astronaut"
    changed = TabularData.from_df(other, "income")
    first, second = (each.preprocessor(plan_values(each)).spec.hash() for each in (data, changed))
    assert first == second


@pytest.fixture(scope="module")
def trained() -> Learner:
    learner = Learner(TabularData.from_df(pd.DataFrame(table()), "income"), quiet=True)
    learner.fit(2)
    return learner


def test_predictions_keep_index_and_kind_of_the_frame(trained: Learner, tmp_path: Path) -> None:
    frame = pd.DataFrame(table(), index=[f"r{row}" for row in range(N)])
    found = trained.predict(frame)
    assert list(found.index) == list(frame.index)
    assert list(found.columns) == ["label", "probability", "high", "low"]
    exported = Predictor.load(trained.export(tmp_path / "model"))
    pd.testing.assert_frame_equal(exported.predict(frame), found)
    # Other columns, another order, the target: ignored.
    shuffled = frame.assign(extra=1)[["extra", "job", "income", "age", "day"]]
    pd.testing.assert_frame_equal(exported.predict(shuffled), found)
    one = exported.predict(frame.iloc[3].to_dict())
    assert one.probabilities["high"] == pytest.approx(found["high"].iloc[3], abs=1e-6)
    rows = exported.predict(frame.head(3).to_dict("records"))
    assert [row.label for row in rows] == list(found["label"].head(3))
    arrow = exported.predict(pa.Table.from_pandas(frame.reset_index(drop=True)))
    assert arrow.column("label").to_pylist() == list(found["label"])
    polars = pytest.importorskip("polars")
    assert exported.predict(polars.from_pandas(frame))["label"].to_list() == list(found["label"])
    empty = exported.predict(frame.head(0))
    assert (list(empty.columns), len(empty)) == (list(found.columns), 0)


def test_a_missing_column_is_named(trained: Learner) -> None:
    frame = pd.DataFrame(table())
    with pytest.raises(InputError, match="no column 'job', which is an input"):
        trained.predict(frame.drop(columns="job"))
    with pytest.raises(InputError, match="Item 1: 'clerk' of type str is no row"):
        trained.predict([frame.iloc[0].to_dict(), "clerk"])


def test_data_like_an_export_keep_its_preprocessor(trained: Learner, tmp_path: Path) -> None:
    folder = trained.export(tmp_path / "model")
    other = {**table(), "age": np.full(N, 50.0), "job": ["clerk", "cook"] * 20}
    data = TabularData.from_df(other, options=TabularOptions(like=folder))
    assert data.targets.names == ("high", "low")
    learner = Learner(data, start=folder, quiet=True)
    with pytest.warns(FlambeauWarning, match="train does not have \\('job' 50.0%\\)"):
        before = trained.predict(pd.DataFrame(other))
    with pytest.warns(FlambeauWarning, match="train does not have"):
        found = learner.predict(pd.DataFrame(other))
    pd.testing.assert_frame_equal(found, before)


def test_arrays() -> None:
    draws = np.random.default_rng(1)
    numbers, codes = draws.normal(size=(N, 3)), draws.integers(0, 4, size=(N, 1))
    data = TabularData.from_arrays(numbers, draws.normal(size=N), categories=codes)
    kinds = {name: kind.kind for name, kind in data.columns.items()}
    assert kinds == {
        "number_0": "number",
        "number_1": "number",
        "number_2": "number",
        "category_0": "category",
    }
    assert data.targets.kind == "regression"
    found = TabularData.from_arrays(numbers, draws.normal(size=(N, 2)), names=["a", "b", "c"])
    assert (list(found.columns), found.targets.names) == (["a", "b", "c"], ("target_0", "target_1"))
    with pytest.raises(InputError, match=r"shape \(2, 2, 2\)"):
        TabularData.from_arrays(np.zeros((2, 2, 2)), np.zeros(2))


def test_columns_of_many_values_are_not_listed_to_find_the_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths: dict[str, int] = {}
    original = assemble.find_part_column

    def spied(table: Any) -> Any:
        lengths.update({name: len(table.column(name)) for name in table.names})
        return original(table)

    monkeypatch.setattr(assemble, "find_part_column", spied)
    n = 500
    frame = {
        "x": np.arange(n) * 0.7,
        "part": ["train"] * (n - 100) + ["valid"] * 100,
        "y": [0, 1] * (n // 2),
    }
    data = TabularData.from_df(frame, "y")
    assert lengths["x"] <= 100
    assert len(data.split.valid) == 100


def test_an_ordered_categorical_target_keeps_its_order() -> None:
    sizes = ["low", "mid", "high", "huge"]
    frame = pd.DataFrame(
        {
            "x": np.arange(60.0),
            "y": pd.Categorical(["high", "low", "mid"] * 20, sizes, ordered=True),
        }
    )
    data = TabularData.from_df(frame, "y", valid=0)
    assert data.facts()["class_names"] == ["low", "mid", "high"]  # no row is huge
    frame["y"] = pd.Categorical(["high", "low", "mid"] * 20, sizes)
    assert TabularData.from_df(frame, "y").facts()["class_names"] == ["high", "low", "mid"]


def test_target_columns_and_classes_without_order_are_refused() -> None:
    frame = pd.DataFrame({"x": np.arange(60.0), "a": [0.5, 1.5] * 30, "b": [2.5, 1.5] * 30})
    with pytest.raises(ArgumentError, match="target is a set, which has no order"):
        TabularData.from_df(frame, {"a", "b"})
    with pytest.raises(ArgumentError, match="classes is a set, which has no order"):
        TabularOptions(classes={"a", "b"})


def test_masked_cells_of_arrays_are_missing() -> None:
    numbers = np.ma.array(np.arange(120.0).reshape(60, 2), mask=False)
    numbers[:30, 0] = np.ma.masked
    numbers.data[:30, 0] = 1e6
    data = TabularData.from_arrays(numbers, ["u", "v"] * 30, valid=0)
    cells = data.raw("train")[0]
    assert cells["number_0"] is None
    assert data.raw("train")[30]["number_0"] == 60.0
    targets = np.ma.array([0.5, 1.5] * 30, mask=[True] * 20 + [False] * 40)
    assert TabularData.from_arrays(numbers, targets, valid=0).facts()["n_train"] == 40


def test_a_plan_needs_a_column_that_is_an_input() -> None:
    frame = {"u": [f"C{row}" for row in range(N)], "y": ["a", "b"] * (N // 2)}
    data = TabularData.from_df(frame, "y")
    assert "u" in data.report()
    with pytest.raises(InputError, match=r"No column is left as an input: u \(id: \d+ distinct"):
        _ = Learner(data, quiet=True).plan


def test_classes_that_are_whole_numbers_may_be_ratings() -> None:
    draws = np.random.default_rng(0)
    frame = {"x": draws.normal(size=200), "stars": draws.integers(1, 6, 200)}
    choice = Learner(TabularData.from_df(frame, "stars"), quiet=True).plan["task"]
    assert choice.value == "classification"
    assert "if they are ratings or counts" in choice.reason
    assert choice.alternatives == ("regression",)
    assert 0.5 <= choice.confidence < 1
    for sure in (["a", "b", "c"], [0, 1]):
        frame["y"] = np.array(sure)[draws.integers(0, len(sure), 200)]
        table = {"x": frame["x"], "y": frame["y"]}
        assert Learner(TabularData.from_df(table, "y"), quiet=True).plan["task"].confidence == 1.0


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_parts_may_be_files(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame({"age": [*range(N)], "y": ["low", "high"] * (N // 2)})
    files = {part: tmp_path / f"{part}.{ending}" for part in ("train", "valid", "test")}
    for rows, path in zip((frame, frame[:6], frame[6:16]), files.values(), strict=True):
        rows.to_csv(path, index=False) if ending == "csv" else rows.to_parquet(path)
    read = TabularData.from_csv if ending == "csv" else TabularData.from_parquet
    data = read(files["train"], "y", valid=str(files["valid"]), test=files["test"])
    assert data.split.sizes() == "40 train, 6 valid, 10 test"
    assert data.raw("test")[0]["age"] == 6
    drawn = read(files["train"], "y", test=files["test"])
    assert drawn.split.sizes() == "32 train, 8 valid, 10 test"
    with pytest.raises(InputError, match="There is no file other"):
        read(files["train"], "y", test=f"other.{ending}")
    with pytest.raises(SplitError, match="Separate samples for test"):
        read(files["train"], "y", test=files["test"], split="age")


def test_an_option_of_the_table_is_not_taken_for_a_misspelled_argument() -> None:
    """ "drop" is similar to "group", but it is the name of an option."""
    table = pd.DataFrame({"a": [1.0, 2.0], "y": ["u", "v"]})
    with pytest.raises(ArgumentError, match=r"'drop'. Set it with options=TabularOptions\(drop="):
        TabularData.from_df(table, "y", drop=["a"])
    with pytest.raises(ArgumentError, match=r"'groups'. Did you mean 'group'"):
        TabularData.from_df(table, "y", groups="a")
