"""Export and load: bitwise equal outputs, no code run, and every mismatch named."""

import json
import os
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flambeau import Learner, TensorData
from flambeau.artefact.export import export
from flambeau.artefact.export_format import ExportRecord
from flambeau.artefact.predictor import Predictor
from flambeau.artefact.verified_files import file_sha256
from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain, discovery
from flambeau.errors import ArtefactError, InputError
from flambeau.task.task import Task


@dataclass(frozen=True)
class Scale(Preprocessor):
    """Rows of numbers, scaled on the device."""

    columns: Sequence[str]
    mean: Tensor | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    builder = "scale"

    def encode(self, items: Sequence[Any]) -> Batch:
        if any(len(item) != len(self.columns) for item in items):
            raise InputError(f"a row does not have {len(self.columns)} columns")
        return Batch({"x": torch.tensor(np.array(items), dtype=torch.float32)})

    def on_device(self, batch: Batch) -> Batch:
        mean = self.mean
        return batch if mean is None else batch.map(lambda x: x - mean.to(x.device))

    def arguments(self) -> Mapping[str, Any]:
        return {"columns": self.columns, "options": self.options}

    def tensors(self) -> Mapping[str, Tensor]:
        return {} if self.mean is None else {"mean": self.mean}


class Toy(nn.Module):
    """Tied weights, a buffer, dropout and batch norm."""

    def __init__(self, n: int, weights: str | None = None, scale: float = 1.0) -> None:
        super().__init__()
        if weights is not None:
            raise RuntimeError("nothing may be downloaded while an export is loaded")
        self.first, self.second = nn.Linear(n, n), nn.Linear(n, n)
        self.second.weight = self.first.weight
        self.norm, self.drop = nn.BatchNorm1d(n), nn.Dropout(0.5)
        self.register_buffer("factor", torch.full((), scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(self.norm(self.first(x)).relu())) * self.factor


class Rounded(Task):
    builder = "rounded"

    def __init__(self, digits: int = 3) -> None:
        self.digits = digits

    def decode(self, outputs: Tensor) -> list[Any]:
        return [[round(value, self.digits) for value in row] for row in outputs.tolist()]

    def arguments(self) -> Mapping[str, Any]:
        return {"digits": self.digits}


DOMAIN = Domain(
    name="toyexport",
    data_classes={},
    models={"toy": Toy, "wide": lambda n: nn.Linear(n, n)},
    tasks={"rounded": Rounded},
    preprocessors={"scale": Scale},
)
COLUMNS = ("a", "b", "c")
SPEC = {"builder": "toy", "arguments": {"n": 3, "weights": "published"}}


@pytest.fixture(autouse=True)
def toy_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("toyexport_module")
    module.DOMAIN = DOMAIN  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(discovery, "_loaded", {"toyexport_module:DOMAIN": DOMAIN})


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    toy = Toy(3, scale=2.5)
    toy(torch.randn(50, 3))  # running statistics of batch norm
    return toy


@pytest.fixture
def rows() -> list[list[float]]:
    return np.random.default_rng(0).normal(size=(10, 3)).tolist()


def parts(model: nn.Module, **changes: Any) -> dict[str, Any]:
    preprocessor = Scale(COLUMNS, torch.tensor([0.1, 0.2, 0.3]))
    return {
        "domain": "toyexport", "model": model, "model_spec": SPEC, "task": Rounded(4),
        "preprocessor": preprocessor, **changes,
    }  # fmt: skip


@pytest.fixture
def exported(model: nn.Module, tmp_path: Path) -> Path:
    return export(tmp_path / "pets", **parts(model, plan={"lr": 0.1}, notes={"score": 0.9}))


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "flambeau.json").read_text())


# ---------------------------------------------------------------- the round trip


def test_a_loaded_predictor_gives_bitwise_equal_outputs(
    exported: Path, model: nn.Module, rows: list[list[float]]
) -> None:
    here = Predictor(Scale(COLUMNS, torch.tensor([0.1, 0.2, 0.3])), model, Rounded(4))
    there = Predictor.load(exported, device="cpu")
    assert torch.equal(here.outputs(rows), there.outputs(rows))
    assert here.predict(rows) == there(rows)
    assert there.record is not None
    assert there.record.plan == {"lr": 0.1}
    assert there.record.notes == {"score": 0.9}


