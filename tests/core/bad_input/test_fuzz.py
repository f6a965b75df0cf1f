"""Randomly damaged exports, checkpoints and plans: refused or harmless, no crash, no code run."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, Plan, Predictor, TensorData
from flambeau.artefact.checkpoint_files import latest_checkpoint, load_checkpoint
from flambeau.artefact.verified_files import file_sha256
from flambeau.errors import ArtefactError, FlambeauError

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
QUICK, MANY = 100, 1000
ROUNDS = [pytest.param(QUICK), pytest.param(MANY, marks=pytest.mark.slow)]


def learner(folder: Path | None = None) -> Learner:
    choices = {"batch_size": 16}
    return Learner(TensorData.from_tensors(X, Y), quiet=True, folder=folder, choices=choices)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learner().export(tmp_path_factory.mktemp("fuzz") / "export")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    learner(folder).fit(1)
    return folder


@pytest.fixture(autouse=True)
def no_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Fail the test if a function that could run code from a file is called."""
    called: list[str] = []
    # A run that is resumed asks git for its record, whatever is in the files.
    monkeypatch.setattr("flambeau.callbacks.run_record.git_state", lambda folder: None)
    for name in ("pickle.load", "pickle.loads", "torch.load", "os.system", "subprocess.Popen"):
        monkeypatch.setattr(name, lambda *a, _name=name, **k: called.append(_name))
    yield called
    assert called == []


# ---------------------------------------------------------------- damage


def damaged(content: bytes, draws: random.Random) -> bytes:
    """Return ``content`` truncated, with flipped bits, inserted bytes or a repeated part."""
    data = bytearray(content)
    kind = draws.randrange(4)
    if kind == 0:
        return bytes(data[: draws.randrange(len(data))])
    if kind == 1:
        for _ in range(draws.randint(1, 8)):
            data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        return bytes(data)
    position = draws.randrange(len(data))
    more = draws.randbytes(draws.randint(1, 64)) if kind == 2 else data[: draws.randrange(200)]
    return bytes(data[:position] + more + data[position:])


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODD: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: -1,
    lambda: 0,
    lambda: 10**18,
    lambda: 10**400,
    lambda: 1e308,
    lambda: math.nan,
    lambda: math.inf,
    lambda: "",
    lambda: "../../../etc/passwd",
    lambda: "os.system",
    lambda: {"__reduce__": ["os.system", "true"]},
    lambda: {"$tensor": "x"},
    lambda: [],
    lambda: {},
    lambda: [[1, 2], {"a": None}],
    lambda: nested(200),
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in entries:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from paths_in(part, (*path, key))


def changed(content: Any, draws: random.Random) -> Any:
    """Return a copy with one to three entries deleted, renamed, scaled or replaced."""
    content = copy.deepcopy(content)
    for _ in range(draws.randint(1, 3)):
        every = list(paths_in(content))
        if not every:
            return content
        *parents, key = draws.choice(every)
        container = content
        for parent in parents:
            container = container[parent]
        kind = draws.randrange(4)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[str(key) + "x"] = container.pop(key)
        elif kind == 2 and isinstance(container[key], int | float):
            container[key] = container[key] * draws.choice((-1, 2, 10**6, 10**15))
        else:
            container[key] = draws.choice(ODD)()
    return content


# ---------------------------------------------------------------- exports


def load_and_predict(folder: Path) -> bool:
    """Return whether the export can predict; errors other than FlambeauError propagate."""
    try:
        predictions = Predictor.load(folder, device="cpu").predict(X[:2])
    except FlambeauError:
        return False
    assert len(predictions) == 2
    return True


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_export_with_damaged_bytes(export: Path, tmp_path: Path, rounds: int) -> None:
    draws = random.Random(0)
    refused = 0
    for _ in range(rounds):
        folder = tmp_path / "export"
        shutil.copytree(export, folder)
        name = draws.choice(sorted(path.name for path in export.iterdir()))
        before = (folder / name).read_bytes()
        after = damaged(before, draws)
        (folder / name).write_bytes(after)
        works = load_and_predict(folder)
        if name.endswith(".safetensors") and after != before:
            assert not works  # its checksum is in the record
        refused += not works
        shutil.rmtree(folder)
    assert refused > rounds / 2


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_export_with_damaged_tensors_and_valid_checksum(
    export: Path, tmp_path: Path, rounds: int
) -> None:
    draws = random.Random(1)
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    content = json.loads((export / "flambeau.json").read_text())
    weights = (export / "model.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", weights[:8])[0]
    for _ in range(rounds):
        # Mostly the header: flipped bits in the values give another valid model.
        front = draws.random() < 0.8
        after = damaged(weights[:header] if front else weights, draws)
        (folder / "model.safetensors").write_bytes(after + weights[header:] if front else after)
        content["sha256"]["model.safetensors"] = file_sha256(folder / "model.safetensors")
        (folder / "flambeau.json").write_text(json.dumps(content))
        load_and_predict(folder)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_export_with_changed_fields(export: Path, tmp_path: Path, rounds: int) -> None:
    draws = random.Random(2)
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    content = json.loads((export / "flambeau.json").read_text())
    for _ in range(rounds):
        (folder / "flambeau.json").write_text(json.dumps(changed(content, draws)))
        load_and_predict(folder)


