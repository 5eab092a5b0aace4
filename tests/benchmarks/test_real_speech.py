"""The real-speech benchmark's text side: what is removed, what the copy task looks like, and the rescaled weights."""

import csv
import random
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from benchmarks.real_speech.noisy_copy import (
    HELD_OUT,
    PROMPT,
    ExampleMaker,
    held_back_transcripts,
    held_out_and_rest,
    read_lines,
    train_tokenizer,
)
from benchmarks.real_speech.pretrain_lm import batch_loss, build_model, unit_scale_state
from benchmarks.real_speech.speak_danish import plan
from trainers.errors import UserError

LINES = ["de kat zit op de mat", "het is vandaag mooi weer", "zo'n huis wil ik ook", "waar is de trein naar gent"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES * 50, 300)


def test_transcripts_of_other_splits_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "nl" / "source"
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [("file_name", "transcription", "split"), ("a.ogg", "Zo’n huis!", "dev"), ("b.ogg", "De kat.", "train")]
        )
    excluded = held_back_transcripts([tmp_path])
    assert excluded == {"zo'n huis"}
    text = tmp_path / "nl.txt"
    text.write_text("Zo'n huis.\nDe kat?\nde kat\n", encoding="utf-8")
    assert read_lines(text, excluded) == (["de kat"], 1)


def test_a_folder_without_metadata_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metadata\.csv"):
        held_back_transcripts([tmp_path])


def test_the_language_model_never_reads_a_sentence_of_the_spoken_test(tmp_path: Path) -> None:
    text = tmp_path / "da.txt"
    text.write_text("".join(f"sætning nummer {n} om vejret\n" for n in range(300)), encoding="utf-8")
    held_out, read = held_out_and_rest(read_lines(text, set())[0], seed=3)
    spoken = plan(text, train=50, test=20, seed=3)
    assert len(held_out) == HELD_OUT and not set(held_out) & set(read)
    assert {item.text for item in spoken if item.split == "test"} <= set(held_out)
    assert {item.text for item in spoken if item.split == "train"} <= set(read)
    assert len({item.text for item in spoken}) == 70
    with pytest.raises(UserError, match="ask for fewer"):
        plan(text, train=101, test=20, seed=3)


def test_the_end_token_is_not_the_padding(tokenizer) -> None:
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert tokenizer.decode(tokenizer.encode("één kat's " + PROMPT)) == "één kat's " + PROMPT


def test_copy_examples_end_with_prompt_sentence_and_end(tokenizer) -> None:
    maker = ExampleMaker(tokenizer, "".join(LINES), vary_pace=False)
    example = maker.copy(LINES[2], random.Random(0), noise=0.0)
    assert tokenizer.decode(example.tokens[: example.start]) == LINES[2] + PROMPT
    assert tokenizer.decode(example.tokens[example.start : -1]) == LINES[2]
    assert example.tokens[-1] == tokenizer.eos_token_id
    varied = ExampleMaker(tokenizer, "".join(LINES))
    heads = {tuple(varied.prefix(LINES[0], random.Random(seed))) for seed in range(20)}
    assert len(heads) > 10


def test_unit_scale_changes_no_probability(tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(tokenizer)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(10.0)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path, state_dict=unit_scale_state(model))
    scaled = LlamaForCausalLM.from_pretrained(tmp_path)
    assert scaled.model.embed_tokens.weight.square().mean().sqrt().item() == pytest.approx(1.0, rel=1e-3)
    tokens = torch.tensor([tokenizer.encode(LINES[0])])
    with torch.no_grad():
        torch.testing.assert_close(scaled(tokens).logits, model(tokens).logits, rtol=1e-3, atol=1e-3)


def test_the_loss_is_on_the_sentence_alone(tokenizer) -> None:
    model = build_model(tokenizer)
    maker = ExampleMaker(tokenizer, "".join(LINES))
    batch = [maker.plain(LINES[0]), maker.copy(LINES[1], random.Random(1))]
    losses, copies = batch_loss(model, batch)
    assert len(losses) == sum(len(example.tokens) - example.start for example in batch)
    assert copies.sum() == len(batch[1].tokens) - batch[1].start