def test_the_files_of_an_export(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "flambeau.json", "model.safetensors", "preprocessor.safetensors",
    ]  # fmt: skip
    content = record(exported)
    assert content["schema_version"] == 1
    assert content["domain"] == "toyexport"
    # The exported weights replace the pretrained ones, so nothing is downloaded.
    assert content["model"]["arguments"] == {"n": 3, "weights": None}
    assert content["aliases"] == {"second.weight": "first.weight"}
    assert content["sha256"]["model.safetensors"] == file_sha256(exported / "model.safetensors")
    assert content["preprocessor"]["arguments"] == {"columns": ["a", "b", "c"], "options": {}}
    assert content["versions"]["torch"] == torch.__version__
    weights = load_file(exported / "model.safetensors")
    assert "second.weight" not in weights
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


def test_tied_weights_are_tied_after_loading(exported: Path) -> None:
    model = Predictor.load(exported, device="cpu").model
    assert model.second.weight is model.first.weight


def test_no_preprocessor_file_without_tensors(model: nn.Module, tmp_path: Path) -> None:
    folder = export(tmp_path / "pets", **parts(model, preprocessor=Scale(COLUMNS)))
    assert not (folder / "preprocessor.safetensors").exists()
    assert len(Predictor.load(folder, device="cpu").predict([[1, 2, 3]])) == 1


def test_double_precision_is_kept(model: nn.Module, tmp_path: Path) -> None:
    folder = export(tmp_path / "pets", **parts(model.double()))
    loaded = Predictor.load(folder, device="cpu").model
    assert not loaded.training
    x = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(loaded(x), model.eval()(x))
    assert loaded.second.weight is loaded.first.weight


def test_neither_exporting_nor_loading_draws_random_numbers(
    model: nn.Module, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    Predictor.load(export(tmp_path / "pets", **parts(model)), device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_plan_given_as_text(model: nn.Module, tmp_path: Path) -> None:
    assert record(export(tmp_path / "pets", **parts(model, plan='{"lr": 1}')))["plan"] == {"lr": 1}


# ---------------------------------------------------------------- user-defined modules and tasks


def test_a_user_defined_module_exports_only_its_weights(
    model: nn.Module, tmp_path: Path, rows: list[list[float]]
) -> None:
    folder = export(tmp_path / "pets", **parts(model, model_spec=None))
    assert record(folder)["model"]["builder"] is None
    assert "only its weights" in record(folder)["model"]["note"]
    with pytest.raises(
        ArtefactError, match=r"no builder for its model.*user-defined Toy.*model=\."
    ):
        Predictor.load(folder)
    there = Predictor.load(folder, model=Toy(3), device="cpu")
    here = Predictor(there.preprocessor, model, there.task)
    assert torch.equal(there.outputs(rows), here.outputs(rows))


def test_a_given_model_of_another_class_is_refused(model: nn.Module, tmp_path: Path) -> None:
    folder = export(tmp_path / "pets", **parts(model, model_spec=None))
    with pytest.raises(
        ArtefactError,
        match=r"file lacks 'weight', 'bias' of Linear; Linear lacks 'factor'",
    ):
        Predictor.load(folder, model=nn.Linear(3, 3))
    with pytest.raises(ArtefactError, match=r"'first.weight' is float32 \(3, 3\).*\(4, 4\)"):
        Predictor.load(folder, model=Toy(4))


def test_a_user_defined_task_is_passed_to_load(model: nn.Module, tmp_path: Path) -> None:
    class Mine(Rounded):  # inherits the builder name, which would build a Rounded
        def decode(self, outputs: Tensor) -> list[Any]:
            return ["mine"] * len(outputs)

    folder = export(tmp_path / "pets", **parts(model, task=Mine()))
    with pytest.raises(ArtefactError, match=r"no builder for its task.*Mine.*task=\.\.\."):
        Predictor.load(folder)
    assert Predictor.load(folder, task=Mine(), device="cpu").predict([[1, 2, 3]]) == ["mine"]


# ---------------------------------------------------------------- refusals when exporting


def test_code_in_the_preprocessing_is_refused_by_name(model: nn.Module, tmp_path: Path) -> None:
    def my_clean(text: str) -> str:
        return text

    preprocessor = Scale(COLUMNS, options={"steps": [1, my_clean]})
    with pytest.raises(
        ArtefactError,
        match=r"Scale\.arguments\(\)\['options'\]\['steps'\]\[1\] is .*my_clean.*code",
    ):
        export(tmp_path / "pets", **parts(model, preprocessor=preprocessor))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": float("nan")}, r"\['a'\] is nan, which JSON cannot represent"),
        ({1: 2}, r"\['options'\] has the key 1"),
        ({"a": {1}}, r"\['a'\] has the type set"),
        ({"a": torch.zeros(1)}, r"\['a'\] has the type Tensor.*belong in tensors"),
        ({"a": nn.ReLU}, r"\['a'\] is ReLU, which is code"),
    ],
)
def test_values_that_json_lacks_are_refused(
    model: nn.Module, tmp_path: Path, options: Any, message: str
) -> None:
    with pytest.raises(ArtefactError, match=message):
        export(tmp_path / "pets", **parts(model, preprocessor=Scale(COLUMNS, options=options)))


