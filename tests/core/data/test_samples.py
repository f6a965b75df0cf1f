import pickle

import numpy as np
import pytest
import torch

from flambeau.data import Problem, Samples
from flambeau.errors import InputError

TABLE = Samples(
    {"file": ["a.png", "b.png", "c.png"], "label": np.array([0, 1, 0]), "x": torch.arange(3)},
    (Problem("d.png", "empty file"),),
)


def test_select_keeps_order_types_and_problems() -> None:
    chosen = TABLE.select(np.array([2, 0]))
    assert len(chosen) == 2
    assert chosen["file"] == ["c.png", "a.png"]
    assert isinstance(chosen["label"], np.ndarray)
    assert torch.equal(chosen["x"], torch.tensor([2, 0]))
    assert chosen.problems == TABLE.problems
    assert len(TABLE.select([])) == 0


def test_changes_to_the_callers_dict_have_no_effect() -> None:
    columns = {"a": [1]}
    samples = Samples(columns)
    columns["b"] = [1, 2]
    assert list(samples.columns) == ["a"]
    assert pickle.loads(pickle.dumps(samples))["a"] == [1]


def test_printing_shows_rows_and_problems() -> None:
    text = str(TABLE)
    assert text.splitlines()[0].split() == ["file", "label", "x"]
    assert text.splitlines()[2].split() == ["b.png", "1", "1"]
    assert "3 samples, 1 could not be read" in text
    assert "d.png: empty file" in text
    assert "0 samples" in str(Samples({"a": []}))
    assert "…" in str(Samples({"a": ["x" * 200]}))


def test_errors() -> None:
    with pytest.raises(InputError, match="'a' has 1, 'b' has 2"):
        Samples({"a": [1], "b": [1, 2]})
    with pytest.raises(InputError, match="at least one column"):
        Samples({})
    with pytest.raises(InputError, match=r"No column 'lable'[.] Did you mean 'label'"):
        TABLE["lable"]
    for wrong in (3, -1):
        with pytest.raises(InputError, match=f"Row {wrong} does not exist: the table has 3 rows"):
            TABLE.select([0, wrong])
