"""A folder of a pretrained decoder in the options of the data, also on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from flambeau import Learner, Plan, Predictor
from flambeau.cli.app import build_app
from flambeau.domain import recognise_domain
from flambeau.errors import ArgumentError, FlambeauError, InputError, PlanError
from flambeau_text import (
    CausalLM,
    InstructionData,
    InstructionOptions,
    LanguageModelData,
    LanguageOptions,
)
from flambeau_text.language.path_data import PathData
from flambeau_text.language.recipes import MAX_EPOCHS

SUMS = [(a, b) for a in range(5) for b in range(4)]
RECORDS = [{"prompt": f"{a} + {b} = ", "completion": str(a + b)} for a, b in SUMS]
FAST: dict[str, Any] = {
    "probe": "off", "device": "cpu", "precision": "fp32", "num_threads": 1, "row_length": 48,
    "batch_size": 4,
}  # fmt: skip
PEFT_WARNS = "ignore:.is_gradient_checkpointing:FutureWarning"  # PEFT 0.21 with transformers 5.24


@pytest.fixture(scope="module")
def folder(pretrained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.save_model(tmp_path_factory.mktemp("decoders") / "llama", "llama")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "sums.jsonl"
    found.write_text("\n".join(map(json.dumps, RECORDS)))
    return found


def test_the_model_is_that_of_from_hf(folder: Path, tmp_path: Path) -> None:
    options = InstructionOptions(language_model=folder)
    data = InstructionData.from_records(RECORDS, options, valid=4)
    learner = Learner(data, choices=FAST, seed=0, quiet=True)
    model: Any = learner.model
    assert learner.plan.values["architecture"] == "causal_lm"
    assert learner.plan.values["weights"] == str(folder.resolve())
    assert learner.plan.values["lr"] == 2e-5
    given = CausalLM.from_hf(folder)
    wanted = dict(given.named_parameters())
    for name, value in model.named_parameters():
        assert torch.equal(value, wanted[name])
    as_object = InstructionData.from_records(RECORDS, InstructionOptions(given.tokenizer), valid=4)
    other = Learner(as_object, given, choices=FAST, seed=0, quiet=True)
    assert learner.evaluate("valid")["loss"] == pytest.approx(other.evaluate("valid")["loss"])
    learner.fit(1, lr=1e-3)
    expected = learner.predict("2 + 2 = ").text
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    assert predictor.predict("2 + 2 = ").text == expected
    model.save_hf(tmp_path / "saved")
    assert CausalLM.from_hf(tmp_path / "saved").tokenizer is not None


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_adapters_alone_are_trained_by_name(folder: Path, tmp_path: Path) -> None:
    texts = [f"The sum of {a} and {b} is {a + b}." for a, b in SUMS]
    options = LanguageOptions(language_model=folder)
    data = LanguageModelData.from_texts(texts, valid=4, options=options)
    choices = {**FAST, "model_config": {"rank": 2}}
    learner = Learner(data, "causal_lm_lora", choices=choices, seed=0, quiet=True)
    assert learner.plan.values["layout"] == "packed"
    assert learner.plan.values["normalization"] == "none"
    assert learner.plan.values["lr"] == 2e-4
    trained = [name for name, each in learner.model.named_parameters() if each.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    learner.fit(1)
    plan = Plan.from_json(learner.plan.to_json())
    again = Learner(data, plan=plan, seed=0, quiet=True)
    assert sum(each.requires_grad for each in again.model.parameters()) == len(trained)
    before = learner.evaluate("valid")["loss"]
    predictor = Predictor.load(learner.export(tmp_path / "model"))
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, learner.model.state_dict()[name])
    assert before > 0
    with pytest.raises(PlanError, match="has no setting 'rank'"):
        Learner(data, choices=choices, quiet=True)


def test_random_weights_train_longer_than_fine_tuning(folder: Path) -> None:
    texts = [f"The sum of {a} and {b} is {a + b}." for a, b in SUMS]
    options = LanguageOptions(language_model=folder)
    data = LanguageModelData.from_texts(texts, valid=4, options=options)
    choices: dict[str, Any] = {"weights": None, "row_length": 16, "batch_size": 1}
    plan = Learner(data, choices={**FAST, **choices}, quiet=True).plan
    assert plan["lr"].value == 1e-3
    assert plan["epochs"].value == MAX_EPOCHS
    # 16 texts, each of about 10 tokens, in rows of 16
    assert 7 <= plan["epochs"].evidence["steps_per_epoch"] <= 14
    for key in ("epochs", "lr"):
        assert "fine-tuning" not in plan[key].reason


def test_rows_are_at_most_as_long_as_the_model_reads(folder: Path) -> None:
    data = InstructionData.from_records(RECORDS, InstructionOptions(language_model=folder))
    plan = Learner(data, quiet=True).plan
    assert plan.values["row_length"] == 128
    assert "reads at most 128" in plan["row_length"].reason


# ---------------------------------------------------------------- command line


def test_instruction_data_are_recognised_with_a_line_of_the_plan(folder: Path, file: Path) -> None:
    assert recognise_domain(file, {}).name == "language"
    data = PathData.from_path(file, {"language_model": str(folder), "valid": "4"})
    assert isinstance(data, InstructionData)
    choice = Learner(data, quiet=True).plan["task"]
    assert "The first 20 records of sums.jsonl have prompt and completion" in choice.reason
    assert choice.evidence["records"] == 20
    assert "--text FIELD" in choice.override
    plain = PathData.from_path(file, {"text": "prompt", "tokenizer": "character"})
    assert isinstance(plain, LanguageModelData)
    assert plain.raw("train")[0].startswith("0 + ")


def test_conversations_and_named_fields_are_read(folder: Path, tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    messages = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]
    chats.write_text("\n".join([json.dumps({"messages": messages})] * 6))
    assert recognise_domain(chats, {}).name == "language"
    named = tmp_path / "named.csv"
    named.write_text("question,answer\n" + "1 + 1,2\n2 + 2,4\n" * 4)
    options = {"language_model": folder, "prompt": "question", "completion": "answer"}
    data = PathData.from_path(named, options)
    assert isinstance(data, InstructionData)
    assert len(data.samples) == 8
    with pytest.raises(ArgumentError, match="language_model=FOLDER"):
        PathData.from_path(chats, {})
    with pytest.raises(ArgumentError, match="Unknown option 'bptt' for prompts"):
        PathData.from_path(chats, {"bptt": 3, "language_model": folder})


def test_running_text_is_not_recognised_as_instructions(tmp_path: Path) -> None:
    for name, record in (("a", {"text": "a b c"}), ("b", {"prompt": "a"}), ("c", ["prompt"]),
                         ("d", {"messages": "none"})):  # fmt: skip
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join([json.dumps(record)] * 4))
        with pytest.raises(FlambeauError):
            PathData.from_path(file, {"text": "nothing"})
        assert not _is_sure(file)


def _is_sure(file: Path) -> bool:
    from flambeau_text.language.domain import recognise

    found = recognise(file, {})
    return found is not None and found.certainty == "sure"


def test_a_model_is_tuned_on_the_command_line(folder: Path, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["fit", file, "--language-model", folder, "--valid", "4", "--epochs", "1", "--out", out]
    words += ["--set", "row_length=48", "--set", "probe=off", "--lr", "0.001"]
    found = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert found.exit_code == 0, found.output
    assert "have prompt and completion" in found.output
    assert (out / "model" / "flambeau.json").is_file()
    words = ["evaluate", out / "model", file, "--json"]
    found = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert found.exit_code == 0, found.output
    scores = json.loads(found.output[found.output.index("{") :])
    assert scores["samples"] == 20
    assert scores["perplexity"] > 1


# ---------------------------------------------------------------- invalid folders


def test_folders_that_cannot_be_used_are_explained(
    folder: Path, pretrained: Any, tmp_path: Path
) -> None:
    source = shutil.copytree(folder, tmp_path / "source")
    (source / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"source lacks model\.safetensors"):
        LanguageOptions(language_model=source)
    encoder = pretrained.save_encoder(tmp_path / "bert", "bert")
    for options in (LanguageOptions, InstructionOptions):
        with pytest.raises(InputError, match="'bert', which is no decoder"):
            options(language_model=encoder)
        with pytest.raises(InputError, match="There is no folder"):
            options(language_model=tmp_path / "nowhere")
    with pytest.raises(InputError, match="tokenizer='bpe' cannot be combined"):
        LanguageOptions(language_model=folder, tokenizer="bpe")
    tokenizer = CausalLM.from_hf(folder).tokenizer
    assert tokenizer is not None
    with pytest.raises(ArgumentError, match="Omit tokenizer"):
        InstructionOptions(tokenizer, language_model=folder)
    data = LanguageModelData.from_texts(["a b"] * 4, valid=1)
    with pytest.raises(PlanError, match=r"LanguageOptions\(language_model="):
        Learner(data, str(folder))


def test_an_export_is_started_from_instead(folder: Path, tmp_path: Path) -> None:
    texts = [f"{a} and {a}" for a in range(30)]
    options = LanguageOptions(tokenizer="character")
    data = LanguageModelData.from_texts(texts, valid=4, options=options)
    sizes = {"embedding_dim": 4, "hidden_size": 4, "num_layers": 1}
    export = Learner(data, choices={"model_config": sizes}, quiet=True).export(tmp_path / "export")
    with pytest.raises(InputError, match="is an export of flambeau, which is trained further with"):
        LanguageOptions(language_model=export)