def test_a_preprocessor_without_a_builder_is_refused(model: nn.Module, tmp_path: Path) -> None:
    class Mine(Scale):
        pass

    with pytest.raises(ArtefactError, match=r"is a .*Mine, but its builder 'scale' builds a Scale"):
        export(tmp_path / "pets", **parts(model, preprocessor=Mine(COLUMNS)))
    Mine.builder = "mine"
    with pytest.raises(ArtefactError, match="does not register the preprocessor builder 'mine'"):
        export(tmp_path / "pets", **parts(model, preprocessor=Mine(COLUMNS)))


def test_a_model_changed_after_building_is_refused(model: nn.Module, tmp_path: Path) -> None:
    model.second = nn.Linear(3, 7)
    with pytest.raises(ArtefactError, match=r"'second\.weight' has the shape \(7, 3\).*\(3, 3\)"):
        export(tmp_path / "pets", **parts(model))
    model.extra = nn.Linear(1, 1)
    with pytest.raises(ArtefactError, match=r"only the model has 'extra\.bias'"):
        export(tmp_path / "pets", **parts(model))
    spec = {"builder": "wide", "arguments": {"n": 3}}
    with pytest.raises(ArtefactError, match="builds a Linear, the model is a Toy"):
        export(tmp_path / "pets", **parts(model, model_spec=spec))


def test_extra_state_is_refused(model: nn.Module, tmp_path: Path) -> None:
    type(model).get_extra_state = lambda self: {"code": 1}  # type: ignore[attr-defined]
    try:
        with pytest.raises(ArtefactError, match="'_extra_state' of type dict"):
            export(tmp_path / "pets", **parts(model, model_spec=None))
    finally:
        del type(model).get_extra_state


def test_foreign_folders_are_not_overwritten(
    model: nn.Module, tmp_path: Path, exported: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("years of work")
    with pytest.raises(ArtefactError, match=r"contains other files \(text\.tex\)"):
        export(tmp_path / "thesis", **parts(model))
    (exported / "my_notes.txt").write_text("mine")
    with pytest.raises(ArtefactError, match=r"other files \(my_notes\.txt\)"):
        export(exported, **parts(model))
    assert (exported / "my_notes.txt").read_text() == "mine"
    with pytest.raises(ArtefactError, match="is a file"):
        export(exported / "my_notes.txt", **parts(model))


def test_an_export_replaces_an_export(model: nn.Module, exported: Path) -> None:
    export(exported, **parts(model, preprocessor=Scale(COLUMNS), notes={"n": 2}))
    assert record(exported)["notes"] == {"n": 2}
    assert not (exported / "preprocessor.safetensors").exists()


def test_an_empty_folder_is_accepted(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export(tmp_path / "empty", **parts(model))
    assert (tmp_path / "empty" / "flambeau.json").exists()


def test_a_symbolic_link_is_followed(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    export(tmp_path / "link", **parts(model))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "flambeau.json").exists()


# ---------------------------------------------------------------- refusals when loading


def put(folder: Path, path: str, value: Any) -> None:
    content = record(folder)
    *parents, last = path.split(".") if not path.startswith("sha256") else path.split(".", 1)
    place = content
    for name in parents:
        place = place[name]
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    (folder / "flambeau.json").write_text(json.dumps(content))


DELETE = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "other", "not an export"),
        (
            "schema_version",
            2,
            "schema_version 2, but .* flambeau reads 1. Update",
        ),
        ("schema_version", "1", "schema_version '1'.*damaged"),
        ("schema_version", DELETE, "schema_version None"),
        ("domain", "toyexprot", "Cannot load .*Unknown domain 'toyexprot'"),
        ("domain", 3, "'domain' must be a string, not a int"),
        ("model.builder", "tpy", "not register the model builder 'tpy'.*'toy'"),
        ("model.builder", "scale", "not register the model builder 'scale'"),
        ("model.builder", 7, "'model.builder' must be a string or null"),
        ("model.builder", DELETE, "the field 'model.builder' is missing"),
        ("model.arguments", [], "'model.arguments' must be an object"),
        ("model.arguments.n", 4, r"'first.weight' is float32 \(3, 3\), but the model has"),
        ("model.arguments.n", "x", "builder 'toy' failed with the saved arguments: TypeError"),
        ("model.arguments.depth", 4, "'toy' does not accept the saved arguments.*'depth'"),
        ("task.builder", "os.system", "not register the task builder 'os.system'"),
        ("task.extra", 1, "unknown field 'task.extra'"),
        ("preprocessor.builder", "scaled", "preprocessor builder 'scaled'.*Did you mean 'scale'"),
        ("preprocessor.arguments.columns", DELETE, "preprocessor builder 'scale' does not accept"),
        ("sha256", [], "'sha256' must be an object"),
        ("sha256.model.safetensors", "00", "model.safetensors is damaged or was replaced"),
        ("sha256.preprocessor.safetensors", "00", "preprocessor.safetensors is damaged"),
        ("aliases", {"second.weight": "third.weight"}, "alias 'second.weight' of 'third.weight'"),
        ("aliases", {"first.weight": "first.bias"}, "alias 'first.weight'"),
        ("aliases", {}, "the file lacks 'second.weight' of Toy"),
        ("plans", {}, "unknown field 'plans'.*'plan'"),
        ("plan", DELETE, "the field 'plan' is missing"),
    ],
)
def test_every_wrong_field_is_named(exported: Path, path: str, value: Any, message: str) -> None:
    put(exported, path, value)
    with pytest.raises(ArtefactError, match=message):
        Predictor.load(exported, device="cpu")


