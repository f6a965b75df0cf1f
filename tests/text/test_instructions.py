"""Instruction data: what is learned of a conversation, and fine-tuning on it."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, Predictor
from flambeau.data import LoaderOptions
from flambeau.errors import ArgumentError, FlambeauWarning, InputError
from flambeau_text import CausalLM, HFTokenizer, InstructionData, InstructionOptions, LoRA
from flambeau_text.decoding import Greedy
from flambeau_text.instructions.recognise import instruction_reading
from flambeau_text.instructions.template import ConversationEncoder
from flambeau_text.language.stream import NEXT, TOKENS

PAIR = [{"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": "5"}]
LONG = [*PAIR, {"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]


@pytest.fixture(scope="module")
def tokens(pretrained: Any) -> HFTokenizer:
    return HFTokenizer.of(pretrained.tokenizer())


def parts(tokens: HFTokenizer, messages: list[dict[str, str]], form: str = "chat") -> list[str]:
    """The texts that are learned, with "|" for what is not, token by token."""
    found = ConversationEncoder(tokens, form).encode(messages, "here")
    names = tokens.ids_to_tokens(found.ids)
    return [name if learned else "|" for name, learned in zip(names, found.is_target, strict=True)]


# ---------------------------------------------------------------- the mask


def test_only_answers_and_their_stop_tokens_are_learned(tokens: HFTokenizer) -> None:
    found = parts(tokens, LONG)
    assert [each for each in found if each != "|"] == ["5", "</s>", "2", "</s>"]
    ids = ConversationEncoder(tokens, "chat").encode(LONG, "here").ids
    assert ids.count(tokens.special.start) == 1
    assert ids[0] == tokens.special.start


def test_tokens_equal_the_template_of_transformers(pretrained: Any, tokens: HFTokenizer) -> None:
    theirs = pretrained.tokenizer()
    wanted = theirs.apply_chat_template(LONG, return_dict=False)
    assert ConversationEncoder(tokens, "chat").encode(LONG, "here").ids == wanted
    prompt = theirs.apply_chat_template(LONG[:3], add_generation_prompt=True, return_dict=False)
    assert ConversationEncoder(tokens, "chat").encode_prompt(LONG[:3], "here") == prompt


def test_training_reads_the_prompt_as_prediction_does(tokens: HFTokenizer) -> None:
    for form in ("chat", "plain"):
        encoder = ConversationEncoder(tokens, form)
        whole, prompt = encoder.encode(PAIR, "here"), encoder.encode_prompt(PAIR[:1], "here")
        assert whole.ids[: len(prompt)] == prompt
        assert whole.is_target == [False] * len(prompt) + [True] * 2


def test_what_follows_the_stop_token_is_not_learned(pretrained: Any) -> None:
    other = pretrained.tokenizer()
    other.chat_template = other.chat_template.replace("{{ eos_token }}", "{{ eos_token }}\n")
    found = parts(HFTokenizer.of(other), LONG)
    assert [each for each in found if each != "|"] == ["5", "</s>", "2", "</s>"]
    assert found[-1] == "|"


def test_the_plain_form_ends_with_the_end_token(tokens: HFTokenizer) -> None:
    assert parts(tokens, PAIR, "plain")[-2:] == ["5", "</s>"]
    with pytest.raises(InputError, match='"plain" takes one message'):
        parts(tokens, LONG, "plain")


def test_a_template_without_stop_token_is_refused(pretrained: Any) -> None:
    other = pretrained.tokenizer()
    other.chat_template = other.chat_template.replace("{{ eos_token }}", "<|system|>")
    with pytest.raises(InputError, match="would not learn to stop"):
        parts(HFTokenizer.of(other), PAIR)


def test_a_template_that_changes_earlier_messages_is_refused(pretrained: Any) -> None:
    other = pretrained.tokenizer()
    other.chat_template = "{{ messages | length }}" + other.chat_template
    with pytest.raises(InputError, match="changes earlier messages"):
        parts(HFTokenizer.of(other), PAIR)


def test_a_refusal_of_the_template_names_the_row(pretrained: Any) -> None:
    other = pretrained.tokenizer()
    other.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match=r"here: .*roles must alternate"):
        parts(HFTokenizer.of(other), PAIR)


def test_special_tokens_in_a_message_are_refused(tokens: HFTokenizer) -> None:
    messages = [{"role": "user", "content": "a</s>b"}, PAIR[1]]
    with pytest.raises(InputError, match=r"here: a message of the user has the text '</s>'"):
        parts(tokens, messages)
    assert parts(tokens, messages, "plain")[-2:] == ["5", "</s>"]


def test_an_empty_answer_is_refused(tokens: HFTokenizer) -> None:
    with pytest.raises(InputError, match="has no answer"):
        data_of(tokens, [{"prompt": "a", "completion": " "}] * 4)


# ---------------------------------------------------------------- reading


def records(n: int = 20) -> list[dict[str, str]]:
    return [{"prompt": f"{at} + 1", "completion": str(at + 1)} for at in range(n)]


def data_of(
    tokens: HFTokenizer, given: Any = None, valid: Any = 0.2, **options: Any
) -> InstructionData:
    settings = InstructionOptions(tokens, **options)
    return InstructionData.from_records(given or records(), settings, valid=valid)


def test_all_sources_give_the_same_conversations(tokens: HFTokenizer, tmp_path: Path) -> None:
    pairs = records(8)
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in pairs))
    settings = InstructionOptions(tokens)
    frame = {name: [each[name] for each in pairs] for name in ("prompt", "completion")}
    messages = [
        {
            "messages": [
                {"role": "user", "content": each["prompt"]},
                {"role": "assistant", "content": each["completion"]},
            ]
        }
        for each in pairs
    ]
    wanted = data_of(tokens, pairs).samples["text"]
    assert InstructionData.from_jsonl(file, settings).samples["text"] == wanted
    assert InstructionData.from_df(frame, settings).samples["text"] == wanted
    assert data_of(tokens, messages).samples["text"] == wanted
    named = [{"question": each["prompt"], "answer": each["completion"]} for each in pairs]
    found = data_of(tokens, named, prompt="question", completion="answer")
    assert found.samples["text"] == wanted
    assert found.raw("train")[0]["messages"][-1]["role"] == "user"
    assert "answers" in found.report()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow.parquet"])
def test_messages_of_a_parquet_file_are_read(
    tokens: HFTokenizer, tmp_path: Path, library: str
) -> None:
    pandas = pytest.importorskip("pandas")
    module = pytest.importorskip(library)
    rows = [{"messages": PAIR, "split": "train" if row else "test"} for row in range(4)]
    pandas.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    read = module.read_table if library == "pyarrow.parquet" else module.read_parquet
    frame = read(tmp_path / "rows.parquet")
    data = InstructionData.from_df(frame, InstructionOptions(tokens), valid=1)
    assert json.loads(data.samples["text"][0]) == PAIR
    assert (len(data.split.train), len(data.split.valid), len(data.split.test)) == (2, 1, 1)
    if library == "pandas":
        records = frame.to_dict("records")
        assert data_of(tokens, records, valid=1).samples["text"] == data.samples["text"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"prompt": "a", "answer": "b"}, "record 1 has the fields prompt, answer"),
        ({"prompt": "a", "completion": 3}, "record 1: completion is 3"),
        ({"messages": "a"}, "record 1: 'a' is not a list of messages"),
        ({"messages": [{"role": "user"}]}, "record 1: the message .* needs a role and a content"),
        ({"messages": [{"role": "user", "content": "a"}]}, "record 1 has no answer"),
        (3, "record 1: 3 is not a mapping"),
        ({"prompt": "a\0", "completion": "b"}, "record 1 has NUL"),
        ({"messages": [PAIR[0], {**PAIR[1], "content": "b\0"}]}, "record 1 has NUL"),
    ],
)
def test_invalid_records_are_refused(tokens: HFTokenizer, record: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        data_of(tokens, [records()[0], record, records()[2]])


def test_tables_and_compressed_lines_on_the_command_line(pretrained: Any, tmp_path: Path) -> None:
    folder = pretrained.save_model(tmp_path / "model")
    options = {"prompt": "q", "completion": "a", "language_model": str(folder)}
    train, valid = tmp_path / "train.csv", tmp_path / "valid.csv"
    train.write_text("q,a,split\n" + "2 + 3,5,train\n" * 6 + "1 + 1,2,valid\n")
    valid.write_text("q,a\n" + "3 + 1,4\n" * 2)
    assert len(InstructionData.from_path(train, options).split.valid) == 1
    both = InstructionData.from_path(train, options | {"valid": str(valid)})
    assert (len(both.split.train), len(both.split.valid)) == (7, 2)
    assert len(InstructionData.from_path(train, options | {"split": "none"}).split.train) == 6
    lines = tmp_path / "chats.jsonl.xz"
    with lzma.open(lines, "wt") as file:
        file.write(json.dumps({"prompt": "2 + 3", "completion": "5"}) + "\n")
    assert instruction_reading(lines) is not None


def test_prompts_may_be_fields_and_files(tokens: HFTokenizer, tmp_path: Path) -> None:
    preprocessor = data_of(tokens).preprocessor({})
    wanted = preprocessor.encode(["2 + 3"])
    (tmp_path / "a.txt").write_text("2 + 3\n")
    for item in (
        {"prompt": "2 + 3", "completion": "5"},
        {"question": "2 + 3"},
        {"messages": PAIR[:1]},
        PAIR[:1],
        tmp_path / "a.txt",
    ):
        assert torch.equal(preprocessor.encode([item]).inputs[TOKENS], wanted.inputs[TOKENS])
    with pytest.raises(InputError, match="Item 0: none of the fields a, b is named 'prompt'"):
        preprocessor.encode([{"a": "x", "b": "y"}])


def test_invalid_lines_are_named(tokens: HFTokenizer, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 1\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2 is not JSON"):
        InstructionData.from_jsonl(file, InstructionOptions(tokens))
    with pytest.raises(ArgumentError, match="need the tokenizer of a pretrained model"):
        InstructionOptions("bpe")  # type: ignore[arg-type]


def test_a_tokenizer_without_template_uses_the_plain_form(pretrained: Any) -> None:
    other = pretrained.tokenizer()
    other.chat_template = None
    plain = HFTokenizer.of(other)
    assert InstructionOptions(plain).form == "plain"
    with pytest.raises(ArgumentError, match="has no chat template"):
        InstructionOptions(plain, form="chat")


# ---------------------------------------------------------------- rows


def dataset(data: InstructionData, length: int) -> Any:
    fitted = data.preprocessor({})
    return data.dataset("train", fitted, {"row_length": length})


def test_rows_count_the_learned_tokens(tokens: HFTokenizer) -> None:
    data = data_of(tokens)
    learned = 0
    batches = list(dataset(data, 64).loader(LoaderOptions(3, shuffle=True)).batches(0))
    for batch in batches:
        assert batch.weight == int(batch.masks[TOKENS].sum())
        learned += int(batch.masks[TOKENS].sum())
        assert tokens.special.start not in batch.targets[NEXT][batch.masks[TOKENS]]
    encoder = ConversationEncoder(tokens, "chat")
    rows = data.split.train.tolist()
    texts = [json.loads(data.samples["text"][row]) for row in rows]
    assert learned == sum(sum(encoder.encode(each, "").is_target) for each in texts)


def test_truncation_is_counted(tokens: HFTokenizer) -> None:
    given = [*records(), {"prompt": "a", "completion": "b c d e f g h i j k l m n o p q r s t u"}]
    data = data_of(tokens, given, valid=records(3))
    with pytest.warns(FlambeauWarning, match=r"\[truncated\] 1 of 21 train conversations"):
        dataset(data, 24)


def test_truncation_that_leaves_no_target_names_the_row(tokens: HFTokenizer) -> None:
    given = [
        *records(3),
        {"prompt": "a b c d e f g h i j k l m n o p q r s t u", "completion": "b"},
    ]
    data = data_of(tokens, given, valid=records(3))
    with pytest.raises(InputError, match=r"record 3 has \d+ tokens; cut to the row length of 20"):
        dataset(data, 20)


# ---------------------------------------------------------------- learning


FACTS = {
    **{"dog": "It barks.", "cat": "It purrs.", "bird": "It sings."},
    **{"sky": "It is blue.", "grass": "It is green.", "apple": "It is red."},
}


def questions() -> list[dict[str, str]]:
    return [
        {"prompt": f"{words} {thing}{end}", "completion": answer}
        for thing, answer in FACTS.items()
        for words in ("What is a", "Describe the", "Tell me of the")
        for end in ("?", ".")
    ]


def test_lora_learns_a_synthetic_task_and_ends_by_itself(pretrained: Any, tmp_path: Path) -> None:
    import peft
    import transformers

    folder = pretrained.save_model(tmp_path / "model", "llama", head_scale=4.0)
    model = CausalLM.from_hf(folder, adapter=LoRA(rank=16))
    data = InstructionData.from_records(
        questions(), InstructionOptions(model.tokenizer), valid=questions()[::5]
    )
    torch.manual_seed(0)
    choices = {"row_length": 96, "batch_size": 4, "keep_best": None, "decoding": Greedy()}
    learner = Learner(data, model, seed=0, quiet=True, choices=choices)
    before = learner.evaluate("valid")["loss"]
    learner.fit(30, lr=1e-2)
    after = learner.evaluate("valid")["loss"]
    assert before > 4.0
    assert after < 0.1
    prompts = ["What is a dog?", "Tell me of the sky."]
    answers = learner.predict(prompts)
    assert [str(each) for each in answers] == ["It barks.", "It is blue."]
    # It ended by itself: 50 tokens were allowed.
    path = learner.export(tmp_path / "export")
    loaded = Predictor.load(path)
    assert loaded.predict(prompts) == answers
    single = loaded.predict([{"role": "user", "content": prompts[0]}])
    assert str(single) == str(answers[0])
    assert loaded.preprocessor.tokenizer.chat_template == model.tokenizer.chat_template  # type: ignore[union-attr]

    saved = model.save_adapter(tmp_path / "adapter")
    again = CausalLM.from_hf(folder, adapter=saved).eval()
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = loaded.preprocessor.encode(prompts[:1]).inputs[TOKENS]
    with torch.no_grad(), pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        theirs = peft.PeftModel.from_pretrained(base, str(saved)).eval()(input_ids=ids).logits
    model.eval()
    with torch.no_grad():
        for other in (again(ids)[0], model.merged()(ids)[0], theirs):
            torch.testing.assert_close(other, model(ids)[0], rtol=0, atol=2e-4)
