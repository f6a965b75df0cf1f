import json
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from flambeau import Learner
from flambeau.data import (
    Batch,
    Data,
    LoaderOptions,
    MemoryDataset,
    Split,
)
from flambeau.errors import ArgumentError, FlambeauWarning, InputError, SplitError
from flambeau.plan import CORE_RULES, Plan, combine
from flambeau.tensors import TensorData
from flambeau.tensors.columns import as_tensors
from flambeau.tensors.domain import DOMAIN
from flambeau.tensors.preprocess import TensorPreprocessor

G = torch.Generator().manual_seed(0)
X = torch.randn(90, 4, generator=G)
Y = torch.arange(90) % 3
CLASSES = {"task": "classification", "normalisation": "none"}


def part(data: Data, name: str) -> MemoryDataset:
    dataset = data.dataset(name, data.preprocessor(CLASSES), CLASSES)
    assert isinstance(dataset, MemoryDataset)
    return dataset


def test_from_tensor_to_batches(checks: SimpleNamespace) -> None:
    data = TensorData.from_tensors(X, Y, valid=0.2, test=0.1, seed=3)
    assert isinstance(data, TensorData)
    for name in ("train", "valid", "test"):
        rows = data.split.part(name)
        batches = list(
            part(data, name).loader(LoaderOptions(7, shuffle=name == "train")).batches(0)
        )
        found = torch.cat([b.indices for b in batches if b.indices is not None])
        assert sorted(found.tolist()) == rows.tolist()
        assert torch.equal(torch.cat([b.input for b in batches]), X[found])
        assert torch.equal(torch.cat([b.target for b in batches]), Y[found])
        assert torch.equal(torch.stack(list(data.raw(name))), X[rows])
    # Stratified by default: thirds stay thirds.
    assert torch.bincount(Y[data.split.valid]).tolist() == [6, 6, 6]
    assert part(data, "train") is part(data, "train")


def test_facts_are_json_and_measured_on_train_rows() -> None:
    y = Y.clone()
    split = Split.from_indices(range(60), range(60, 80), range(80, 90))
    y[60:] = 2
    facts = TensorData.from_tensors(X, y, split=split).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert [facts[f"n_{name}"] for name in ("train", "valid", "test")] == [60, 20, 10]
    assert facts["inputs"] == {"input": {"shape": [4], "dtype": "float32"}}
    assert facts["targets"] == {"target": {"shape": [], "dtype": "int64"}}
    assert facts["class_names"] == ["0", "1", "2"]
    assert facts["class_counts"] == [20, 20, 20]
    assert (facts["target_distinct"], facts["target_min"], facts["target_max"]) == (3, 0, 2)
    assert facts["target_binary"] is False
    assert facts["in_memory"] is True
    assert facts["memory_bytes"] == 90 * (4 * 4 + 8)


def test_valid_does_not_affect_facts_or_preprocessor() -> None:
    split = Split.from_indices(range(60), range(60, 90))
    poisoned = X.clone()
    poisoned[60:] = 1e6
    one, other = (TensorData.from_tensors(x, Y, split=split) for x in (X, poisoned))
    assert one.facts() == other.facts()
    values = {"normalisation": "standard"}
    for name, tensor in one.preprocessor(values).tensors().items():
        assert torch.equal(tensor, other.preprocessor(values).tensors()[name])


def test_parts_may_be_given_as_arrays() -> None:
    data = TensorData.from_tensors(X, Y, valid=(X[:5] + 1, Y[:5]), test=(X[:2] + 2, Y[:2]))
    assert data.split.valid.tolist() == [90, 91, 92, 93, 94]
    assert data.split.test.tolist() == [95, 96]
    assert torch.equal(part(data, "valid").inputs["input"], X[:5] + 1)
    assert part(data, "train").ids is not None
    with pytest.raises(SplitError, match="omit split"):
        TensorData.from_tensors(X, Y, valid=(X, Y), split=Split.random(90))
    both = TensorData.from_tensors(X, Y, valid=(X[:5] + 1, Y[:5]), test=0.2)
    assert [len(both.split.part(name)) for name in ("train", "valid", "test")] == [72, 5, 18]
    assert sorted([*both.split.train, *both.split.test]) == list(range(90))
    assert torch.equal(part(both, "test").inputs["input"], X[torch.tensor(both.split.test)])
    with pytest.raises(InputError, match=r"valid input 'input' has shape \(3,\).*train has \(4,\)"):
        TensorData.from_tensors(X, Y, valid=(X[:, :3], Y))


