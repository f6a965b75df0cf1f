import random as python_random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)

from flambeau.data import (
    Data,
    LoaderOptions,
    MapDataset,
    UserLoader,
    WorkerLoader,
)
from flambeau.errors import ArgumentError, FlambeauWarning, InputError
from flambeau.tensors import TensorData, UserData

N = 30
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(1))
Y = torch.arange(N) % 3
VALUES: dict[str, Any] = {"task": "classification", "normalisation": "none"}


class Augmented(Dataset[Any]):
    """Images-like samples with random augmentation; what it gives depends on the generators."""

    def __init__(self, n: int = N) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(2) + np.random.rand() + python_random.random()
        return noise, index % 3


def loader(data: Data, part: str, options: LoaderOptions) -> Any:
    return data.dataset(part, data.preprocessor(VALUES), VALUES).loader(options)


def test_a_tensor_dataset_is_loaded_into_memory() -> None:
    data = TensorData.from_datasets(TensorDataset(X, Y), TensorDataset(X[:5], Y[:5]))
    assert isinstance(data, TensorData)
    assert data.facts()["class_counts"] == [10, 10, 10]
    assert data.split.valid.tolist() == [30, 31, 32, 33, 34]


def test_subsets_of_a_tensor_dataset_are_loaded_into_memory() -> None:
    """Also a subset of a subset: the rows are those that indexing gives."""
    whole = TensorDataset(X, Y)
    train, valid = random_split(whole, [20, 10], torch.Generator().manual_seed(0))
    data = TensorData.from_datasets(Subset(train, range(5, 20)), valid)
    assert isinstance(data, TensorData)
    for part, subset in (("train", [train[i] for i in range(5, 20)]), ("valid", list(valid))):
        dataset = data.dataset(part, data.preprocessor(VALUES), VALUES)
        assert torch.equal(dataset.inputs["input"], torch.stack([x for x, _ in subset]))
        assert torch.equal(dataset.targets["target"], torch.stack([y for _, y in subset]))
    assert data.facts()["class_names"] == ["0", "1", "2"]


@pytest.mark.parametrize("workers", [0, 1])
def test_augmentation_is_the_same_for_any_num_workers(
    checks: SimpleNamespace, workers: int
) -> None:
    options = LoaderOptions(4, shuffle=True, seed=6, num_workers=workers)
    data = TensorData.from_datasets(Augmented(), Augmented(8), n_classes=3)
    assert isinstance(data, UserData)
    train = loader(data, "train", options)
    assert isinstance(train, WorkerLoader)
    first = checks.flat(train.batches(0))
    assert sorted(index for indices, _ in first for index in indices) == list(range(N))
    assert checks.same(first[3:], checks.flat(train.batches(0, 3)))
    assert not checks.same(first, checks.flat(train.batches(1)))
    # A sample's augmentation depends on neither batch nor worker.
    other = loader(data, "train", LoaderOptions(7, seed=6))
    by_sample = {
        index: value
        for batch in other.batches(0)
        for index, value in zip(batch.indices.tolist(), batch.input, strict=True)
    }
    for indices, tensors in first:
        for index, value in zip(indices, tensors["input"], strict=True):
            assert torch.equal(value, by_sample[index])
    train.close()
    # Sample numbers are those of the split.
    assert checks.order(loader(data, "valid", options).batches(0)) != list(range(30, 38))
    assert checks.order(loader(data, "valid", LoaderOptions(3)).batches(0)) == list(range(30, 38))
    assert data.split.valid.tolist() == list(range(30, 38))


def test_facts_use_the_first_samples_without_side_effects() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    data = TensorData.from_datasets(Augmented(200), Augmented(8), n_classes=3)
    facts = data.facts()
    assert torch.equal(before, torch.get_rng_state())
    assert facts["evidence"] == "shapes and dtypes of the first 64 train samples"
    assert facts["inputs"] == {"input": {"shape": [2], "dtype": "float32"}}
    assert (facts["target_dtype"], facts["target_shape"]) == ("int64", [])
    assert facts["in_memory"] is False
    assert [facts["n_train"], facts["n_valid"], facts["n_test"]] == [200, 8, 0]
    assert facts["class_names"] == ["0", "1", "2"]
    assert data.model_arguments(data.preprocessor(VALUES), VALUES) == {
        "n_inputs": 2,
        "n_outputs": 3,
    }


