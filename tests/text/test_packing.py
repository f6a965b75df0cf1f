"""Packed rows: every document is computed as if it were alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, Learner
from flambeau.data import LoaderOptions
from flambeau.errors import ArgumentError, PlanError
from flambeau.task.task import StepContext
from flambeau_text import LanguageModelData, LanguageOptions
from flambeau_text.language.packed import PackedDataset, PackedLoader, StreamTexts
from flambeau_text.language.stream import BYTES, NEXT, TOKENS, WORDS, LineCounts, stream_of
from flambeau_text.language.task import LanguageModelTask
from flambeau_text.language.token_store import encode_in_memory
from flambeau_text.models.awd_lstm import AwdLstm
from flambeau_text.models.decoder import DecoderConfig, DecoderLM
from flambeau_text.models.packing import DOCUMENTS, Packing
from flambeau_text.tokenization import CharacterTokenizer

VOCAB = 40
LETTERS = CharacterTokenizer.fit(["abcdefghijklmnopqrstuvwxyz ABCDEFGHI"])
TOLERANCE: dict[str, float] = {"rtol": 0, "atol": 1e-6}


def decoder(**config: object) -> DecoderLM:
    torch.manual_seed(0)
    model = DecoderLM(VOCAB, DecoderConfig(depth=2, dropout=0.0, **config))  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)  # projections are 0 at first, and attention unused
    return model


def documents(n: int = 13, longest: int = 17) -> list[Tensor]:
    draws = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, longest, (n,), generator=draws).tolist()
    return [torch.randint(4, VOCAB, (length + 1,), generator=draws) for length in lengths]


def alone(each: Tensor) -> Batch:
    """A document as the only one of a batch, without padding."""
    mask = torch.ones(1, len(each) - 1, dtype=torch.bool)
    of_task = {DOCUMENTS: mask.long()}
    inputs, targets = {TOKENS: each[None, :-1]}, {NEXT: each[None, 1:]}
    return Batch(inputs, targets, {TOKENS: mask}, task_inputs=of_task)


def packed(rows: list[list[Tensor]], *, left: bool) -> Batch:
    """Documents in rows, padded on one side to the longest row."""
    longest = max(sum(len(each) - 1 for each in row) for row in rows)
    read, wanted, numbers = (torch.zeros(len(rows), longest, dtype=torch.int64) for _ in range(3))
    for index, row in enumerate(rows):
        at = longest - sum(len(each) - 1 for each in row) if left else 0
        for number, each in enumerate(row, start=1):
            part = index, slice(at, at := at + len(each) - 1)
            read[part], wanted[part], numbers[part] = each[:-1], each[1:], number
    of_task, mask = {DOCUMENTS: numbers}, {TOKENS: numbers > 0}
    return Batch({TOKENS: read}, {NEXT: wanted}, mask, task_inputs=of_task)


def loss_and_gradients(model: nn.Module, batches: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    fresh = copy.deepcopy(model)
    task = LanguageModelTask(tokenizer=LETTERS)
    total = torch.zeros(())
    for batch in batches:
        outputs = task.forward(fresh, batch, StepContext())
        total = total + task.loss(outputs, batch)[0]
    (total / sum(int(batch.masks[TOKENS].sum()) for batch in batches)).backward()
    found = {name: value.grad for name, value in fresh.named_parameters() if value.grad is not None}
    return total.detach(), found


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("window", [256, 4])
def test_packed_equals_unpacked(left: bool, window: int) -> None:
    model, each = decoder(window=window), documents()
    rows = [each[:5], each[5:6], each[6:]]
    one, its = loss_and_gradients(model, [packed(rows, left=left)])
    other, wanted = loss_and_gradients(model, [alone(document) for document in each])
    count = sum(len(document) - 1 for document in each)
    torch.testing.assert_close(one / count, other / count, **TOLERANCE)
    assert its.keys() == wanted.keys() == dict(model.named_parameters()).keys()
    for name, value in its.items():
        torch.testing.assert_close(value, wanted[name], **TOLERANCE)


def test_each_document_has_its_own_logits_in_a_row() -> None:
    model, each = decoder(), documents()
    batch = packed([each], left=True)
    found = model.output(
        model.packed_features(batch.inputs[TOKENS], batch.task_inputs[DOCUMENTS]).features
    )
    at = batch.inputs[TOKENS].shape[1] - sum(len(document) - 1 for document in each)
    for document in each:
        logits, _ = model(document[None, :-1])
        part = found[:, at : (at := at + len(document) - 1)]
        torch.testing.assert_close(part, logits, rtol=0, atol=1e-5)


def test_the_mask_and_the_positions_by_hand() -> None:
    packing = Packing.of(torch.tensor([[0, 1, 1, 2, 2, 2]]), window=2)
    assert packing.positions.tolist() == [[0, 0, 1, 0, 1, 2]]
    assert packing.mask[0, 0].long().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    last = Packing.of(torch.tensor([[0, 1, 1, 2, 2, 2]]), queries=1)
    assert (last.positions.tolist(), last.mask.tolist()) == ([[2]], [[[[False] * 3 + [True] * 3]]])


# ---------------------------------------------------------------- the loader

TEXTS = [
    "ab\ncd\n",
    "e\n",
    "fgh ij\nk\n\n",
    "lmnop\n",
    "q r s\n",
    "tuv\nw\n",
    "x\n",
    "yz a b c d\n",
]


def dataset(length: int = 8) -> PackedDataset:
    stream = stream_of(*encode_in_memory(TEXTS, LETTERS), TEXTS, LETTERS)
    return PackedDataset(StreamTexts(stream, length), length, 1, LineCounts(stream))


def loader(*, rows: int = 2, shuffle: bool = True, rank: int = 0, world: int = 1) -> PackedLoader:
    options = LoaderOptions(rows, shuffle=shuffle, seed=3, rank=rank, world_size=world)
    return PackedLoader(dataset(), options)


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_token_is_a_target_once(shuffle: bool) -> None:
    wanted: list[int] = []
    for text in TEXTS:
        for line in text.split("\n")[:-1]:
            wanted += [*LETTERS.encode(line), 3]
    for epoch in (0, 1):
        found: list[int] = []
        for batch in loader(shuffle=shuffle).batches(epoch):
            assert batch.inputs[TOKENS].shape[1] <= 8
            assert batch.weight == int(batch.masks[TOKENS].sum())
            found += batch.targets[NEXT][batch.masks[TOKENS]].tolist()
        assert sorted(found) == sorted(wanted)


def test_a_document_reads_its_own_tokens_only() -> None:
    for batch in loader().batches(0):
        numbers = batch.task_inputs[DOCUMENTS]
        assert torch.equal(numbers > 0, batch.masks[TOKENS])
        read, wanted = batch.inputs[TOKENS], batch.targets[NEXT]
        follows = (numbers[:, 1:] == numbers[:, :-1]) & (numbers[:, 1:] > 0)
        assert torch.equal(read[:, 1:][follows], wanted[:, :-1][follows])
        for row in range(len(batch)):
            for number in range(1, int(numbers[row].max()) + 1):
                part = numbers[row] == number
                # The start token, or the last token of the piece before.
                whole = LETTERS.decode(read[row][part][1:])
                assert any(whole in text for text in TEXTS)


def test_rows_depend_on_seed_and_epoch_only() -> None:
    first = loader()
    assert first.rows(0) == loader().rows(0)
    assert first.rows(0) != first.rows(1)
    assert {text for row in first.rows(1) for text in row} == set(range(len(first.dataset)))


def test_any_step_of_an_epoch_can_be_the_first() -> None:
    whole = list(loader().batches(1))
    assert len(whole) == loader().steps_in(1) > 2
    for step in range(1, len(whole)):
        for one, other in zip(loader().batches(1, step), whole[step:], strict=True):
            assert torch.equal(one.inputs[TOKENS], other.inputs[TOKENS])
            assert torch.equal(one.task_inputs[DOCUMENTS], other.task_inputs[DOCUMENTS])


def test_processes_share_the_rows_of_each_batch() -> None:
    whole = list(loader(rows=3).batches(0))
    parts = [list(loader(rows=3, rank=rank, world=2).batches(0)) for rank in (0, 1)]
    for at, batch in enumerate(whole):
        each = [part[at] for part in parts]
        assert sum(map(len, each)) == len(batch)
        assert sum(part.weight or 0 for part in each) == batch.weight
        assert torch.cat([part.indices for part in each]).tolist() == batch.indices.tolist()  # type: ignore[misc]


def test_bytes_and_words_are_counted_once() -> None:
    batches = list(loader(shuffle=False).batches(0))
    assert sum(sum(batch.extras[BYTES]) for batch in batches) == sum(map(len, TEXTS))
    words = sum(len(line.split()) + 1 for text in TEXTS for line in text.split("\n")[:-1])
    assert sum(sum(batch.extras[WORDS]) for batch in batches) == words
    assert not next(loader().batches(0)).extras


# ---------------------------------------------------------------- the learner


def learner(model: str = "decoder", **options: object) -> Learner:
    texts = [
        f"{word} {word[::-1]} {word}\n" * (1 + i % 3) for i, word in enumerate(["abc", "de"] * 12)
    ]
    data = LanguageModelData.from_texts(
        texts, valid=texts[:4], options=LanguageOptions(tokenizer="character")
    )
    torch.manual_seed(0)
    choices = {"layout": "packed", "row_length": 16, "batch_size": 3, "keep_best": None}
    if model == "decoder":
        choices["model_config"] = {"depth": 1}  # type: ignore[assignment]
    return Learner(data, model, choices=choices, quiet=True, **options)  # type: ignore[arg-type]


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state: object) -> None:
        if state.position.step == self.at:  # type: ignore[attr-defined]
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [1, 6])
def test_a_run_resumes_between_packed_rows(tmp_path: Path, at: int) -> None:
    whole = learner()
    whole.fit(2)
    stopped = learner(callbacks=[Stop(at)], folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(2)
    resumed = learner(folder=tmp_path)
    resumed.resume()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(whole.history.step_losses) > 6
    assert list(resumed.history.step_losses) == list(whole.history.step_losses)


def test_recurrent_models_are_refused() -> None:
    with pytest.raises(PlanError, match="carries its state"):
        learner("awd_lstm")
    batch = alone(torch.tensor([4, 5, 6]))
    model = AwdLstm(VOCAB)
    with pytest.raises(ArgumentError, match="AwdLstm cannot read packed rows"):
        LanguageModelTask(tokenizer=LETTERS).forward(model, batch, StepContext())


def test_evaluation_of_packed_rows_equals_single_documents() -> None:
    of = learner()
    scores = of.evaluate("valid")
    texts = of.data.raw("valid")
    total = count = 0.0
    for text in texts:
        ids = [
            3,
            *(
                token
                for line in text.split("\n")[:-1]
                for token in (*of.built.preprocessor.tokenizer.encode(line), 3)
            ),
        ]
        tokens = torch.tensor(ids)
        for begin in range(0, len(tokens) - 1, 16):  # pieces of a row's length
            part = tokens[begin : begin + 17]
            with torch.no_grad():
                logits, _ = of.model(part[None, :-1])
            total += float(nn.functional.cross_entropy(logits[0], part[1:], reduction="sum"))
            count += len(part) - 1
    assert scores["loss"] == pytest.approx(total / count, abs=1e-6)
    assert scores["bits_per_byte"] == pytest.approx(
        total / sum(map(len, texts)) / 0.6931472, abs=1e-6
    )
