"""The language-prior analysis: a planted effect is found, none is not invented, and a causal LM's sums are right."""

import random
from pathlib import Path

import pytest
import torch

from trainers.evaluation.alignment import Alignment, align_words
from trainers.evaluation.bootstrap import BootstrapSettings
from trainers.evaluation.language_prior import causal_lm_scorer, language_prior, load_scorer, single_errors

SETTINGS = BootstrapSettings(300)
LIKELY, UNLIKELY = [f"l{i}" for i in range(20)], [f"u{i}" for i in range(20)]


def scorer(texts: list[str]) -> list[float]:
    """A unigram language model that likes the words with l."""
    return [sum(-1.0 if word[0] == "l" else -4.0 for word in text.split()) for text in texts]


def systems(prior_driven: bool) -> tuple[list[Alignment], list[Alignment]]:
    """A has random substitutions; B fixes those that the language model dislikes, or a random third."""
    rng = random.Random(4)
    references, first, second = [], [], []
    for _ in range(300):
        words = [rng.choice(LIKELY + UNLIKELY) for _ in range(9)]
        a, b = list(words), list(words)
        for i in range(0, 9, 2):
            if rng.random() < 0.5:
                a[i] = rng.choice(LIKELY + UNLIKELY) + "x"
                pull = scorer([words[i]])[0] - scorer([a[i]])[0]
                fixed = rng.random() < (0.8 if pull > 0 else 0.1) if prior_driven else rng.random() < 0.33
                b[i] = words[i] if fixed else a[i]
            elif rng.random() < 0.1:
                b[i] = rng.choice(LIKELY if prior_driven else LIKELY + UNLIKELY) + "x"
        references.append(" ".join(words))
        first.append(" ".join(a))
        second.append(" ".join(b))
    return align_words(references, first), align_words(references, second)


def test_single_errors() -> None:
    first = align_words(["a b c d e f"], ["a X c d Y f"])
    second = align_words(["a b c d e f"], ["a b c d Z f g"])
    found = {(e.fate, e.with_error, e.one_word) for e in single_errors(first, second)}
    assert found == {
        ("fixed", "a X c d e f", True),
        ("kept", "a b c d Y f", True),
        ("made", "a b c d e f g", False),
    }


def test_a_prior_driven_system_is_recognised() -> None:
    result = language_prior(*systems(prior_driven=True), scorer, settings=SETTINGS)["one_word_substitutions"]
    assert result["fixed_over_kept_ci"][0] > 0.7
    assert result["made_over_first_ci"][1] < 0.5
    assert result["fixed"]["mean_pull_ci"][0] > 0 > result["made"]["mean_pull_ci"][1]
    assert result["fixed"]["positive_share"] > result["kept"]["positive_share"]


def test_no_effect_is_not_invented() -> None:
    result = language_prior(*systems(prior_driven=False), scorer, settings=SETTINGS)["one_word_substitutions"]
    low, high = result["fixed_over_kept_ci"]
    assert low < 0.5 < high and high - low < 0.2
    assert result["made_over_first_ci"][0] < 0.5 < result["made_over_first_ci"][1]


def test_limit_speakers_examples_and_empty_groups() -> None:
    first, second = systems(prior_driven=True)
    speakers = [f"s{i % 15}" for i in range(len(first))]
    result = language_prior(
        first, second, scorer, origins=[(None, speaker) for speaker in speakers], settings=SETTINGS, limit=40
    )
    assert result["scored"] == 40 and sum(result["errors"].values()) > 40
    assert result["bootstrap"]["unit"] == "speaker"
    pulls = [e["log_p_reference"] - e["log_p_with_error"] for e in result["examples"]["fixed"]]
    assert pulls == sorted(pulls, reverse=True)
    nothing = language_prior(first, first, scorer, settings=SETTINGS)
    assert nothing["errors"]["fixed"] == nothing["errors"]["made"] == 0
    assert nothing["all"]["fixed_over_kept"] is None
    right = align_words(["a b"], ["a b"])
    assert language_prior(right, right, scorer, settings=SETTINGS)["scored"] == 0


def test_bad_scorer_is_refused() -> None:
    first, second = systems(prior_driven=True)
    with pytest.raises(ValueError, match="one finite log-probability for each"):
        language_prior(first, second, lambda texts: [0.0], settings=SETTINGS)
    with pytest.raises(ValueError, match="one finite log-probability"):
        language_prior(first, second, lambda texts: [float("nan")] * len(texts), settings=SETTINGS)


@pytest.fixture(scope="module")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of one layer with a word-level tokenizer that has EOS and no BOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("lm")
    vocabulary = {word: i for i, word in enumerate(["<eos>", "<unk>", "say", ":", "a", "b", "c", "d"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, eos_token_id=0
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def one_by_one(model: torch.nn.Module, ids: list[int], skip: int) -> float:
    """log P of ids[skip:] given what stands before, token by token without batching."""
    total = 0.0
    for end in range(skip, len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:end]])).logits[0, -1]
        total += float(torch.log_softmax(logits.double(), -1)[ids[end]])
    return total


@pytest.mark.parametrize(("prefix", "before"), [(None, [0]), ("say :", [2, 3])])
@pytest.mark.parametrize("end_of_text", [True, False])
def test_causal_lm_scorer_sums_token_probabilities(
    tiny_lm: Path, prefix: str | None, before: list[int], end_of_text: bool
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_lm), AutoTokenizer.from_pretrained(tiny_lm)
    texts = ["a b c d a b", "", "d", "b b b"]
    score = causal_lm_scorer(model, tokenizer, prefix=prefix, end_of_text=end_of_text, batch_size=3)
    expected = []
    for text in texts:
        ids = before + tokenizer(text)["input_ids"] + ([0] if end_of_text else [])
        expected.append(one_by_one(model, ids, len(before)))
    assert score(texts) == pytest.approx(expected, abs=1e-4)
    assert load_scorer(str(tiny_lm), prefix=prefix)([texts[0]])[0] < 0


def test_no_start_token_and_no_prefix_is_an_error(tiny_lm: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither BOS nor EOS: pass a prefix"):
        causal_lm_scorer(AutoModelForCausalLM.from_pretrained(tiny_lm), tokenizer)


def test_missing_language_model_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"The language model .* cannot be loaded"):
        load_scorer(str(tmp_path))
