"""Several labels per text, and numbers: read, trained, exported, predicted and scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from flambeau import Learner, Predictor
from flambeau.errors import FlambeauError, InputError
from flambeau_text import TextData, TextOptions

FILLER = ["film", "seen", "with", "rain", "on", "days"]
TOPICS = {"music": "songs", "war": "battle", "love": "kiss"}


def tagged(n: int = 160) -> tuple[list[str], list[list[str]]]:
    draws = np.random.default_rng(0)
    texts, tags = [], []
    for _ in range(n):
        chosen = [name for name in TOPICS if draws.random() < 0.5]
        words = [*draws.choice(FILLER, 6), *(TOPICS[name] for name in chosen)]
        texts.append(" ".join(draws.permutation(words)))
        tags.append(chosen)
    return texts, tags


def test_lists_separators_and_columns_give_equal_labels(tmp_path: Path) -> None:
    texts, tags = tagged()
    lists = TextData.from_arrays(texts, tags)
    assert lists.targets.kind == "multi_label"
    assert set(lists.targets.names) == set(TOPICS)
    joined = pd.DataFrame({"text": texts, "label": [";".join(each) for each in tags]})
    joined.to_csv(tmp_path / "tags.csv", index=False)
    options = TextOptions(sep=";", task="multi_label")
    with_sep = TextData.from_csv(tmp_path / "tags.csv", options=options)
    columns = {name: [int(name in each) for each in tags] for name in lists.targets.names}
    pd.DataFrame({"text": texts, **columns}).to_csv(tmp_path / "columns.csv", index=False)
    several = TextData.from_csv(tmp_path / "columns.csv", label=list(lists.targets.names))
    commas = TextData.from_csv(tmp_path / "columns.csv", label=",".join(lists.targets.names))
    for other in (with_sep, several, commas):
        assert other.targets.names == lists.targets.names
        assert torch.equal(other.targets.values, lists.targets.values)
        assert other.raw("train") == lists.raw("train")


def test_several_labels_are_learned_and_predicted(tmp_path: Path) -> None:
    texts, tags = tagged()
    learner = Learner(TextData.from_arrays(texts, tags, valid=40), choices={"probe": "off"})
    assert learner.plan.values["task"] == "multi_label"
    learner.fit(20)
    assert learner.evaluate("valid")["exact_match"] > 0.9
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    found = predictor.predict(["film with songs and a kiss", "film with rain"])
    assert [sorted(each.labels) for each in found] == [["love", "music"], []]
    data = TextData.from_arrays(
        *tagged(30), valid=0.2, options=TextOptions(like=tmp_path / "model")
    )
    assert data.targets.names == learner.task.output_names
    report = learner.interpret()
    assert "majority" not in report.baselines
    assert report.baselines["NB-SVM"]["exact_match"] > 0.5


def test_numbers_are_learned_in_their_units(tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    texts, scores = [], []
    for _ in range(200):
        good, bad = (int(each) for each in draws.integers(0, 4, 2))
        words = [*draws.choice(FILLER, 3), *["lovely"] * good, *["dreadful"] * bad]
        texts.append(" ".join(draws.permutation(words)))
        scores.append(500.0 + 10.0 * (good - bad) / len(words) + draws.normal(0, 0.05))
    learner = Learner(TextData.from_arrays(texts, scores, valid=40), choices={"probe": "off"})
    assert learner.plan.values["targets"] == "standard"
    learner.fit(25)
    assert learner.evaluate("valid")["r2"] > 0.9
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    texts = ["lovely lovely film", "dreadful dreadful film"]
    high, low = map(float, predictor.predict(texts))
    assert high > 502.0
    assert low < 498.0


def test_bad_numbers_and_labels_are_named() -> None:
    texts, _ = tagged(8)
    with pytest.raises(InputError, match="finite"):
        TextData.from_arrays(texts, [1.0, 2.0, float("inf"), *[3.0] * 5])
    with pytest.raises(FlambeauError, match="text 2 has no label"):
        TextData.from_arrays(texts, [1.0, 2.0, float("nan"), *[3.0] * 5])
    with pytest.raises(FlambeauError, match="label column 'b' has 'x' in row 3"):
        TextData.from_df(
            {"text": texts, "a": [1] * 8, "b": [1, 0, 1, "x", 1, 0, 1, 0]}, label=["a", "b"]
        )


# ---------------------------------------------------------------- pairs


def pairs(n: int = 400) -> tuple[list[tuple[str, str]], list[str]]:
    """The label says whether both texts have the same colour, whatever it is."""
    draws = np.random.default_rng(2)
    colours = ["red", "blue", "green", "black"]
    texts, labels = [], []
    for row in range(n):
        first = str(draws.choice(colours))
        others = [colour for colour in colours if colour != first]
        second = first if row % 2 else str(draws.choice(others))
        sides = [[*draws.choice(FILLER, 4), colour] for colour in (first, second)]
        texts.append(tuple(" ".join(draws.permutation(words)) for words in sides))
        labels.append("same" if row % 2 else "other")
    return texts, labels


def test_pairs_of_texts_are_compared(tmp_path: Path) -> None:
    texts, labels = pairs()
    columns = {"first": [a for a, _ in texts], "second": [b for _, b in texts], "label": labels}
    pd.DataFrame(columns).to_csv(tmp_path / "pairs.csv", index=False)
    data = TextData.from_csv(tmp_path / "pairs.csv", ["first", "second"], valid=100)
    assert data.raw("train") == TextData.from_arrays(texts, labels, valid=100).raw("train")
    assert data.facts()["words"] == 2 * 5 * 300
    lists = TextData.from_arrays(np.array(texts), labels, valid=100)
    assert lists.raw("train") == data.raw("train")
    learner = Learner(data, choices={"probe": "off"})
    learner.fit(25)
    assert learner.evaluate("valid")["accuracy"] > 0.95
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    rows = [("film red", "rain red"), ("film red", "rain blue")]
    found = predictor.predict(rows)
    assert [each.label for each in found] == ["same", "other"]
    mappings = [{"first": first, "second": second} for first, second in rows]
    assert [each.label for each in predictor.predict(mappings)] == ["same", "other"]
    with pytest.raises(InputError, match="Item 0: 'film red' is not a pair"):
        predictor.predict(["film red"])
    with pytest.raises(InputError, match="no field 'second'"):
        predictor.predict([{"first": "film red"}])
    assert "By length" in learner.interpret().report(tmp_path / "report.md").read_text()


@pytest.mark.parametrize("name", ["bag", "awd_lstm"])
def test_padding_of_pairs_changes_nothing(name: str) -> None:
    texts, labels = pairs(40)
    awd = {"embedding_dim": 6, "hidden_size": 7, "num_layers": 1, "chunk": 2, "window": 4}
    choices = {"model_config": awd if name == "awd_lstm" else {"width": 5, "buckets": 16}}
    learner = Learner(TextData.from_arrays(texts, labels), name, choices=choices)
    model, preprocessor = learner.model.double().eval(), learner.built.preprocessor
    rows = [("film", "on days with rain seen"), ("on days with rain seen film film", "rain")]
    together = model(*preprocessor.encode(rows).inputs.values())
    singles = torch.cat([model(*preprocessor.encode([row]).inputs.values()) for row in rows])
    torch.testing.assert_close(together, singles, rtol=1e-12, atol=1e-12)


def test_bad_pairs_are_named() -> None:
    texts, labels = pairs(8)
    with pytest.raises(InputError, match="text 3 has 1 texts, and the first row 2"):
        TextData.from_arrays([*texts[:3], "one", *texts[4:]], labels)
    with pytest.raises(InputError, match="must name one column, or two"):
        TextOptions(text=["a", "b", "c"])
    missing = TextData.from_arrays([*texts[:7], ("red", None)], labels, valid=2)
    assert len(missing.samples) == 7
