"""Parts of dates against pandas, for every unit, text and time zone."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flambeau.errors import FlambeauWarning, InputError
from flambeau_tabular.columns import ColumnKind, SpecOptions, TableSpec, infer_kinds, read_frame
from flambeau_tabular.columns.date_column import date_parts
from flambeau_tabular.columns.moments import as_moments, find_style

RAW = SpecOptions(scaling="none")


def dates(n: int = 1000) -> pd.Series:
    """Return random seconds from 1890 to 2100, with leap days and ends of years among them."""
    random = np.random.default_rng(0)
    seconds = random.integers(-2_524_608_000, 4_102_444_800, n)
    special = ["2020-02-29 23:59:59", "2000-02-29", "1900-02-28", "1969-12-31 23:59:59"]
    special += ["2021-01-01", "2020-12-31", "1970-01-01", "2023-03-26 02:30:00"]
    known = pd.concat(
        [pd.Series(pd.to_datetime(seconds, unit="s")), pd.Series(map(pd.Timestamp, special))]
    )
    return known.reset_index(drop=True).astype("datetime64[us]")


def fitted(values: Any, style: str = "iso", options: SpecOptions = RAW) -> TableSpec:
    kinds = {"d": ColumnKind("date", style=style)}
    return TableSpec.fit(read_frame({"d": values}), None, kinds, options)


def encoded(spec: TableSpec, values: Any) -> dict[str, np.ndarray]:
    numbers = spec.encode(read_frame({"d": values})).numbers.numpy()
    return {name.removeprefix("d "): numbers[:, i] for i, name in enumerate(spec.number_names)}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parts_are_those_of_pandas(unit: str) -> None:
    series = dates().astype(f"datetime64[{unit}]")
    series[::50] = pd.NaT
    moments = as_moments(read_frame({"d": series}).column("d"), "d")
    known = series.dropna()
    assert moments.missing.tolist() == series.isna().tolist()
    parts = dict(date_parts(moments.microseconds[~moments.missing]))
    names = {"weekday": "day_of_week"}
    for part in ("year", "month", "day", "weekday", "hour", "minute", "second"):
        np.testing.assert_array_equal(parts[part], getattr(known.dt, names.get(part, part)), part)
    np.testing.assert_array_equal(parts["month end"], known.dt.is_month_end)
    # The first of January 2021 is in week 53 of 2020: the year is that of the calendar.
    assert dict(date_parts(np.array([1_609_459_200_000_000])))["year"].tolist() == [2021]


def test_every_type_and_unit_gives_the_same_numbers() -> None:
    series = dates(200)
    text = series.dt.strftime("%Y-%m-%dT%H:%M:%S")
    spec = fitted(series)
    wanted = encoded(spec, series)
    sources = {
        "s": series.astype("datetime64[s]"),
        "ms": series.astype("datetime64[ms]"),
        "ns": series.astype("datetime64[ns]"),
        "objects": series.astype(object),
        "numpy": series.to_numpy(),
        "text": text,
        "text with a space": text.str.replace("T", " "),
        "repeated text": text.astype("category"),
        "arrow": pa.array(series.to_numpy()),
        "dictionary": pa.array(series.to_numpy()).dictionary_encode(),
    }
    for name, source in sources.items():
        assert fitted(source).hash() == spec.hash(), name
        for part, numbers in encoded(spec, source).items():
            np.testing.assert_array_equal(numbers, wanted[part], f"{name}: {part}")


def test_days_of_every_type_are_equal() -> None:
    days = pd.Series(pd.date_range("1968-02-20", periods=900, freq="D"))
    spec = fitted(days)
    assert not [name for name in spec.number_names if "hour" in name or "minute" in name]
    text = days.dt.strftime("%Y-%m-%d")
    arrow = pa.array(days.dt.date)
    for source in (text, days.dt.date, arrow, arrow.cast(pa.date64())):
        assert fitted(source).hash() == spec.hash()
    for style in ("%d.%m.%Y", "%d/%m/%Y", "%Y%m%d"):
        other = encoded(fitted(days.dt.strftime(style), style), days.dt.strftime(style))
        for part, numbers in encoded(spec, days).items():
            np.testing.assert_array_equal(other[part], numbers, f"{style}: {part}")


def test_time_zones_are_converted_to_utc() -> None:
    local = pd.Series(pd.date_range("2023-03-25", periods=60, freq="h", tz="Europe/Zurich"))
    autumn = pd.Series(pd.date_range("2023-10-28 12:00", periods=60, freq="h", tz="Europe/Zurich"))
    local = pd.concat([local, autumn], ignore_index=True)
    utc = local.dt.tz_convert("UTC")
    spec = fitted(local)
    found = encoded(spec, local)
    np.testing.assert_array_equal(found["hour"], utc.dt.hour)
    np.testing.assert_array_equal(found["day"], utc.dt.day)
    elapsed = (utc - utc.min()).dt.total_seconds() / 86400
    np.testing.assert_allclose(found["elapsed days"], elapsed, rtol=1e-6)
    text = local.map(lambda each: each.isoformat())
    for source in (utc, text, utc.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), local.astype(object)):
        assert fitted(source).hash() == spec.hash()
    assert "converted to UTC" in infer_kinds(read_frame({"d": local}))["d"].reason


def test_times_with_and_without_zone_are_not_mixed() -> None:
    naive = pd.Series(pd.date_range("2024-01-01", periods=30, freq="5h"))
    zoned = naive.dt.tz_localize("UTC")
    with pytest.raises(InputError, match="'d' had times with no time zone in train, but"):
        encoded(fitted(naive), zoned)
    with pytest.raises(InputError, match="'d' had times with a time zone in train, but"):
        encoded(fitted(zoned), naive)
    encoded(fitted(zoned), naive.dt.date)  # days have no zone
    with pytest.raises(InputError, match=r"with a time zone \(2024-01-01T00:00:00Z\) and without"):
        fitted(["2024-01-01T00:00:00Z", "2024-01-02T00:00:00"])


def test_cycles_and_elapsed_time() -> None:
    series = pd.Series(map(pd.Timestamp, ["2024-01-01", "2024-04-02 06:00", "2024-12-31 18:00"]))
    found = encoded(fitted(series), series)
    month = np.array([0, 3, 11]) * 2 * np.pi / 12
    np.testing.assert_allclose(found["month sin"], np.sin(month), atol=1e-7)
    np.testing.assert_allclose(found["month cos"], np.cos(month), atol=1e-7)
    np.testing.assert_allclose(found["hour sin"], [0, 1, -1], atol=1e-7)
    weekday = np.array([0, 1, 1]) * 2 * np.pi / 7  # Monday, Tuesday, Tuesday
    np.testing.assert_allclose(found["weekday sin"], np.sin(weekday), atol=1e-7)
    np.testing.assert_allclose(found["elapsed days"], [0, 92.25, 365.75])
    assert "year" not in found
    assert "minute" not in found


def test_what_never_recurs_is_that_of_the_nearest_train_date() -> None:
    train = pd.Series(pd.date_range("2022-03-01", "2024-02-28", freq="D"))
    new = pd.Series(pd.to_datetime(["2019-05-17", "2026-11-30", "2023-01-09"]))
    options = SpecOptions(scaling="none")
    found = encoded(fitted(train, options=options), new)
    assert found["year"].tolist() == [2022, 2024, 2023]
    assert found["elapsed days"].tolist() == [0, 729, 314]
    # Parts that recur stay those of the date itself.
    assert found["month"].tolist() == new.dt.month.tolist() == [5, 11, 1]
    assert found["weekday"].tolist() == [4, 0, 0]  # Friday, Monday, Monday
    kept = encoded(fitted(train, options=SpecOptions(scaling="none", out_of_range="keep")), new)
    assert kept["year"].tolist() == [2019, 2026, 2023]
    assert kept["elapsed days"].tolist() == [-1019, 1735, 314]


def test_parts_of_a_longer_period_than_train_are_left_out() -> None:
    def parts(start: str, end: str, freq: str) -> set[str]:
        series = pd.Series(pd.date_range(start, end, freq=freq))
        names = {name.removeprefix("d ") for name in fitted(series).number_names}
        return {name for name in names if not name.endswith(("sin", "cos"))} - {"elapsed days"}

    assert parts("2024-01-01", "2024-06-30", "D") == {"day", "month end", "weekday"}
    assert parts("2024-01-01", "2024-12-01", "D") == {"month", "day", "month end", "weekday"}
    assert parts("2024-05-03", "2024-05-08", "h") == {"hour"}
    assert parts("2024-05-03", "2024-05-09", "h") == {"hour", "weekday"}
    assert parts("2024-05-03 10:00", "2024-05-03 10:59", "min") == {"minute"}
    assert parts("2024-05-03 10:00:00", "2024-05-03 10:00:59", "s") == {"second"}


def test_missing_dates_are_filled_and_flagged() -> None:
    series = pd.Series(pd.to_datetime(["2024-01-01", None, "2024-04-02", "2024-12-31"]))
    spec = fitted(series)
    table = spec.encode(read_frame({"d": series}))
    assert table.flags.tolist() == [[0], [1], [0], [0]]
    found = encoded(spec, series)
    assert found["month"][1] == 4.0
    assert (found["month sin"][1], found["month cos"][1]) == (0.0, 0.0)
    complete = fitted(series.dropna())
    with pytest.warns(FlambeauWarning, match="'d'"):
        encoded(complete, series)


def test_dates_are_scaled() -> None:
    series = dates()
    numbers = encoded(fitted(series, options=SpecOptions()), series)
    assert max(np.abs(each).max() for each in numbers.values()) <= 3.0


def test_whole_numbers_need_a_unit() -> None:
    series = dates(50)
    seconds = series.astype("datetime64[s]").astype("int64")
    wanted = encoded(fitted(series), series)
    for style, numbers in (("s", seconds), ("ms", seconds * 1000), ("ns", seconds * 10**9)):
        found = encoded(fitted(numbers, style), numbers)
        np.testing.assert_array_equal(found["elapsed days"], wanted["elapsed days"])
    with pytest.raises(InputError, match=r"kinds=\{'d': 'date:s'\} for seconds since 1970"):
        fitted(seconds)
    compact = encoded(fitted([20240131, 20231231], "%Y%m%d"), [20240131, 20231231])
    assert compact["year"].tolist() == [2024, 2023]


def test_years_beyond_nanoseconds() -> None:
    far = pa.array([datetime.datetime(9999, 12, 31), datetime.datetime(1, 1, 1), None])
    assert encoded(fitted(far), far)["year"].tolist()[:2] == [9999, 1]
    with pytest.raises(InputError, match="beyond the year 294246"):
        fitted(pa.array([10**14], pa.timestamp("s")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2024-01-31", "yesterday"], "row 1 has the text 'yesterday', which is not an ISO date"),
        (["2024-02-30", None], "row 0 has the text '2024-02-30'"),
        ([1.5, 2.0], "cells have the type double"),
        ([None, None], "all of its 2 train rows are missing"),
    ],
)
def test_cells_that_are_not_dates_are_named(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted(values)


def test_blank_text_is_missing_and_nanoseconds_are_cut() -> None:
    text = ["2024-01-31T08:30:00.123456789", " ", "2024-01-31T08:30:00.123456789+01:00", None]
    one = as_moments(read_frame({"d": [text[0], text[1], text[3]]}).column("d"), "d")
    assert one.missing.tolist() == [False, True, True]
    assert one.microseconds[0] == 1_706_689_800_123_456
    assert find_style(text[2:3]) == ("iso",)


def test_styles_of_text() -> None:
    assert find_style(["31/12/2024", "01/02/2024"]) == ("%d/%m/%Y",)
    assert find_style(["12/31/2024 08:30"]) == ("%m/%d/%Y %H:%M",)
    assert find_style(["01/02/2024"]) == ("%d/%m/%Y", "%m/%d/%Y")
    assert find_style(["31.12.2024", "2024-12-31"]) == ()
    assert find_style(["", "x"]) == ()