def test_numpy_defaults_become_torchs() -> None:
    data = TensorData.from_tensors(X.double().numpy(), Y.numpy().astype(np.int32))
    train = part(data, "train")
    assert train.inputs["input"].dtype == torch.float32
    assert train.targets["target"].dtype == torch.int64
    # A torch tensor's dtype was chosen.
    assert (
        part(TensorData.from_tensors(X.double(), Y), "train").inputs["input"].dtype == torch.float64
    )
    truths = TensorData.from_tensors(X, torch.stack([Y == 0, Y == 1], 1))
    assert part(truths, "train").targets["target"].dtype == torch.float32
    assert truths.facts()["target_binary"] is True


@pytest.mark.parametrize(
    "values",
    [
        1.7e9 + np.arange(200.0),
        -3e12 + 5 * np.arange(200.0),
        1e-50 * np.arange(200.0),  # 0 in float32
        1e50 * np.arange(200.0),  # infinity in float32
        16_777_216.0 + np.arange(200.0),
    ],
)
def test_float64_values_that_float32_merges_stay_float64(values: np.ndarray) -> None:
    data = TensorData.from_tensors(values[:, None], values, valid=0.25)
    facts = data.facts()
    train = values[data.split.train]
    assert facts["target_distinct"] == 150
    assert facts["target_mean"] == pytest.approx([train.mean()], rel=1e-12)
    assert facts["target_std"] == pytest.approx([train.std()], rel=1e-9)
    preprocessor = data.preprocessor({"normalisation": "standard", "input_dtype": "float32"})
    assert isinstance(preprocessor, TensorPreprocessor)
    batch = data.dataset("train", preprocessor, {"task": "regression"})
    assert batch.targets["target"].tolist() == train.tolist()
    standardised = preprocessor.on_device(Batch(batch.inputs)).input[:, 0].numpy()
    np.testing.assert_allclose(standardised, (train - train.mean()) / train.std(), atol=1e-5)


def test_float64_values_that_float32_represents_become_float32() -> None:
    draws = np.random.default_rng(0)
    for values in (
        draws.normal(1000, 1, (200, 3)),
        np.array([[0.1, 2**24 + 1.0, 1.7e9]] * 200),  # constant
        1.6e9 + 3e7 * draws.random((200, 3)),  # a year of seconds
        np.repeat([[1.7e9, 1.7e9 + 128, 1.7e9 + 256]], 200, axis=0),
        np.empty((200, 0)),
    ):
        [tensor] = as_tensors({"x": values}).values()
        assert tensor.dtype == torch.float32
    with_time = np.stack([draws.normal(size=200), 1.7e9 + np.arange(200.0)], axis=1)
    assert as_tensors({"x": with_time})["x"].dtype == torch.float64


def test_unusual_arrays_are_converted() -> None:
    x = np.asfortranarray(X.numpy())[::-1].astype(">f4")
    x.flags.writeable = False
    data = TensorData.from_tensors(x, Y, split=Split.from_indices([0], [1]))
    assert torch.equal(part(data, "train").inputs["input"][0], X[-1])
    grown = TensorData.from_tensors(X.clone().requires_grad_(), Y)
    assert not part(grown, "train").inputs["input"].requires_grad


def test_string_targets_become_classes() -> None:
    words = np.array(["dog", "cat", "emu"])[Y.numpy()]
    data = TensorData.from_tensors(X, words)
    assert data.facts()["class_names"] == ["cat", "dog", "emu"]
    rows = data.split.train
    codes = part(data, "train").targets["target"]
    assert [data.facts()["class_names"][code] for code in codes] == words[rows].tolist()


def test_several_inputs_and_targets_by_name() -> None:
    data = TensorData.from_tensors({"a": X, "b": Y}, {"p": Y, "q": X[:, 0]})
    facts = data.facts()
    assert list(facts["inputs"]) == ["a", "b"]
    assert list(facts["targets"]) == ["p", "q"]
    assert "target_dtype" not in facts
    row = data.raw("valid")[0]
    assert torch.equal(row["a"], X[data.split.valid[0]])
    assert len(data.raw("valid")[1:3]) == 2
    with pytest.raises(InputError, match="needs exactly one target, but the data have 2: p, q"):
        data.task_arguments(data.preprocessor(CLASSES), CLASSES)
    assert TensorData.from_tensors(X).facts()["targets"] == {}


@pytest.mark.parametrize(
    ("targets", "task", "arguments"),
    [
        (Y, "classification", {"classes": ["0", "1", "2"]}),
        ((Y > 0), "classification", {"classes": ["0", "1"]}),
        (torch.stack([Y, Y], 1) > 0, "multi_label", {"classes": ["0", "1"]}),
        (X[:, 0], "regression", {"names": ["value"]}),
        (X[:, :1], "regression", {"names": ["value"]}),
        (X[:, :2], "regression", {"names": ["value_0", "value_1"]}),
    ],
)
def test_arguments_for_task_and_model(
    targets: torch.Tensor, task: str, arguments: dict[str, Any]
) -> None:
    data = TensorData.from_tensors(X, targets, task=task)
    values = {"task": task, "architecture": "mlp", "normalisation": "none"}
    assert data.choices == {"task": task}
    assert data.task_arguments(data.preprocessor(values), values) == arguments
    n_outputs = len(next(iter(arguments.values())))
    assert data.model_arguments(data.preprocessor(values), values) == {
        "n_inputs": 4,
        "n_outputs": n_outputs,
    }


