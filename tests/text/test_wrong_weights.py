"""Weights and adapters that do not belong to the model to which they are given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau.errors import ArgumentError, FlambeauWarning, InputError
from flambeau_text.huggingface import CausalLM, LoRA

PEFT_WARNS = "ignore:.is_gradient_checkpointing:FutureWarning"  # PEFT 0.21 with transformers 5.24
pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)
TOKENS = torch.tensor([[7, 8, 9, 10, 11]])


@pytest.fixture(scope="module")
def base(pretrained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.save_model(tmp_path_factory.mktemp("models") / "base", "llama")


def adapted(base: Path, folder: Path, **options: Any) -> CausalLM:
    """A model whose adapters were changed and saved."""
    settings = LoRA(rank=2, targets=options.pop("targets", "all-linear"))
    model = CausalLM.from_hf(base, adapter=settings, **options)
    torch.manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.3 * torch.randn_like(value))
    model.save_adapter(folder)
    return model.eval()


def test_a_folder_without_all_weights_is_refused(
    pretrained: Any, base: Path, tmp_path: Path
) -> None:
    import safetensors.torch
    import transformers

    tokens = pretrained.tokenizer()
    config = pretrained.config_of("llama", len(tokens))
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "classifier")
    tokens.save_pretrained(tmp_path / "classifier")
    with pytest.raises(InputError, match=r"1 are missing .*lm_head\.weight.*not that of a class"):
        CausalLM.from_hf(tmp_path / "classifier")
    folder = shutil.copytree(base, tmp_path / "base")
    values = safetensors.torch.load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    rest = {each: value for each, value in values.items() if each != name}
    safetensors.torch.save_file(rest, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"1 are missing .*{name}"):
        CausalLM.from_hf(folder)


def test_weights_without_a_place_are_named(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "layer_types": None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(FlambeauWarning, match=r"unused-weights.*model\.layers\.1\."):
        CausalLM.from_hf(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 64}, "belongs to another model"),
        ({"num_hidden_layers": 3}, "it lacks 4 weights"),
        ({"num_hidden_layers": 1}, "no layer for 4 of its weights"),
    ],
)
def test_an_adapter_of_another_network_is_refused(
    pretrained: Any, base: Path, tmp_path: Path, changes: dict[str, int], words: str
) -> None:
    adapted(base, tmp_path / "adapter", targets=("q_proj", "v_proj"))
    (tmp_path / "adapter" / "flambeau_base.json").unlink()  # as PEFT writes it
    other = pretrained.save_model(tmp_path / "other", "llama", **changes)
    with pytest.raises(InputError, match=words):
        CausalLM.from_hf(other, adapter=tmp_path / "adapter")


def test_an_adapter_of_a_network_with_other_weights_is_refused(base: Path, tmp_path: Path) -> None:
    import safetensors.torch

    model = adapted(base, tmp_path / "adapter")
    wanted = model(TOKENS)[0]
    again = CausalLM.from_hf(base, adapter=tmp_path / "adapter").eval()
    torch.testing.assert_close(again(TOKENS)[0], wanted, rtol=0, atol=1e-6)
    assert again.base == model.base is not None
    other = shutil.copytree(base, tmp_path / "other")
    values = safetensors.torch.load_file(other / "model.safetensors")
    values["model.norm.weight"] = values["model.norm.weight"] * 1.01
    safetensors.torch.save_file(values, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="weights differ from those with which it was trained"):
        CausalLM.from_hf(other, adapter=tmp_path / "adapter")
    # Rounded weights are those of the same model.
    CausalLM.from_hf(base, adapter=tmp_path / "adapter", dtype=torch.bfloat16)
    (tmp_path / "adapter" / "flambeau_base.json").unlink()
    CausalLM.from_hf(other, adapter=tmp_path / "adapter")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_tokens_of_an_adapter_are_added_again(
    pretrained: Any, tmp_path: Path, kind: str
) -> None:
    base = pretrained.save_model(tmp_path / "base", kind)
    model = adapted(base, tmp_path / "adapter", tokens=("<tool>", "<result>"))
    n = len(model.tokenizer)  # type: ignore[arg-type]
    tokens = torch.tensor([[7, n - 1, 9, n - 2]])
    for options in ({}, {"tokens": ("<tool>", "<result>")}):
        again = CausalLM.from_hf(base, adapter=tmp_path / "adapter", **options).eval()
        assert again.tokenizer.tokenize("<tool><result>") == ["<tool>", "<result>"]  # type: ignore[union-attr]
        torch.testing.assert_close(again(tokens)[0], model(tokens)[0], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"added tokens <tool>, <result>, but.*Omit tokens"):
        CausalLM.from_hf(base, adapter=tmp_path / "adapter", tokens=("<result>", "<tool>"))


def test_tokens_beside_an_adapter_without_them_are_refused(base: Path, tmp_path: Path) -> None:
    adapted(base, tmp_path / "adapter", targets=("q_proj",))
    with pytest.raises(
        InputError, match=r"without added tokens.*\['<tool>'\] would never be trained"
    ):
        CausalLM.from_hf(base, adapter=tmp_path / "adapter", tokens=["<tool>"])
    (tmp_path / "adapter" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="without added tokens"):
        CausalLM.from_hf(base, adapter=tmp_path / "adapter", tokens=["<tool>"])
    # PEFT writes no tokenizer, but the rows of the tokens.
    adapted(base, tmp_path / "rows", targets=("q_proj",), tokens=["<tool>"])
    (tmp_path / "rows" / "tokenizer.json").unlink()
    found = CausalLM.from_hf(base, adapter=tmp_path / "rows", tokens=["<tool>"])
    assert found.tokenizer.tokenize("<tool>") == ["<tool>"]  # type: ignore[union-attr]
    with pytest.raises(ArgumentError, match=r"tokens='<tool>' is one text.*tokens=\['<tool>'\]"):
        CausalLM.from_hf(base, tokens="<tool>")


@pytest.mark.parametrize(
    "settings", [{"alpha": "16"}, {"alpha": float("nan")}, {"dropout": "0.1"}, {"dropout": True}]
)
def test_settings_of_adapters_must_be_numbers(settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(settings))}=.* is invalid"):
        LoRA(**settings)