def rewrite_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, folder / "model.safetensors")
    put(folder, "sha256.model.safetensors", file_sha256(folder / "model.safetensors"))


def test_wrong_tensors_are_named(exported: Path) -> None:
    weights = load_file(exported / "model.safetensors")
    rewrite_weights(exported, {**weights, "factor": torch.zeros((), dtype=torch.int64)})
    with pytest.raises(ArtefactError, match=r"'factor' is int64 \(\), but the model has float32"):
        Predictor.load(exported, device="cpu")
    rewrite_weights(exported, {**weights, "more": torch.zeros(1)})
    with pytest.raises(ArtefactError, match="Toy lacks 'more' of the file"):
        Predictor.load(exported, device="cpu")
    rewrite_weights(exported, {**weights, "second.weight": torch.zeros(3, 3)})
    put(exported, "aliases", {})
    with pytest.raises(
        ArtefactError, match=r"ties 'second.weight' to 'first.weight', but the file"
    ):
        Predictor.load(exported, device="cpu")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "model.safetensors").unlink(), "Cannot read .*model.safetensors"),
        (lambda p: os.truncate(p / "model.safetensors", 50), "damaged or was replaced"),
        (lambda p: (p / "flambeau.json").unlink(), "it has no flambeau.json"),
        (lambda p: os.truncate(p / "flambeau.json", 50), "damaged or not a JSON"),
        (lambda p: (p / "flambeau.json").write_text("3"), "must contain a JSON object"),
    ],
)
def test_damaged_files(exported: Path, damage: Any, message: str) -> None:
    damage(exported)
    with pytest.raises(ArtefactError, match=message):
        Predictor.load(exported, device="cpu")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ArtefactError, match=r"missing is not an export: it does not.*learner\.export"
    ):
        Predictor.load(tmp_path / "missing")


def test_the_folder_of_a_run_gives_its_export(exported: Path) -> None:
    expected = Predictor.load(exported).predict([[1, 2, 3]])
    run = exported.parent / "run"
    run.mkdir()
    exported.rename(run / "model")
    assert Predictor.load(run).predict([[1, 2, 3]]) == expected
    with pytest.raises(ArtefactError, match=r"run is not an export: .*of this run is .*model\."):
        ExportRecord.read(run)


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("an export must not be unpickled")

    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("torch.load", refuse)
    return


@pytest.mark.usefixtures("no_pickle")
def test_loading_reads_no_pickle(exported: Path) -> None:
    assert Predictor.load(exported, device="cpu").predict([[1, 2, 3]])


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such file modes")
def test_files_have_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        learner = Learner(TensorData.from_tensors(torch.randn(20, 3), torch.arange(20) % 2))
        folder = learner.export(tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        path.name: "0o644" for path in folder.iterdir()
    }