def test_the_number_of_classes_is_required_if_unknown() -> None:
    data = TensorData.from_datasets(Augmented(), Augmented(8))
    with pytest.raises(InputError, match=r"Give class_names=\[…\] or n_classes=…"):
        data.task_arguments(data.preprocessor(VALUES), VALUES)
    with pytest.raises(InputError, match="n_classes is 2, but class_names has 1 names"):
        TensorData.from_datasets(Augmented(), Augmented(8), n_classes=2, class_names=["a"])


def test_standardising_needs_the_data_in_memory() -> None:
    data = TensorData.from_datasets(Augmented(), Augmented(8), n_classes=3)
    with pytest.raises(InputError, match="needs the mean and std of all train samples"):
        data.preprocessor({"normalisation": "standard"})


def test_python_and_numpy_floats_become_torchs_default() -> None:
    class Doubles(Augmented):
        def __getitem__(self, index: int) -> Any:
            return np.ones(2), torch.ones(1, dtype=torch.float64), 0.5

    data = TensorData.from_datasets(Doubles(), Doubles(), n_inputs=2)
    batch = next(loader(data, "train", LoaderOptions(4)).batches(0))
    assert [v.dtype for v in batch.inputs.values()] == [torch.float32, torch.float64]
    assert batch.target.dtype == torch.float32


def test_only_the_selected_fields_are_collated() -> None:
    class Records(Augmented):
        def __getitem__(self, index: int) -> Any:
            return {"name": f"sample {index}", "image": torch.full((2,), index), "label": index % 3}

    data = TensorData.from_datasets(
        Records(), Records(), inputs=["image"], targets=["label"], n_classes=3
    )
    batch = next(loader(data, "train", LoaderOptions(4)).batches(0))
    assert list(batch.inputs) == ["image"]
    assert batch.target.tolist() == [0, 1, 2, 0]
    assert data.raw("valid")[3].tolist() == [3, 3]
    with pytest.raises(InputError, match=r"Write inputs=\['name', 'image'\], targets=\['label'\]"):
        TensorData.from_datasets(Records(), Records())