# ---------------------------------------------------------------- checkpoints and plans


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_checkpoint_with_damaged_bytes(run: Path, tmp_path: Path, rounds: int) -> None:
    draws = random.Random(3)
    found = latest_checkpoint(run)
    assert found is not None
    folder = tmp_path / found.name
    for _ in range(rounds):
        shutil.copytree(found, folder)
        path = folder / draws.choice(("state.json", "tensors.safetensors"))
        before = path.read_bytes()
        after = damaged(before, draws)
        path.write_bytes(after)
        try:
            load_checkpoint(folder)
            works = True
        except ArtefactError:
            works = False
        assert not works or path.name == "state.json" or after == before
        shutil.rmtree(folder)


@pytest.mark.parametrize("rounds", [pytest.param(25), pytest.param(200, marks=pytest.mark.slow)])
def test_a_refused_checkpoint_leaves_the_learner_unchanged(
    run: Path, tmp_path: Path, rounds: int
) -> None:
    draws = random.Random(4)
    found = latest_checkpoint(run)
    assert found is not None
    state = json.loads((found / "state.json").read_text())
    refused = 0
    for _ in range(rounds):
        folder = tmp_path / "run" / "checkpoints" / found.name
        shutil.copytree(found, folder)
        tree = changed(state["tree"], draws)
        sums = state["sha256"] | {"tree": hashlib.sha256(json.dumps(tree).encode()).hexdigest()}
        (folder / "state.json").write_text(json.dumps(state | {"tree": tree, "sha256": sums}))
        made = learner(tmp_path / "run")
        before = {name: value.clone() for name, value in made.model.state_dict().items()}
        plan = made.plan
        try:
            made.resume(folder)
        except FlambeauError:
            refused += 1
            assert made.plan == plan
            assert made.history.rows == []
            after = made.model.state_dict()
            assert all(torch.equal(after[name], value) for name, value in before.items())
        shutil.rmtree(tmp_path / "run")
    assert refused > rounds / 4


@pytest.mark.parametrize("rounds", ROUNDS)
def test_damaged_plans(tmp_path: Path, rounds: int) -> None:
    draws = random.Random(5)
    path = tmp_path / "plan.json"
    learner().plan.save(path)
    text = path.read_bytes()
    for index in range(rounds):
        if index % 2:
            path.write_bytes(damaged(text, draws))
        else:
            path.write_text(json.dumps(changed(json.loads(text), draws)))
        with suppress(FlambeauError):
            str(Plan.load(path))


# ---------------------------------------------------------------- single faults


def put(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "flambeau.json").read_text())
    change(content)
    content["sha256"]["model.safetensors"] = file_sha256(folder / "model.safetensors")
    (folder / "flambeau.json").write_text(json.dumps(content))


@pytest.fixture
def copied(export: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(export, tmp_path / "copied"))


def header(shape: list[int], length: int) -> bytes:
    text = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, length]}})
    return struct.pack("<Q", len(text)) + text.encode() + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        header([10**15], 4 * 10**15),
        header([10**15], 8),
        struct.pack("<Q", 2**60) + bytes(8),
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04\x95" + bytes(100),
        b"",
    ],
)
def test_weights_with_a_false_header_are_refused(copied: Path, content: bytes) -> None:
    (copied / "model.safetensors").write_bytes(content)
    put(copied, lambda record: None)
    with pytest.raises(ArtefactError, match=r"Cannot read .*model\.safetensors") as caught:
        Predictor.load(copied)
    if content[:2] in (b"PK", b"\x80\x04"):
        assert "flambeau loads no pickles" in str(caught.value)


@pytest.mark.parametrize("width", [10**7, 10**15])
def test_a_model_larger_than_its_weights_is_not_allocated(copied: Path, width: int) -> None:
    def widen(record: dict[str, Any]) -> None:
        record["model"]["arguments"]["n_inputs"] = width

    put(copied, widen)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # A model of the second width cannot be allocated: the message would be another.
    with pytest.raises(ArtefactError, match=rf"but the model has float32 \(256, {width}\)"):
        Predictor.load(copied)
    # The first would take 10 GB; ru_maxrss is in KB on Linux.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**6


def test_other_files_and_paths_outside_are_ignored(copied: Path) -> None:
    (copied / "evil.py").write_text("raise SystemExit")
    (copied / "model.pkl").write_bytes(b"\x80\x04cos\nsystem\n")
    put(copied, lambda record: record["sha256"].update({"../../etc/passwd": "0"}))
    assert load_and_predict(copied)


def test_the_checksum_of_a_symbolic_link_is_verified(copied: Path, tmp_path: Path) -> None:
    target = tmp_path / "blob"
    (copied / "model.safetensors").rename(target)
    (copied / "model.safetensors").symlink_to(target)
    assert load_and_predict(copied)
    target.write_bytes(target.read_bytes() + b"x")
    with pytest.raises(ArtefactError, match="damaged or was replaced"):
        Predictor.load(copied)
    target.unlink()
    with pytest.raises(ArtefactError, match="Cannot read"):
        Predictor.load(copied)


def test_a_folder_in_place_of_a_file_is_refused(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors").mkdir()
    with pytest.raises(ArtefactError, match="not a regular file"):
        Predictor.load(copied)


def test_a_file_of_torch_save_is_named_as_such(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pth")
    with pytest.raises(ArtefactError, match=r"torch\.load\(path, weights_only=True\)"):
        learner().load(tmp_path / "weights.pth")
