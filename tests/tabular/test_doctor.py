"""The doctor's checks of tables: each planted fault is found, and clean tables have no findings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flambeau import Learner, Split
from flambeau.doctor import Finding, TrainingSetup, diagnose
from flambeau_tabular import TabularData, TabularOptions
from flambeau_tabular.checks import CHECKS
from flambeau_tabular.columns.parquet_files import ParquetTable
from flambeau_tabular.leaks import sample

PAGE = Path(__file__).parents[2] / "docs" / "tables_doctor.md"
N = 1000
# These need a model; the others read only the data.
_MODEL = ("duplicates-across-parts", "constant-input")


def clean(seed: int = 0, n: int = N) -> pd.DataFrame:
    draws = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": draws.integers(18, 80, n),
            "job": draws.choice(["clerk", "nurse", "pilot"], n),
            "debt": draws.lognormal(8, 1, n),
            "since": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(draws.integers(0, 900, n), unit="D"),
            "member": draws.random(n) < 0.4,
        }
    )
    frame.loc[draws.random(n) < 0.1, "job"] = None
    frame["cost"] = np.exp(frame["age"] / 20 + draws.normal(0, 1, n))
    frame["class"] = np.where(frame["age"] + draws.normal(0, 20, n) > 50, "high", "low")
    return frame


def findings(
    frame: Any, target: Any = "class", *, drop: Any = ("cost",), **more: Any
) -> list[Finding]:
    options = more.pop("options", TabularOptions(drop=[each for each in drop if each in frame]))
    data = TabularData.from_df(frame, target, options=options, **more)
    setup = TrainingSetup(data, {}, lambda: pytest.fail("a check builds the model"))
    checks = [check for check in CHECKS if check.code not in _MODEL]
    return list(diagnose(setup, checks).findings)


def only(frame: Any, code: str, target: Any = "class", **more: Any) -> Finding:
    found = findings(frame, target, **more)
    assert [each.code for each in found] == [code], found
    return found[0]


def draws_of(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------- the page, clean tables


def test_every_code_has_a_section_on_a_page() -> None:
    sections = re.findall(r"^### (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    codes = [check.code for check in CHECKS if check.code != "constant-input"]
    assert sorted(sections) == sorted(codes)
    assert all(check.page and check.page.endswith(f"#{check.code}") for check in CHECKS)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [60, N])
def test_clean_tables_have_no_findings(seed: int, n: int) -> None:
    frame = clean(seed, n)
    assert findings(frame) == []
    assert findings(frame, "cost", drop=["class"]) == []
    assert findings(frame, time="since") == []


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "digits", "iris", "wine"])
def test_sets_of_scikit_learn_have_no_findings(name: str) -> None:
    sets = pytest.importorskip("sklearn.datasets")
    frame = getattr(sets, f"load_{name}")(as_frame=True).frame
    assert findings(frame, "target", drop=()) == []


@pytest.mark.realdata
def test_real_tables_have_no_findings(realdata: Path) -> None:
    adult = pd.read_csv(realdata / "adult" / "adult_train.csv.gz")
    assert findings(adult, "income", drop=(), test=0.2) == []
    homes = pd.read_csv(realdata / "california_housing" / "housing.csv.gz")
    assert findings(homes, "median_house_value", drop=()) == []
    hours = pd.read_csv(realdata / "bike_sharing" / "hour.csv.gz")
    drop = ["instant", "casual", "registered"]
    assert findings(hours, "cnt", drop=drop, time="dteday", test=0.2) == []
    found = findings(hours, "cnt", drop=drop)
    assert [each.code for each in found] == ["time-across-parts"]


def test_rare_flags_and_categories_are_no_constant_inputs() -> None:
    frame = clean()
    frame.loc[[0, 1], "age"] = np.nan
    frame.loc[[2, 3], "debt"] = np.nan
    data = TabularData.from_df(frame, "class", options=TabularOptions(drop=["cost"]))
    diagnosis = Learner(data, quiet=True).doctor()
    assert diagnosis.ok, str(diagnosis)


def test_copies_of_train_rows_whatever_their_ids() -> None:
    frame = clean(n=300).drop(columns="cost")
    copies = frame[:30].assign(debt=np.nan)
    frame.loc[:119, "debt"] = np.nan  # missing cells are equal
    copies["class"] = copies["class"].where(np.arange(30) > 3, "other")
    whole = pd.concat([frame, copies], ignore_index=True)
    whole["row_id"] = np.arange(330)
    whole.loc[whole["class"] == "other", "class"] = "low"
    split = Split.from_indices(range(270), range(270, 330))
    data = TabularData.from_df(whole, "class", split=split)
    [finding] = Learner(data, quiet=True).doctor().findings
    assert (finding.code, finding.evidence["copies"]) == ("duplicates-across-parts", 30)
    differ = int((frame["class"][:4] != "low").sum())
    assert finding.evidence["with another target"] == differ > 0
    assert "--group" in finding.fix


# ---------------------------------------------------------------- the target in another form


def _copies() -> dict[str, tuple[str, Callable[[pd.DataFrame], Any]]]:
    return {
        "codes": ("class", lambda frame: frame["class"].map({"high": 7, "low": 3})),
        "text": ("class", lambda frame: frame["class"].map({"high": "rich", "low": "poor"})),
        "bools": ("class", lambda frame: frame["class"] == "high"),
        "logarithm": ("cost", lambda frame: np.log(frame["cost"])),
        "standardised": ("cost", lambda frame: (frame["cost"] - 50) / -7),
        "bins": ("cost", lambda frame: pd.cut(frame["cost"], [0, 5, 20, 80, 1e9]).astype(str)),
        "flag": ("cost", lambda frame: frame["cost"] > 15),
        "with gaps": ("cost", lambda frame: np.log(frame["cost"].where(frame["member"]))),
    }


@pytest.mark.parametrize("name", _copies())
@pytest.mark.parametrize("n", [60, N])
def test_copies_of_the_target(name: str, n: int) -> None:
    target, copy = _copies()[name]
    frame = clean(n=n)
    if name == "with gaps":
        frame["member"] = np.arange(n) % 3 > 0
    frame["x"] = copy(frame)
    finding = only(frame, "leaking-column", target, drop=["class" if target == "cost" else "cost"])
    assert (finding.severity, finding.evidence["column"]) == ("error", "x")
    assert "TabularOptions(drop=['x']), on the command line --drop x" in finding.fix


def test_names_of_many_classes() -> None:
    frame = clean()
    frame["class"] = draws_of().integers(0, 6, N)
    frame["x"] = [["a", "b", "c", "d", "e", "f"][each] for each in frame["class"]]
    assert only(frame, "leaking-column").evidence["values"] == 6


@pytest.mark.parametrize("kind", ["threshold", "many values", "missing cells", "noisy number"])
def test_columns_that_predict_the_target_alone(kind: str) -> None:
    frame = clean()
    high = (frame["class"] == "high").to_numpy()
    some = draws_of().integers(0, 8, N)
    values: dict[str, Any] = {
        "threshold": high + draws_of().random(N) * 0.9,
        "many values": [f"p{high * 20 + each}" for high, each in zip(high, some, strict=True)],
        "missing cells": np.where(high, np.nan, some.astype(float)),
    }
    target = "cost" if kind == "noisy number" else "class"
    frame["x"] = values.get(kind, frame["cost"] * (1 + draws_of().normal(0, 1e-3, N)))
    drop = ["class" if target == "cost" else "cost"]
    finding = only(frame, "leaking-column", target, drop=drop)
    assert finding.severity == "warning"
    [measured] = [value for name, value in finding.evidence.items() if name in ("AUROC", "R²")]
    assert measured > 0.999
    # A tenth of the rows with other cells: no longer nearly perfect.
    broken = draws_of(2).random(N) < 0.1
    frame.loc[broken, "x"] = frame.loc[broken, "x"].to_numpy()[::-1]
    assert findings(frame, target, drop=drop) == []


def test_the_target_is_never_read_in_valid_and_test() -> None:
    frame = clean()
    split = Split.random(N, 0.3, 0.2)
    frame["x"] = draws_of().random(N)
    held_out = np.concatenate([split.valid, split.test])
    frame.loc[held_out, "x"] = 2.0 + (frame.loc[held_out, "class"] == "high")
    assert findings(frame, split=split) == []
    # A copy of the target in train alone is found, although it is none in the other rows.
    frame["x"] = (frame["class"] == "high") * 1.0
    frame.loc[held_out, "x"] = draws_of().random(len(held_out))
    assert only(frame, "leaking-column", split=split).evidence["rows"] == len(split.train)


def test_several_targets_and_labels() -> None:
    frame = clean()
    frame["other"] = frame["age"] * 2.0 + draws_of().normal(0, 5, N)
    frame["x"] = frame["other"] * 3 + 1
    [finding] = findings(frame, ["cost", "other"], drop=["class"])
    assert finding.evidence["target"] == "other"
    labels = clean()
    labels["a"], labels["b"] = (draws_of(each).integers(0, 2, N) for each in (3, 4))
    labels["x"] = labels["b"].map({0: "u", 1: "v"})
    [finding] = findings(labels, ["a", "b"], drop=["class", "cost"])
    assert finding.evidence["target"] == "b"


def test_the_rate_of_counts_is_a_target() -> None:
    frame = clean()
    frame["claims"], frame["years"] = draws_of().poisson(3, N), draws_of(2).random(N) + 0.5
    options = TabularOptions(task="poisson", exposure="years", drop=["class", "cost"])
    assert findings(frame, "claims", options=options) == []
    frame["x"] = frame["claims"] / frame["years"]
    finding = only(frame, "leaking-column", "claims", options=options)
    assert finding.evidence["target"] == "claims / years"


@pytest.mark.parametrize(("share", "is_found"), [(0.1, True), (0.02, False)])
def test_missing_cells_of_one_class(share: float, is_found: bool) -> None:
    frame = clean()
    missing = (frame["class"] == "high") & (draws_of().random(N) < share)
    frame.loc[missing, "debt"] = np.nan
    found = findings(frame)
    assert [each.code for each in found] == ["missing-tells-target"] * is_found
    frame.loc[~missing & (draws_of(3).random(N) < share), "debt"] = np.nan
    assert findings(frame) == []


@pytest.mark.parametrize(
    ("name", "is_found"),
    [("cost_log", True), ("logCost", True), ("Cost (EUR)", True), ("accost", False), ("z", False)],
)
def test_inputs_named_like_the_target(name: str, is_found: bool) -> None:
    frame = clean()
    frame[name] = np.log(frame["cost"]) + draws_of().normal(0, 0.3, N)
    found = findings(frame, "cost", drop=["class"])
    assert [each.code for each in found] == ["named-like-target"] * is_found
    frame[name] = draws_of().random(N)  # by its name alone
    assert findings(frame, "cost", drop=["class"]) == []


# ---------------------------------------------------------------- time and groups


def dated(**more: Any) -> pd.DataFrame:
    frame = clean()
    days = np.arange(N) // 2
    frame["day"] = pd.Timestamp("2021-01-01") + pd.to_timedelta(days, unit="D")
    frame["cost"] = frame["age"] + 20 * np.sin(days / 40) + draws_of().normal(0, 5, N)
    return frame.assign(**more).drop(columns=["since", "class"])


@pytest.mark.parametrize("form", ["date", "text", "seconds", "dropped", "index"])
def test_dated_rows_with_a_random_split(form: str) -> None:
    frame = dated()
    options = TabularOptions(drop=["day"]) if form == "dropped" else None
    if form == "text":
        frame["day"] = frame["day"].dt.strftime("%Y-%m-%d")
    if form == "seconds":
        frame["day"] = (frame["day"] - pd.Timestamp(0)) // pd.Timedelta(seconds=1)
    if form == "index":
        frame = frame.set_index("day").tz_localize("Europe/Paris")
    finding = only(frame, "time-across-parts", "cost", options=options)
    name = "time" if form == "index" else "day"
    assert f"time='{name}', on the command line --time {name}" in finding.fix
    if form in ("date", "text"):
        assert findings(frame, "cost", time="day", test=0.2) == []


def test_dates_that_say_nothing_about_the_order_of_prediction() -> None:
    born = dated().rename(columns={"day": "birth_date"})
    assert findings(born, "cost") == []
    unrelated = dated(cost=draws_of().random(N))
    assert findings(unrelated, "cost") == []


def test_valid_rows_before_train_rows_with_a_declared_time() -> None:
    frame, order = dated(), np.arange(N)
    split = Split.from_indices(order[200:], order[:200])
    finding = only(frame, "time-across-parts", "cost", time="day", split=split)
    assert finding.evidence["valid rows before the last train row"] == 1.0
    # Two rows of a day, one of them in train, are not before each other.
    split = Split.from_indices(order[:801], order[801:])
    assert findings(frame, "cost", time="day", split=split) == []


@pytest.mark.parametrize("kind", ["counter", "version"])
def test_inputs_that_move_with_time(kind: str) -> None:
    draws = draws_of()
    counter = np.arange(N) * 3 + draws.integers(0, 3, N) + 0.5
    frame = dated(x=counter if kind == "counter" else [f"v{at // 100}" for at in range(N)])
    finding = only(frame, "moves-with-time", "cost", time="day", test=0.2, valid=0.2)
    assert finding.evidence["column"] == "x"


@pytest.mark.parametrize("name", ["patient", "user_id", "CustomerID", "machine no"])
def test_groups_in_train_and_valid(name: str) -> None:
    frame = clean()
    frame[name] = draws_of().integers(0, 120, N)
    finding = only(frame, "groups-across-parts")
    assert f"group={name!r}" in finding.fix
    assert findings(frame, group=name) == []
    whole = frame.assign(**{name: [f"p{at}" for at in range(N)]})
    codes = [each.code for each in findings(whole)]
    assert "groups-across-parts" not in codes  # each row is a group of its own


@pytest.mark.parametrize("name", ["households", "sessions", "users"])
def test_numbers_of_persons_are_not_groups(name: str) -> None:
    assert findings(clean().assign(**{name: draws_of().integers(0, 120, N)})) == []


def test_other_keys_are_groups_if_their_rows_are_alike() -> None:
    frame = clean()
    frame["store_id"] = draws_of().integers(0, 60, N)
    assert findings(frame, "cost", drop=["class"]) == []
    level = draws_of(5).normal(0, 60, 60)
    frame["cost"] += level[frame["store_id"]] + 200
    assert only(frame, "possible-groups", "cost", drop=["class"]).evidence["R²"] > 0.2


# ---------------------------------------------------------------- cells, IDs, classes


def test_columns_that_are_missing_in_another_part() -> None:
    split = Split.random(N, 0.2, 0.2)
    frame = clean()
    frame.loc[split.valid, "debt"] = np.nan
    finding = only(frame, "missing-in-part", split=split)
    assert (finding.severity, finding.evidence["missing in valid"]) == ("error", 1.0)
    frame = clean()
    frame.loc[split.test[:100], "job"] = ""
    finding = only(frame, "missing-in-part", split=split)
    assert (finding.severity, finding.evidence["column"]) == ("warning", "job")
    frame = clean()
    frame.loc[split.train, "debt"] = np.nan
    assert only(frame, "missing-in-part", split=split).evidence["missing in train"] == 1.0


def test_nearly_empty_columns() -> None:
    frame = clean()
    frame["note"] = np.where(np.arange(N) % 20 == 0, draws_of().random(N), np.nan)
    assert only(frame, "nearly-empty").evidence["rows"] == 800


def test_columns_that_number_or_name_rows() -> None:
    frame = clean().assign(x=np.arange(N) + 5)
    assert "numbers the rows" in only(frame, "id-like-column").what
    frame["x"] = draws_of().permutation(10**7)[:N]  # amounts
    assert findings(frame) == []
    frame["x"] = [f"name {max(at, 9)}" for at in range(N)]
    finding = only(frame, "id-like-column")
    assert finding.evidence["unseen in valid"] > 0.95
    assert "--kinds x=id" in finding.fix


def test_classes_with_few_rows() -> None:
    frame = clean()
    frame.loc[:5, "class"] = "rare"
    assert only(frame, "few-rows-of-class").evidence["smallest"] == 5


# ---------------------------------------------------------------- order, cost


def test_findings_do_not_depend_on_the_order_of_rows_and_columns() -> None:
    split = Split.random(N)
    frame = dated(x=np.arange(N) + 5, patient=draws_of().integers(0, 99, N))
    frame["y"] = frame["cost"] * (1 + draws_of().normal(0, 1e-3, N))
    expected = findings(frame, "cost", split=split)
    assert len(expected) >= 4
    order = draws_of().permutation(N)
    new_row = np.argsort(order)
    moved = Split.from_indices(new_row[split.train], new_row[split.valid])
    shuffled = frame.iloc[order, ::-1]
    found = findings(shuffled, "cost", split=moved)
    assert [(each.code, each.what) for each in found] == [
        (each.code, each.what) for each in expected
    ]


def test_wide_tables_and_columns_of_any_type(recwarn: pytest.WarningsRecorder) -> None:
    frame = clean()
    draws = draws_of()
    more = {
        "infinite": np.where(draws.random(N) < 0.1, np.inf, draws.random(N)),
        "whole": pd.array([None if each < 0.2 else int(each * 99) for each in draws.random(N)]),
        "duration": pd.to_timedelta(draws.integers(0, 1000, N), unit="s"),
        "category": pd.Categorical(draws.choice(list("uvw"), N)),
        "empty": [None] * N,
        "constant": 1,
        "digits": draws.integers(0, 9, N).astype(str),
        "text": [f"some words about row {each} and others" for each in range(N)],
        "old": np.datetime64("1850-01-01") + draws.integers(0, 30_000, N),
        **{f"x{at}": draws.random(N) for at in range(300)},
    }
    assert findings(frame.assign(**more)) == []
    assert findings({name: frame.assign(**more)[name][:3] for name in [*more, "class"]})


def test_sampled_rows_of_a_file_are_in_few_blocks_spread_over_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"x": range(95)}).to_parquet(tmp_path / "rows.parquet", row_group_size=10)
    monkeypatch.setattr(sample, "_MOST_BLOCKS", 2)
    part = np.random.default_rng(0).permutation(np.r_[23:28, 31:70, 93:95])
    found = sample._in_blocks(part, ParquetTable(tmp_path / "rows.parquet"))
    assert found.tolist() == [23, 24, 25, 26, 27, 93, 94]


def test_only_a_sample_of_many_rows_is_read(tmp_path: Path) -> None:
    frame = clean(n=60_000)
    frame["x"] = np.log(frame["cost"])
    frame.drop(columns="class").to_parquet(tmp_path / "rows.parquet", row_group_size=6_000)
    for data in (
        TabularData.from_df(frame.drop(columns="class"), "cost"),
        TabularData.from_parquet(tmp_path / "rows.parquet", "cost"),
    ):
        setup = TrainingSetup(data, {}, lambda: pytest.fail("a check builds the model"))
        [finding] = diagnose(setup, [CHECKS[1]]).findings
        assert 12_000 < finding.evidence["rows"] <= 20_000
        assert "sampled train rows" in finding.what
