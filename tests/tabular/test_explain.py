"""Contributions of columns to one prediction, and the vectors of categories as a table."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from flambeau import Learner, Predictor, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.task import Classification, Regression
from flambeau_tabular import TabularData
from flambeau_tabular.columns import TableSpec, infer_kinds, read_frame
from flambeau_tabular.demo import demo_data
from flambeau_tabular.embeddings import embeddings
from flambeau_tabular.explain import column_slots, explain
from flambeau_tabular.explain_command import app
from flambeau_tabular.preprocess import TabularPreprocessor

N = 40


def table() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": np.where(np.arange(N) % 9 == 0, np.nan, draws.normal(40, 10, N)),
            "job": draws.choice(["clerk", "nurse", "pilot"], N),
            "size": draws.normal(size=N),
        }
    )


class Linear(nn.Module):
    """Known weights of age, its flag, size, and each job."""

    def forward(self, numbers: Tensor, flags: Tensor, categories: Tensor) -> Tensor:
        jobs = torch.tensor([0.0, 0.0, 5.0, -1.0, 2.0])[categories[:, 0].long()]
        return (2 * numbers[:, 0] - 3 * numbers[:, 1] + 7 * flags[:, 0] + jobs)[:, None]


class Product(Linear):
    """The columns act together."""

    def forward(self, numbers: Tensor, flags: Tensor, categories: Tensor) -> Tensor:
        jobs = torch.tensor([0.0, 0.0, 5.0, -1.0, 2.0])[categories[:, 0].long()]
        return (numbers[:, 0] * jobs + numbers[:, 1].exp() * flags[:, 0] * jobs)[:, None]


def predictor(model: nn.Module, task: Any = None) -> Predictor:
    frame = read_frame(table())
    spec = TableSpec.fit(frame, None, infer_kinds(frame, np.arange(N), {}))
    return Predictor(TabularPreprocessor(spec), model, task or Regression(("y",)))


def test_contributions_to_a_linear_model_are_exact() -> None:
    model = predictor(Linear())
    frame = table()
    found = explain(model, frame.iloc[3].to_dict(), frame, samples=1)
    encoded = model.preprocessor.spec.encode(read_frame(frame))
    numbers, flags = encoded.numbers.double().numpy(), encoded.flags.double().numpy()
    jobs = np.array([0, 0, 5.0, -1, 2])[encoded.categories[:, 0].numpy()]
    age, size, job = 2 * numbers[:, 0] + 7 * flags[:, 0], -3 * numbers[:, 1], jobs
    for name, part in (("age", age), ("size", size), ("job", job)):
        assert found[name] == pytest.approx(part[3] - part.mean(), abs=1e-5)
    assert found.baseline == pytest.approx(float((age + size + job).mean()), abs=1e-5)
    assert found.prediction - found.baseline == pytest.approx(
        sum(found.contributions.values()), abs=1e-9
    )


def test_contributions_approach_the_shapley_values_of_all_orders() -> None:
    model = predictor(Product())
    frame, row = table(), table().iloc[[9]]
    others = frame.iloc[[0, 1, 4]]
    names = ["age", "job", "size"]

    def value(known: tuple[str, ...]) -> float:
        mixed = others.copy()
        for name in known:
            mixed[name] = row[name].iloc[0]
        return float(np.mean([each.value for each in model.predict(mixed.to_dict("records"))]))

    wanted = {}
    for name in names:
        rest = [each for each in names if each != name]
        wanted[name] = sum(
            math.factorial(size)
            * math.factorial(2 - size)
            / 6
            * (value((*known, name)) - value(known))
            for size in range(3)
            for known in itertools.combinations(rest, size)
        )
    found = explain(model, row, others, samples=600)
    assert sum(found.contributions.values()) == pytest.approx(
        found.prediction - found.baseline, abs=1e-9
    )
    for name in names:
        assert abs(found[name] - wanted[name]) < 4 * found.errors[name] + 1e-6
    assert "(baseline)" in str(found)
    assert "± " in str(found)


def test_the_explained_output_is_a_class_or_a_target() -> None:
    class Two(Linear):
        def forward(self, numbers: Tensor, flags: Tensor, categories: Tensor) -> Tensor:
            score = super().forward(numbers, flags, categories)
            return torch.cat([score, -score], dim=1)

    model = predictor(Two(), Classification(("label", "b")))
    row = table().iloc[3].to_dict()
    first = explain(model, row, table())
    assert first.output in ("probabilities.label", "b")
    assert 0.5 <= first.prediction <= 1
    second = explain(model, row, table(), output="b")
    other = explain(model, row, table(), output="probabilities.label")
    assert second.prediction + other.prediction == pytest.approx(1)
    assert second["age"] == pytest.approx(-other["age"], abs=1e-9)
    with pytest.raises(ArgumentError, match="no output 'c'"):
        explain(model, row, table(), output="c")
    with pytest.raises(ArgumentError, match="Pass background="):
        explain(model, row)
    with pytest.raises(InputError, match="takes one row, but the frame has 40"):
        explain(model, table(), table())
    with pytest.raises(ArgumentError, match="output= one of a, b"):
        explain(predictor(Two(), Regression(("a", "b"))), row, table())


def test_slots_cover_the_encoded_tensors_once() -> None:
    frame = table().assign(day=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N), "D"))
    source = read_frame(frame)
    spec = TableSpec.fit(source, None, infer_kinds(source, np.arange(N), {}))
    covered = {
        name: np.zeros(value.shape[1]) for name, value in spec.encode(source).inputs().items()
    }
    for slots in column_slots(spec).values():
        for name, columns in slots.items():
            covered[name][columns] += 1
    assert all((each == 1).all() for each in covered.values())


def test_embeddings_are_a_table_of_values(tmp_path: Path) -> None:
    cities = [f"city {row % 20:02}" for row in range(120)]
    frame = pd.DataFrame({"city": cities, "job": ["a", "b", "c"] * 40, "y": np.arange(120) * 0.3})
    learner = Learner(TabularData.from_df(frame, "y"), quiet=True)
    found = embeddings(learner, "city")
    assert found.column("value").to_pylist() == [None, None, *sorted(set(cities))]
    assert found.column("meaning").to_pylist()[:3] == ["missing", "unknown", "category"]
    width = found.num_columns - 2
    vectors = np.stack([found.column(f"e{at}").to_numpy() for at in range(width)], axis=1)
    # The vector of a value is what the model looks up for its code.
    parameters = dict(learner.model.named_parameters())
    [table] = [each for each in parameters.values() if tuple(each.shape) == (22, width)]
    np.testing.assert_array_equal(vectors, table.detach().numpy())
    again = embeddings(Predictor.load(learner.export(tmp_path / "model")), "city")
    assert again.equals(found)
    with pytest.raises(InputError, match="3 categories of 'job' are encoded as one-hot"):
        embeddings(learner, "job")
    with pytest.raises(ArgumentError, match="'town' is no column of categories"):
        embeddings(learner, "town")


# ---------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an export "model" and its table "rows.csv"."""
    folder = tmp_path_factory.mktemp("explain")
    draws = np.random.default_rng(0)
    table = pd.DataFrame({"age": draws.normal(40, 10, 120), "job": draws.choice(list("ab"), 120)})
    table["amount"] = 3 * table["age"] + (table["job"] == "a")
    table.to_csv(folder / "rows.csv", index=False)
    learner = Learner(
        TabularData.from_csv(folder / "rows.csv", "amount"),
        choices={"hidden": [8], "epochs": 2},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    learner.fit()
    learner.export(folder / "model")
    return folder


def command(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_rows_of_a_file_are_explained(exported: Path) -> None:
    model, rows = exported / "model", exported / "rows.csv"
    lines = command(model, rows, "--row", 3, "--row", 5, "--samples", 8, "--json").splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["row"] for each in found] == [3, 5]
    table = pd.read_csv(rows)
    direct = explain(Predictor.load(model), table.iloc[[3]], table, samples=8)
    assert found[0]["contributions"] == pytest.approx(dict(direct.contributions))
    few = exported / "few.csv"
    table.head(2).to_csv(few, index=False)
    shown = command(model, few, "--background", rows, "--samples", 8)
    assert "row 0, amount: " in shown
    assert "row 1, amount: " in shown


def test_what_cannot_be_explained_is_refused(exported: Path) -> None:
    model, rows = exported / "model", exported / "rows.csv"
    with pytest.raises(ArgumentError, match=r"has 120 rows\. Choose some of them: --row 0"):
        command(model, rows)
    with pytest.raises(ArgumentError, match=r"--row 120, but .* has the rows 0 to 119"):
        command(model, rows, "--row", 120)
    few = exported / "two.csv"
    pd.read_csv(rows).head(2).to_csv(few, index=False)
    with pytest.raises(ArgumentError, match=r"--background train\.csv"):
        command(model, few)


def test_a_learner_explains_a_row_with_the_same_contributions() -> None:
    data = demo_data(200, 0)
    learner = Learner(data, choices={"probe": "off"}, quiet=True)
    found = learner.explain(int(data.split.valid[0]))
    assert found.attributions is not None
    row = data.raw("valid")[0]
    own = explain(learner.predictor(), row, data.raw("train")[:: len(data.raw("train")) // 100])
    assert [part.partition(" = ")[0] for part in found.attributions.parts] == list(own.values)
    assert sum(found.attributions.values) == pytest.approx(found.attributions.total, abs=1e-6)
    by_name = dict(zip(own.values, found.attributions.values, strict=True))
    assert by_name == pytest.approx(own.contributions, abs=1e-9)