def test_errors_name_the_sample() -> None:
    class Broken(Augmented):
        def __getitem__(self, index: int) -> Any:
            if index == 70:
                raise OSError("truncated file")
            return torch.zeros(index // 100 + 1), 0

    data = TensorData.from_datasets(Broken(150), Broken(8))
    for workers in (0, 1):
        train = loader(data, "train", LoaderOptions(10, num_workers=workers))
        with pytest.raises(InputError, match=r"sample 70 .* failed: OSError: truncated"):
            list(train.batches(0))
    with pytest.raises(
        InputError, match=r"samples at positions 98, 99, .*, 104 cannot be collated"
    ):
        next(loader(data, "train", LoaderOptions(7)).batches(0, 14))


def test_other_than_map_style_data_sets_raise() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([])

    with pytest.raises(
        ArgumentError, match=r"train data set is a Stream .* TensorData.from_loaders"
    ):
        TensorData.from_datasets(Stream(), Augmented())
    with pytest.raises(InputError, match="valid data set is empty"):
        TensorData.from_datasets(Augmented(), Subset(Augmented(), []))
    with pytest.raises(ArgumentError, match="is a single string"):
        TensorData.from_datasets(Augmented(), Augmented(), inputs="image")


# ---------------------------------------------------------------- Hugging Face

hf = pytest.importorskip("datasets", reason="the datasets package is not installed")


def table(n: int = N) -> Any:
    features = hf.Features(
        {
            "a": hf.Value("float64"),
            "b": hf.Value("int32"),
            "words": hf.Value("string"),
            "vector": hf.List(hf.Value("float32")),
            "label": hf.ClassLabel(names=["ant", "bee", "cat"]),
        }
    )
    columns = {
        "a": X[:n, 0].double().tolist(),
        "b": list(range(n)),
        "words": ["x"] * n,
        "vector": X[:n].tolist(),
        "label": Y[:n].tolist(),
    }
    return hf.Dataset.from_dict(columns, features=features)


def test_hugging_face_numbers_are_loaded_to_memory() -> None:
    data = TensorData.from_datasets(table(), table(6), inputs=("a", "b"), targets=("label",))
    assert isinstance(data, TensorData)
    facts = data.facts()
    assert facts["inputs"] == {
        "a": {"shape": [], "dtype": "float32"},
        "b": {"shape": [], "dtype": facts["inputs"]["b"]["dtype"]},
    }
    assert facts["class_names"] == ["ant", "bee", "cat"]
    assert facts["class_counts"] == [10, 10, 10]
    batch = next(loader(data, "train", LoaderOptions(N)).batches(0))
    torch.testing.assert_close(batch.inputs["a"], X[:, 0])
    assert batch.target.tolist() == Y.tolist()


def test_hugging_face_vectors_are_read_by_workers() -> None:
    data = TensorData.from_datasets(table(), table(6), inputs=("vector",), targets=("label",))
    assert isinstance(data, UserData)
    assert data.facts()["class_names"] == ["ant", "bee", "cat"]
    batches = list(loader(data, "train", LoaderOptions(7, num_workers=1)).batches(0))
    torch.testing.assert_close(torch.cat([b.input for b in batches]), X)
    assert torch.cat([b.target for b in batches]).tolist() == Y.tolist()


def test_a_hugging_face_transform_is_not_bypassed() -> None:
    def twice(rows: dict[str, Any]) -> dict[str, Any]:
        return {"a": [2 * value for value in rows["a"]], "label": rows["label"]}

    augmented = table().with_transform(twice)
    data = TensorData.from_datasets(augmented, augmented, inputs=("a",), targets=("label",))
    assert isinstance(data, UserData)
    batch = next(loader(data, "train", LoaderOptions(N)).batches(0))
    torch.testing.assert_close(batch.input, 2 * X[:, 0])


def test_hugging_face_columns_must_be_declared() -> None:
    with pytest.raises(ArgumentError, match=r"columns 'a', 'b', .* targets=\('label',\)"):
        TensorData.from_datasets(table(), table())
    with pytest.raises(ArgumentError, match=r"no column 'lable'. Did you mean 'label'"):
        TensorData.from_datasets(table(), table(), inputs=("a",), targets=("lable",))


# ---------------------------------------------------------------- loaders


def pairs(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), batch_size=4, **options)


def test_user_loaders_are_used_unchanged() -> None:
    data = TensorData.from_loaders(pairs(shuffle=True), pairs(), n_classes=3)
    facts = data.facts()
    assert facts["loader_batch_size"] == 4
    assert [facts["n_train"], facts["n_valid"], facts["n_test"]] == [30, 30, 0]
    assert facts["evidence"] == "shapes and dtypes of the first 8 train samples"
    train = loader(data, "train", LoaderOptions(64, seed=4))
    assert isinstance(train, UserLoader)
    assert train.steps_per_epoch == 8
    assert sorted(torch.cat([b.target for b in train.batches(0)]).tolist()) == sorted(Y.tolist())
    valid = list(loader(data, "valid", LoaderOptions(64)).batches(0))
    assert torch.equal(torch.cat([b.input for b in valid]), X)
    assert torch.equal(torch.stack(list(data.raw("valid"))), X)
    assert data.model_arguments(data.preprocessor(VALUES), VALUES) == {
        "n_inputs": 3,
        "n_outputs": 3,
    }


def test_loaders_of_dicts_and_lists_of_batches() -> None:
    batches = [{"x": X[:5], "y": Y[:5]}, {"x": X[5:9], "y": Y[5:9]}]
    data = TensorData.from_loaders(batches, batches, inputs=("x",), targets=("y",), n_classes=3)
    assert data.facts()["n_train"] == 10
    assert "batches × 5" in data.split.notes[0]
    assert [len(b) for b in loader(data, "train", LoaderOptions(1)).batches(0)] == [5, 4]