def test_features_of_all_inputs_are_counted() -> None:
    data = TensorData.from_tensors({"a": X, "b": X.reshape(90, 2, 2), "c": X[:, 0]}, Y)
    assert data.model_arguments(data.preprocessor(CLASSES), CLASSES)["n_inputs"] == 9


def test_the_mlp_gets_standardised_targets() -> None:
    y = X[:, :2] * 5 + 100
    data = TensorData.from_tensors(X, y)
    arguments = data.task_arguments(
        data.preprocessor({"task": "regression", "targets": "standard"}),
        {"task": "regression", "targets": "standard"},
    )
    train = y[data.split.train].double()
    np.testing.assert_allclose(arguments["mean"], train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(arguments["std"], train.std(0, correction=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8])
def test_integer_regression_targets_are_standardised(dtype: torch.dtype) -> None:
    y = (X[:, 0] * 20 + 100).round().to(dtype)
    as_float = TensorData.from_tensors(X, y.float(), task="regression")
    data = TensorData.from_tensors(X, y, task="regression", stratify=False)
    plan = Plan.derive(combine(CORE_RULES, DOMAIN.rules), data.facts(), data.choices)
    assert plan["targets"].value == "standard"
    preprocessor = data.preprocessor(plan.values)
    arguments = data.task_arguments(preprocessor, plan.values)
    assert arguments == as_float.task_arguments(preprocessor, plan.values)
    train = y[data.split.train].double()
    np.testing.assert_allclose(arguments["mean"], [train.mean()], rtol=1e-12)


def test_class_names_and_labels_must_agree() -> None:
    named = TensorData.from_tensors(X, Y, class_names=["a", "b", "c", "d"])
    with pytest.warns(FlambeauWarning, match="class-not-in-train"):
        assert named.task_arguments(named.preprocessor(CLASSES), CLASSES) == {
            "classes": ["a", "b", "c", "d"]
        }
    assert named.facts()["class_counts"][3] == 0
    short = TensorData.from_tensors(
        X, Y, class_names=["a", "b"], split=Split.from_indices([0, 1], [2, 3])
    )
    with pytest.raises(InputError, match=r"valid targets contain labels outside 0..1 \(row 2: 2\)"):
        short.task_arguments(short.preprocessor(CLASSES), CLASSES)
    unseen = TensorData.from_tensors(X, Y, split=Split.from_indices([0, 1], [5, 6]))
    with pytest.raises(InputError, match=r"row 5: 2.* more classes than in train"):
        unseen.task_arguments(unseen.preprocessor(CLASSES), CLASSES)


@pytest.mark.parametrize("labels", [Y - 1, Y * 1_000_000])
def test_labels_not_numbered_from_zero_raise(labels: torch.Tensor) -> None:
    data = TensorData.from_tensors(X, labels)
    assert "class_names" not in data.facts()
    with pytest.raises(
        InputError, match=r"not class numbers 0, 1, …: they have 3 distinct .* Number the classes"
    ):
        data.task_arguments(data.preprocessor(CLASSES), CLASSES)


def test_stratify() -> None:
    rare = torch.zeros(100, dtype=torch.int64)
    rare[:10] = 1
    x = torch.zeros(100, 1)
    for seed in range(5):
        for stratify in ("auto", True):
            split = TensorData.from_tensors(x, rare, seed=seed, stratify=stratify).split
            assert int(rare[split.valid].sum()) == 2
    plain = Split.random(100, 0.2, seed=1)
    amounts = torch.arange(100)
    for targets, options in (
        (rare, {"stratify": False}),
        (amounts, {}),
        (rare, {"task": "regression"}),
        (rare.float(), {}),
    ):
        split = TensorData.from_tensors(x, targets, seed=1, **options).split
        assert split.valid.tolist() == plain.valid.tolist()
    with pytest.raises(ArgumentError, match="stratify is 'yes'"):
        TensorData.from_tensors(x, rare, stratify="yes")
    with pytest.raises(InputError, match="needs exactly one target, but there are 0"):
        TensorData.from_tensors(x, stratify=True)
    with pytest.raises(
        InputError, match=r"one class per row, but the targets have shape \(100, 1\)"
    ):
        TensorData.from_tensors(x, x, stratify=True)


def test_report_says_what_was_found() -> None:
    text = TensorData.from_tensors(X, Y).report()
    for words in ("72 train", "'input': (4,) float32", "0 (24), 1 (24), 2 (24)", "memory: "):
        assert words in text
    assert "distinct values from" in TensorData.from_tensors(X, X[:, 0]).report()


@pytest.mark.parametrize("where", [0, 40, 89])
def test_nan_and_infinity_are_named(where: int) -> None:
    for value in (float("nan"), float("inf")):
        x = X.clone()
        x[where, 2] = value
        with pytest.raises(
            InputError, match=rf"'input' contains NaN or infinity in \w+ row {where}\."
        ):
            TensorData.from_tensors(x, Y)
    y = X[:, 0].clone()
    y[where] = float("nan")
    with pytest.raises(
        InputError, match=rf"'target' contains NaN or infinity in \w+ row {where}\."
    ):
        TensorData.from_tensors(X, y)


def test_values_other_than_arrays_raise() -> None:
    with pytest.raises(ArgumentError, match=r"'input' is a tuple, not a tensor, NumPy array"):
        TensorData.from_tensors(([1.0],), Y)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'input' has dtype object, which is not numeric"):
        TensorData.from_tensors(np.array([{}, {}]), Y[:2])
    with pytest.raises(InputError, match="'input' has 90, 'target' has 89"):
        TensorData.from_tensors(X, Y[1:])
    with pytest.raises(SplitError, match="valid part contains row 90, but the data have 90 rows"):
        TensorData.from_tensors(X, Y, split=Split.from_indices([0], [90]))
    with pytest.raises(
        ArgumentError, match=r"Unknown task 'classify'\. Did you mean 'classification'"
    ):
        TensorData.from_tensors(X, Y, task="classify")
    with pytest.raises(ArgumentError, match="is a single string"):
        TensorData.from_tensors(X, Y, class_names="abc")
    with pytest.raises(InputError, match="have no test part"):
        part(TensorData.from_tensors(X, Y), "test")
    with pytest.raises(ArgumentError, match="The parts are train, valid, test"):
        part(TensorData.from_tensors(X, Y), "val")


def test_a_memory_map_raises_no_warning(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = TensorData.from_tensors(mapped, Y)
    assert torch.equal(part(data, "train").inputs["input"], X[data.split.train])


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_one_hot_targets_are_classes(dtype: torch.dtype) -> None:
    labels = torch.arange(30) % 3
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.nn.functional.one_hot(labels).to(dtype)
    data = TensorData.from_tensors(inputs, targets, class_names=["a", "b", "c"])
    plan = Plan.derive(combine(CORE_RULES, DOMAIN.rules), data.facts())
    assert plan["task"].value == "classification"
    assert data.facts()["class_counts"] == [8, 8, 8]
    values = {"task": "classification"}
    preprocessor = data.preprocessor({})
    assert data.task_arguments(preprocessor, values)["classes"] == ["a", "b", "c"]
    for part in ("train", "valid"):
        [found] = data.dataset(part, preprocessor, values).targets.values()
        assert found.tolist() == labels[data.split.part(part)].tolist()


def test_a_row_that_is_not_one_hot_is_named() -> None:
    targets, wrong = torch.eye(3)[torch.arange(30) % 3], torch.tensor([[1.0, 0, 0], [0, 2, 0]])
    data = TensorData.from_tensors(torch.ones(30, 2), targets, valid=(torch.ones(2, 2), wrong))
    with pytest.raises(InputError, match=r"\[0\.0, 2\.0, 0\.0\] in valid row 31, but one-hot"):
        data.task_arguments(data.preprocessor({}), {"task": "classification"})
    with pytest.raises(InputError, match="row of 3 columns, but there are 2 class names"):
        TensorData.from_tensors(torch.ones(30, 2), targets, class_names=["a", "b"]).facts()


def test_a_frame_is_refused_with_the_conversion() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.numpy(), columns=list("abcd")).assign(y=Y.numpy())
    with pytest.raises(ArgumentError, match=r"DataFrame.*frame\[columns\]\.to_numpy\(\)"):
        TensorData.from_tensors(frame[["a", "b"]], frame["y"])
    with pytest.raises(ArgumentError, match=r"'target' is a DataFrame.*frame\[column\]\.to_numpy"):
        TensorData.from_tensors(X, frame[["y"]])
    data = TensorData.from_tensors(frame[list("abcd")].to_numpy(), frame["y"].to_numpy())
    learner = Learner(data, quiet=True)
    with pytest.raises(InputError, match=r"3 columns \(a, b, c\).*4 numbers.*frame\[columns\]"):
        learner.predict(frame[["a", "b", "c"]])
    assert len(learner.predict(frame[list("abcd")].to_numpy())) == len(frame)
