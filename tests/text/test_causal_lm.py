"""Pretrained models against transformers and PEFT; all models are tiny and random."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import Batch, Callback, Learner, Predictor
from flambeau.errors import ArgumentError, ArtefactError, InputError, MissingDependencyError
from flambeau.task.task import StepContext
from flambeau_text import LanguageModelData, LanguageOptions
from flambeau_text.decoding import Greedy, Sampling
from flambeau_text.huggingface import CausalLM, LoRA
from flambeau_text.language.generate import StopRule, generate
from flambeau_text.language.stream import NEXT, TOKENS
from flambeau_text.language.task import LanguageModelTask
from flambeau_text.models.packing import DOCUMENTS
from flambeau_text.tokenization import HFTokenizer

TEXTS = [
    f"The {colour} {animal} sees {n} {fruit}.\nIt eats {n} of them."
    for colour in ("red", "green", "blue")
    for animal in ("dog", "cat", "bird")
    for n, fruit in ((2, "apples"), (7, "pears"))
]
PEFT_WARNS = "ignore:.is_gradient_checkpointing:FutureWarning"  # PEFT 0.21 with transformers 5.24
TOLERANCE: dict[str, float] = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def folder(
    request: pytest.FixtureRequest, pretrained: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return pretrained.save_model(tmp_path_factory.mktemp("models"), request.param)


@pytest.fixture(scope="module")
def llama(pretrained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.save_model(tmp_path_factory.mktemp("models"), "llama")


def reference(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


def documents(model: CausalLM) -> list[Tensor]:
    special = model.tokenizer.special  # type: ignore[union-attr]
    ids = model.tokenizer.encode_batch(TEXTS[:7])  # type: ignore[union-attr]
    return [
        torch.tensor([special.start, *each[: 3 + 4 * at], special.end])
        for at, each in enumerate(ids)
    ]


def alone(each: Tensor) -> Batch:
    mask = torch.ones(1, len(each) - 1, dtype=torch.bool)
    of_task = {DOCUMENTS: mask.long()}
    inputs, targets = {TOKENS: each[None, :-1]}, {NEXT: each[None, 1:]}
    return Batch(inputs, targets, {TOKENS: mask}, task_inputs=of_task)


def packed(rows: list[list[Tensor]], *, left: bool, padding: int) -> Batch:
    longest = max(sum(len(each) - 1 for each in row) for row in rows)
    read, wanted = (torch.full((len(rows), longest), padding) for _ in range(2))
    numbers = torch.zeros(len(rows), longest, dtype=torch.int64)
    for index, row in enumerate(rows):
        at = longest - sum(len(each) - 1 for each in row) if left else 0
        for number, each in enumerate(row, start=1):
            part = index, slice(at, at := at + len(each) - 1)
            read[part], wanted[part], numbers[part] = each[:-1], each[1:], number
    of_task, mask = {DOCUMENTS: numbers}, {TOKENS: numbers > 0}
    return Batch({TOKENS: read}, {NEXT: wanted}, mask, task_inputs=of_task)


def task_of(model: CausalLM) -> LanguageModelTask:
    assert model.tokenizer is not None
    return LanguageModelTask(tokenizer=model.tokenizer)


def loss_and_gradients(model: CausalLM, batches: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    fresh = copy.deepcopy(model)
    task, total = task_of(model), torch.zeros((), dtype=next(fresh.parameters()).dtype)
    for batch in batches:
        total = total + task.loss(task.forward(fresh, batch, StepContext()), batch)[0]
    (total / sum(int(batch.masks[TOKENS].sum()) for batch in batches)).backward()
    found = {name: value.grad for name, value in fresh.named_parameters() if value.grad is not None}
    return total.detach(), found


# ---------------------------------------------------------------- loss


def test_the_loss_equals_that_of_transformers(folder: Path) -> None:
    # In fp64, so that sums in another order do not decide; transformers computes norms and its loss
    # in fp32 nevertheless.
    model, other = CausalLM.from_hf(folder).double(), reference(folder).double()
    for each in documents(model):
        total, gradients = loss_and_gradients(model, [alone(each)])
        other.zero_grad()
        answer = other(input_ids=each[None], labels=each[None])
        found = (total / (len(each) - 1)).to(answer.loss.dtype)
        torch.testing.assert_close(found, answer.loss.detach(), rtol=1e-6, atol=0)
        F.cross_entropy(answer.logits[0, :-1], each[1:]).backward()
        wanted = {f"network.{name}": value.grad for name, value in other.named_parameters()}
        assert gradients.keys() == wanted.keys()
        for name, value in gradients.items():
            torch.testing.assert_close(value, wanted[name], **TOLERANCE)


@pytest.mark.parametrize("left", [False, True])
def test_packed_equals_unpacked(folder: Path, left: bool) -> None:
    model = CausalLM.from_hf(folder)
    each = documents(model)
    rows = [each[:4], each[4:5], each[5:]]
    together = packed(rows, left=left, padding=model.tokenizer.special.padding)  # type: ignore[union-attr]
    one, its = loss_and_gradients(model, [together])
    other, wanted = loss_and_gradients(model, [alone(document) for document in each])
    count = sum(len(document) - 1 for document in each)
    torch.testing.assert_close(one / count, other / count, **TOLERANCE)
    assert its.keys() == wanted.keys() == dict(model.named_parameters()).keys()
    for name, value in its.items():
        torch.testing.assert_close(value, wanted[name], **TOLERANCE)


def test_an_end_token_that_is_also_the_padding_is_learned(pretrained: Any, tmp_path: Path) -> None:
    model = CausalLM.from_hf(pretrained.save_model(tmp_path, "llama", padding=None))
    special = model.tokenizer.special  # type: ignore[union-attr]
    assert special.padding == special.end not in special.never
    each = documents(model)[:3]
    together = packed([each[:2], each[2:]], left=False, padding=special.padding)
    total, _ = loss_and_gradients(model, [together])
    other, wanted = reference(tmp_path), 0.0
    for document in each:
        loss = other(input_ids=document[None], labels=document[None]).loss
        wanted += float(loss.detach()) * (len(document) - 1)
    assert float(total) == pytest.approx(wanted, abs=1e-4)
    assert int(together.masks[TOKENS].sum()) == sum(len(document) - 1 for document in each)


def test_networks_that_change_their_logits_are_refused(pretrained: Any) -> None:
    network = pretrained.network("llama", 60)
    forward = type(network).forward

    class Capped(type(network)):  # type: ignore[misc]
        def forward(self, *args: Any, **arguments: Any) -> Any:
            found = forward(self, *args, **arguments)
            found.logits = 5 * torch.tanh(found.logits / 5)
            return found

    network.__class__ = Capped
    with pytest.raises(InputError, match="changes its logits after the output layer"):
        CausalLM(network)


def test_networks_that_ignore_the_mask_are_refused(pretrained: Any) -> None:
    network = pretrained.network("llama", 60)
    forward = network.model.forward

    def unmasked(*args: Any, **arguments: Any) -> Any:
        return forward(*args, **{**arguments, "attention_mask": None, "position_ids": None})

    network.model.forward = unmasked
    with pytest.raises(InputError, match="does not obey a mask of attention"):
        CausalLM(network)


def test_rows_longer_than_the_window_are_refused(pretrained: Any, tmp_path: Path) -> None:
    windowed = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    model = CausalLM.from_hf(pretrained.save_model(tmp_path, "qwen2", **windowed))
    tokens = torch.full((1, 9), 7)
    model.packed_features(tokens[:, :8], torch.ones(1, 8, dtype=torch.int64))
    with pytest.raises(InputError, match="window of 8 tokens"):
        model.packed_features(tokens, torch.ones(1, 9, dtype=torch.int64))


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_changes_no_logit(folder: Path, dora: bool) -> None:
    plain = CausalLM.from_hf(folder).eval()
    adapted = CausalLM.from_hf(folder, adapter=LoRA(rank=4, dora=dora)).eval()
    tokens = documents(plain)[-1][None]
    # DoRA divides by a norm and multiplies by it again.
    tolerance = 1e-5 if dora else 0.0
    torch.testing.assert_close(adapted(tokens)[0], plain(tokens)[0], rtol=0, atol=tolerance)
    names = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert names
    assert all("lora_" in name for name in names)


def test_every_linear_layer_but_the_output_gets_an_adapter(llama: Path) -> None:
    model = CausalLM.from_hf(llama, adapter=LoRA(rank=2))
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    ends = {name.rpartition(".")[2] for name in adapted}
    assert ends == {*("q_proj", "k_proj", "v_proj", "o_proj"), "gate_proj", "up_proj", "down_proj"}
    assert len(adapted) == 2 * 7


def trained_adapter(folder: Path, *, dora: bool = False, **options: Any) -> CausalLM:
    model = CausalLM.from_hf(folder, adapter=LoRA(rank=4, alpha=6.0, dora=dora), **options)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.filterwarnings(PEFT_WARNS)
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_are_exchanged_with_peft(folder: Path, dora: bool, tmp_path: Path) -> None:
    import peft

    model = trained_adapter(folder, dora=dora)
    tokens = documents(model)[-1][None]
    wanted = model(tokens)[0]
    assert not torch.allclose(wanted, CausalLM.from_hf(folder).eval()(tokens)[0], atol=1e-2)
    saved = model.save_adapter(tmp_path / "ours")
    assert (saved / "adapter_model.safetensors").stat().st_size < 200_000
    theirs = peft.PeftModel.from_pretrained(reference(folder), str(saved)).eval()
    torch.testing.assert_close(theirs(input_ids=tokens).logits, wanted, rtol=0, atol=1e-5)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    again = CausalLM.from_hf(folder, adapter=tmp_path / "theirs").eval()
    torch.testing.assert_close(again(tokens)[0], wanted, rtol=0, atol=1e-5)
    assert again.adapter.dora == dora  # type: ignore[union-attr]
    assert any(value.requires_grad for value in again.parameters())


@pytest.mark.parametrize("dora", [False, True])
def test_merged_equals_unmerged(folder: Path, dora: bool, tmp_path: Path) -> None:
    model = trained_adapter(folder, dora=dora)
    tokens = documents(model)[-1][None]
    wanted = model(tokens)[0]
    merged = model.merged()
    torch.testing.assert_close(merged(tokens)[0], wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(model(tokens)[0], wanted, rtol=0, atol=0)  # it is unchanged
    model.save_hf(tmp_path / "merged")
    other = reference(tmp_path / "merged").eval()
    torch.testing.assert_close(other(input_ids=tokens).logits, wanted, rtol=0, atol=1e-4)
    assert not any("lora" in name for name, _ in other.named_parameters())


def test_adapters_that_are_not_finite_are_not_saved(llama: Path, tmp_path: Path) -> None:
    model = trained_adapter(llama)
    next(value for value in model.parameters() if value.requires_grad).data[0, 0] = torch.nan
    for save in (model.save_adapter, model.save_hf):
        with pytest.raises(ArtefactError, match="not finite"):
            save(tmp_path / "saved")
        assert not (tmp_path / "saved").exists()


def test_an_adapter_of_another_kind_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no adapter_config\.json"):
        CausalLM.from_hf(llama, adapter=tmp_path)
    with pytest.raises(ArgumentError, match="cannot be added"):
        CausalLM.from_hf(llama, adapter=LoRA(targets=("no_such_layer",)))


# ---------------------------------------------------------------- added tokens


def test_added_tokens_start_at_the_mean_and_keep_ties(folder: Path) -> None:
    plain = CausalLM.from_hf(folder)
    model = CausalLM.from_hf(folder, tokens=("<tool>", "<think>"))
    assert model.tokenizer is not None
    assert plain.tokenizer is not None
    n = len(plain.tokenizer)
    assert model.tokenizer.encode("a<tool>b") == [
        *plain.tokenizer.encode("a"),
        n,
        *plain.tokenizer.encode("b"),
    ]
    embedding, head = model.causal.get_input_embeddings(), model.causal.get_output_embeddings()
    assert len(embedding.weight) == len(head.weight) == n + 2
    tied = plain.output.weight is plain.causal.get_input_embeddings().weight
    assert (head.weight is embedding.weight) == tied
    for layer, before in ((embedding, plain.causal.get_input_embeddings()), (head, plain.output)):
        torch.testing.assert_close(layer.weight[:n], before.weight)
        torch.testing.assert_close(layer.weight[n + 1], before.weight.mean(0), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="already a token"):
        CausalLM.from_hf(folder, tokens=("</s>",))


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_added_tokens_are_trained_beside_adapters(folder: Path, tmp_path: Path) -> None:
    import peft

    model = trained_adapter(folder, tokens=("<tool>",))
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert any("token" in name for name in trained)
    assert model.tokenizer is not None
    tokens = torch.tensor([model.tokenizer.encode("The<tool> dog")])
    wanted = model(tokens)[0]
    torch.testing.assert_close(model.merged()(tokens)[0], wanted, rtol=0, atol=1e-4)
    model.save_adapter(tmp_path)
    base = reference(folder)
    base.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)
    fresh = CausalLM.from_hf(folder, tokens=("<tool>",)).causal.state_dict()
    base.load_state_dict(fresh)
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(theirs(input_ids=tokens).logits, wanted, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- generation


def prompts(model: CausalLM) -> tuple[Tensor, Tensor]:
    assert model.tokenizer is not None
    special = model.tokenizer.special
    rows = [
        [special.start, *ids] for ids in model.tokenizer.encode_batch(["The", "The red dog", ""])
    ]
    longest = max(map(len, rows))
    tokens = torch.full((len(rows), longest), special.padding)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    lengths = torch.tensor([len(ids) for ids in rows])
    return tokens, torch.arange(longest) < lengths.unsqueeze(1)


@pytest.mark.parametrize("strategy", [Greedy(), Sampling(temperature=0.9, top_p=0.9, seed=3)])
def test_left_padded_generation_equals_single(folder: Path, strategy: Greedy | Sampling) -> None:
    model = CausalLM.from_hf(folder).eval()
    tokens, mask = prompts(model)
    special = model.tokenizer.special  # type: ignore[union-attr]
    together = generate(model, tokens, mask, 12, strategy, special=special)
    for row in range(len(tokens)):
        n = int(mask[row].sum())
        key = torch.tensor([row])
        single = generate(
            model,
            tokens[row : row + 1, :n],
            mask[row : row + 1, :n],
            12,
            strategy,
            key,
            special=special,
        )
        assert together.tokens[row].tolist() == single.tokens[0].tolist()
        torch.testing.assert_close(together.log_probs[row], single.log_probs[0], rtol=0, atol=1e-5)


def test_cached_equals_uncached(folder: Path) -> None:
    model = CausalLM.from_hf(folder).eval()
    tokens, mask = prompts(model)
    special = model.tokenizer.special  # type: ignore[union-attr]
    found = generate(model, tokens, mask, 10, Greedy(), special=special)
    other = reference(folder).eval()
    for row in range(len(tokens)):
        ids = tokens[row][mask[row]].tolist()
        for position in range(10):
            with torch.no_grad():
                logits = other(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            logits[list(special.never)] = -torch.inf
            assert int(logits.argmax()) == int(found.tokens[row, position])
            ids.append(int(logits.argmax()))


def test_generation_stops_at_a_token_and_pads_the_row(llama: Path) -> None:
    model = CausalLM.from_hf(llama).eval()
    tokens, mask = prompts(model)
    special = model.tokenizer.special  # type: ignore[union-attr]
    free = generate(model, tokens, mask, 8, Greedy(), special=special)
    stop = int(free.tokens[0, 3])
    found = generate(model, tokens, mask, 8, Greedy(), special=special, stop=StopRule((stop,)))
    for row in range(len(tokens)):
        whole = free.tokens[row].tolist()
        n = whole.index(stop) + 1 if stop in whole else 8
        assert int(found.lengths[row]) == n
        assert found.tokens[row].tolist() == [*whole[:n], *[special.padding] * (8 - n)]
        assert not found.log_probs[row, n:].any()


def test_more_tokens_than_positions_are_refused(llama: Path) -> None:
    model = CausalLM.from_hf(llama).eval()
    tokens, mask = prompts(model)
    with pytest.raises(InputError, match="only 128 positions"):
        generate(model, tokens, mask, 127, Greedy(), special=model.tokenizer.special)  # type: ignore[union-attr]


# ---------------------------------------------------------------- the learner


def data_for(model: CausalLM, n: int = len(TEXTS)) -> LanguageModelData:
    options = LanguageOptions(tokenizer=model.tokenizer)
    return LanguageModelData.from_texts(TEXTS[:n], valid=TEXTS[:4], options=options)


def learner_for(
    model: CausalLM, callbacks: Any = (), folder: Path | None = None, **choices: Any
) -> Learner:
    torch.manual_seed(0)
    given = {"row_length": 64, "batch_size": 2, "lr": 5e-3, "keep_best": None, **choices}
    more: dict[str, Any] = {"callbacks": list(callbacks), "folder": folder}
    return Learner(data_for(model), model, seed=0, quiet=True, choices=given, **more)


def test_the_plan_says_that_a_module_has_its_weights(llama: Path) -> None:
    plan = learner_for(CausalLM.from_hf(llama)).plan
    assert plan["weights"].value is None
    assert plan["weights"].reason == "Your module already has its weights."


@pytest.mark.parametrize("adapter", [None, LoRA(rank=4)])
def test_a_learner_trains_and_an_export_predicts_the_same(
    llama: Path, tmp_path: Path, adapter: LoRA | None
) -> None:
    model = CausalLM.from_hf(llama, adapter=adapter)
    frozen = {n: v.clone() for n, v in model.named_parameters() if not v.requires_grad}
    learner = learner_for(model)
    assert learner.plan.values["layout"] == "packed"
    assert learner.plan.values["architecture"] == model.builder
    before = learner.evaluate("valid")["loss"]
    learner.fit(3)
    assert learner.evaluate("valid")["loss"] < before - 0.5
    for name, value in model.named_parameters():
        if name in frozen:
            assert torch.equal(value, frozen[name])
    path = learner.export(tmp_path / "export")
    loaded = Predictor.load(path)
    assert type(loaded.model) is CausalLM
    texts = ["The red dog", "The"]
    assert [str(each) for each in loaded.predict(texts)] == [
        str(each) for each in learner.predict(texts)
    ]


def test_evaluation_counts_all_bytes(llama: Path) -> None:
    model = CausalLM.from_hf(llama)
    learner = learner_for(model, row_length=128)
    scores, other, total = learner.evaluate("valid"), reference(llama), 0.0
    special = model.tokenizer.special  # type: ignore[union-attr]
    for text in TEXTS[:4]:
        ids = torch.tensor([[special.start, *model.tokenizer.encode(text), special.end]])  # type: ignore[union-attr]
        total += float(other(input_ids=ids, labels=ids).loss.detach()) * (ids.shape[1] - 1)
    n_bytes = sum(len(text) + 1 for text in TEXTS[:4])
    assert scores["bits_per_byte"] == pytest.approx(total / 0.69314718 / n_bytes, abs=1e-5)


def test_accumulated_steps_equal_one_step_over_all_tokens(llama: Path) -> None:
    each = []
    for batch_size, accumulate in ((4, 1), (1, 4)):
        learner = learner_for(CausalLM.from_hf(llama), batch_size=batch_size, accumulate=accumulate)
        learner.fit(steps=2)
        each.append([value.clone() for value in learner.model.parameters()])
    assert not torch.equal(each[0][0], next(CausalLM.from_hf(llama).parameters()))
    for one, other in zip(*each, strict=True):
        # AdamW divides by the root of the second moment, which enlarges rounding.
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4)


def test_data_with_another_tokenizer_are_refused(llama: Path) -> None:
    model = CausalLM.from_hf(llama, tokens=("<tool>",))
    for tokenizer in ("character", CausalLM.from_hf(llama).tokenizer):
        data = LanguageModelData.from_texts(
            TEXTS, valid=TEXTS[:4], options=LanguageOptions(tokenizer=tokenizer)
        )
        learner = Learner(data, model, quiet=True, choices={"row_length": 64})
        with pytest.raises(ArgumentError, match="was trained with its own, which has 310"):
            learner.evaluate("valid")


def test_a_stream_is_refused(llama: Path) -> None:
    from flambeau.errors import PlanError

    with pytest.raises(PlanError, match="carries nothing from batch to batch"):
        learner_for(CausalLM.from_hf(llama), layout="stream")


# ---------------------------------------------------------------- tokenizer and folder


def test_the_tokenizer_equals_that_of_transformers(folder: Path) -> None:
    import transformers

    own = HFTokenizer.from_folder(folder)
    other = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for text in (*TEXTS, "naïve 日本 \n\n x", ""):
        assert own.encode(text) == other(text, add_special_tokens=False).input_ids
        assert own.decode(own.encode(text)) == text
    assert own.special.end == other.eos_token_id
    assert own.special.start == other.bos_token_id


def test_special_tokens_written_in_a_text_are_text(llama: Path) -> None:
    own = HFTokenizer.from_folder(llama)
    ids = own.encode("a </s> b <s> <pad> <|user|>")
    assert not set(ids) & {own.special.end, own.special.start, own.special.padding}
    assert own.decode(ids) == "a </s> b <s> <pad> <|user|>"


def test_a_tokenizer_without_begin_starts_with_its_end(pretrained: Any, tmp_path: Path) -> None:
    own = HFTokenizer.from_folder(pretrained.save_model(tmp_path, "gpt2", begin=None, padding=None))
    assert own.special.start == own.special.end == own.special.padding
    assert own.special.never == ()
    assert own.decode([own.special.start, *own.encode("ab"), own.special.end, 9]) == "ab"


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", r"lacks config\.json"),
        ("model.safetensors", r"lacks model\.safetensors"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_a_folder_with_a_missing_file_is_refused(
    pretrained: Any, tmp_path: Path, missing: str, words: str
) -> None:
    pretrained.save_model(tmp_path / "m", "llama")
    (tmp_path / "m" / missing).unlink()
    with pytest.raises(InputError, match=words):
        CausalLM.from_hf(tmp_path / "m")


def test_weights_of_another_vocabulary_are_refused(
    pretrained: Any, tmp_path: Path, llama: Path
) -> None:
    network = pretrained.network("llama", 60)
    network.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((llama / name).read_bytes())
    with pytest.raises(InputError, match="belong to different models"):
        CausalLM.from_hf(tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        CausalLM.from_hf(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["transformers", "peft"])
def test_a_missing_library_is_named(
    llama: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"the package {name}.*flambeau-text\[hf\]"):
        CausalLM.from_hf(llama, adapter=LoRA(rank=2))


def test_the_json_values_restore_the_tokenizer(llama: Path) -> None:
    import json

    from flambeau_text.tokenization import tokenizer_from_json

    own = HFTokenizer.from_folder(llama)
    again = tokenizer_from_json(json.loads(json.dumps(own.as_json())))
    assert isinstance(again, HFTokenizer)
    assert again.encode(TEXTS[0]) == own.encode(TEXTS[0])
    assert (again.special, again.stop, again.chat_template) == (
        own.special,
        own.stop,
        own.chat_template,
    )


def test_layer_groups_go_from_embedding_to_output(folder: Path) -> None:
    model = CausalLM.from_hf(folder)
    groups = model.layer_groups()
    assert list(groups) == ["embedding", "block_0", "block_1", "output"]
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert isinstance(model.output, nn.Linear)


# ---------------------------------------------------------------- resume and start


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state: object) -> None:
        if state.position.step == self.at:  # type: ignore[attr-defined]
            raise KeyboardInterrupt


@pytest.mark.parametrize("adapter", [None, LoRA(rank=4, dropout=0.1)])
def test_a_run_resumes_between_packed_rows(
    llama: Path, tmp_path: Path, adapter: LoRA | None
) -> None:
    def learner(**options: Any) -> Learner:
        torch.manual_seed(0)  # of the adapter's initial weights
        return learner_for(CausalLM.from_hf(llama, adapter=adapter), **options)

    whole = learner()
    whole.fit(2)
    stopped = learner(callbacks=[Stop(4)], folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(2)
    resumed = learner(folder=tmp_path)
    resumed.resume()
    assert len(whole.history.step_losses) == 6
    assert list(resumed.history.step_losses) == list(whole.history.step_losses)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_export_can_be_trained_further(llama: Path, tmp_path: Path) -> None:
    first = learner_for(CausalLM.from_hf(llama, adapter=LoRA(rank=4)))
    first.fit(1)
    path = first.export(tmp_path / "export")
    model = CausalLM.from_hf(llama, adapter=LoRA(rank=4))
    further = Learner(data_for(model), model, start=path, quiet=True, choices={"row_length": 64})
    for one, other in zip(first.model.parameters(), further.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ArgumentError, match="passed as an object"):
        Learner(data_for(model), start=path, quiet=True).fit(1)