def test_loaders_with_an_unexpected_order_warn() -> None:
    with pytest.warns(FlambeauWarning, match="train-not-shuffled"):
        TensorData.from_loaders(pairs(), pairs())
    with pytest.warns(FlambeauWarning, match="valid-shuffled"):
        TensorData.from_loaders(pairs(shuffle=True), pairs(shuffle=True))


def test_map_dataset_is_picklable_for_spawned_workers() -> None:
    import pickle

    from flambeau.data import BatchLayout

    again = pickle.loads(pickle.dumps(MapDataset(TensorDataset(X, Y), BatchLayout())))
    assert torch.equal(again.sample(2)[0]["input"], X[2])


def animals(names: list[str], column: str = "label") -> Any:
    feature: Any = hf.ClassLabel(names=names)
    values: list[Any] = ["ant", "bee", "bee", "ant"]
    if column == "labels":
        feature, values = hf.List(feature), [[value] for value in values]
    features = hf.Features({"x": hf.Value("float32"), column: feature})
    rows = {"x": [0.0, 1.0, 2.0, 3.0], column: values}
    return hf.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("names", [["bee", "ant"], ["ant", "bee", "cat"], ["ANT", "ant", "bee"]])
def test_class_labels_of_two_meanings_are_refused(names: list[str]) -> None:
    train, other = animals(["ant", "bee"]), animals(names)
    columns = {"inputs": ("x",), "targets": ("label",)}
    with pytest.raises(InputError, match=r"'label' has the class names .* in valid, but ant, bee"):
        TensorData.from_datasets(train, other, **columns)
    with pytest.raises(InputError, match=r"in test, .*test\.align_labels_with_mapping"):
        TensorData.from_datasets(train, train, other, **columns)
    mapping = {name: number for number, name in enumerate(train.features["label"].names)}
    if set(names) == set(mapping):  # the fix in the message
        aligned = other.align_labels_with_mapping(mapping, "label")
        data = TensorData.from_datasets(train, aligned, **columns)
        batch = next(loader(data, "valid", LoaderOptions(4)).batches(0))
        assert batch.target.tolist() == [0, 1, 1, 0]


def test_lists_of_class_labels_and_inputs_of_two_meanings_are_refused() -> None:
    with pytest.raises(InputError, match="'labels' has the class names"):
        TensorData.from_datasets(
            animals(["ant", "bee"], "labels"),
            animals(["bee", "ant"], "labels"),
            inputs=("x",),
            targets=("labels",),
        )
    with pytest.raises(InputError, match="'label' has the class names"):
        TensorData.from_datasets(
            animals(["ant", "bee"]), animals(["bee", "ant"]), inputs=("label",), targets=("x",)
        )


def test_class_names_in_another_order_than_the_labels_are_refused() -> None:
    table = animals(["ant", "bee"])
    columns: dict[str, Any] = {"inputs": ("x",), "targets": ("label",)}
    with pytest.raises(InputError, match=r"bee, ant instead of ant, bee\. Omit class_names"):
        TensorData.from_datasets(table, table, class_names=["bee", "ant"], **columns)
    renamed = TensorData.from_datasets(table, table, class_names=["Ameise", "Biene"], **columns)
    assert renamed.facts()["class_names"] == ["Ameise", "Biene"]


def test_a_dict_of_data_sets_is_refused() -> None:
    sets = hf.DatasetDict({"train": table(), "test": table(6)})
    for first, second in ((sets, table()), (table(), sets), ({"a": table()}, table())):
        with pytest.raises(ArgumentError, match=r"with the keys .*sets\['train'\]"):
            TensorData.from_datasets(first, second, inputs=("a",), targets=("label",))


def test_hugging_face_float64_that_float32_merges_stays_float64() -> None:
    times = [1.7e9 + row for row in range(8)]
    rows = hf.Dataset.from_dict({"x": times, "y": times})
    data = TensorData.from_datasets(rows, rows, inputs=("x",), targets=("y",))
    assert data.facts()["target_distinct"] == 8
    batch = next(loader(data, "valid", LoaderOptions(8)).batches(0))
    assert batch.input.tolist() == times
