"""The encoder against transformers' `WhisperEncoder`, at the shapes of all Whisper models."""

import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from modeling_slam_asr.encoder_slam_asr import SlamAsrEncoder

# name: (blocks, mel bins) of the published encoders; widths are reduced.
SIZES = {
    "tiny": (4, 80), "base": (6, 80), "small": (12, 80), "medium": (24, 80), "large-v2": (32, 80), "large-v3": (32, 128),
    "large-v3-turbo": (32, 128), "distil-small.en": (12, 80), "distil-large-v3.5": (32, 128),
}  # fmt: skip


def pair(
    blocks: int, mels: int, kept: list[int] | None = None, implementation: str = "sdpa"
) -> tuple[SlamAsrEncoder, WhisperEncoder]:
    config = WhisperConfig(
        d_model=16,
        encoder_layers=blocks,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        num_mel_bins=mels,
        attn_implementation=implementation,
    )
    torch.manual_seed(blocks + mels)
    theirs = WhisperEncoder(config).eval()
    ours = SlamAsrEncoder(config, kept).eval()
    state = theirs.state_dict()
    if kept is not None:
        theirs.layers = torch.nn.ModuleList([theirs.layers[index] for index in kept])
        state = theirs.state_dict()
    ours.load_state_dict(state)
    return ours, theirs


@pytest.mark.parametrize("size", SIZES)
def test_equals_whisper_on_30_seconds(size: str) -> None:
    ours, theirs = pair(*SIZES[size])
    mel = torch.randn(1, SIZES[size][1], 3000)
    with torch.no_grad():
        expected = theirs(mel).last_hidden_state
        assert torch.allclose(ours(mel).last_hidden_state, expected, atol=1e-5)
        assert torch.allclose(ours(mel, torch.ones(1, 3000)).last_hidden_state, expected, atol=1e-5)


@pytest.mark.parametrize("kept", [[0, 1], [0, 2, 3], [3]])
def test_equals_pruned_whisper(kept: list[int]) -> None:
    ours, theirs = pair(4, 80, kept)
    mel = torch.randn(2, 80, 3000)
    with torch.no_grad():
        assert torch.allclose(ours(mel).last_hidden_state, theirs(mel).last_hidden_state, atol=1e-5)
    assert len(ours.layers) == len(kept)


def test_bfloat16() -> None:
    ours, theirs = pair(4, 80)
    ours, theirs = ours.bfloat16(), theirs.bfloat16()
    mel = torch.randn(2, 80, 3000)
    with torch.no_grad():
        assert torch.allclose(ours(mel).last_hidden_state, theirs(mel.bfloat16()).last_hidden_state, atol=2e-2)
        padded = torch.zeros(2, 80, 400)
        padded[0], padded[1, :, :200] = mel[0, :, :400], mel[1, :, :200]
        mask = (torch.arange(400) < torch.tensor([[400], [200]])).long()
        assert ours(padded, mask).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_changes_nothing(implementation: str) -> None:
    ours, _ = pair(4, 80, implementation=implementation)
    long, short = torch.randn(80, 400), torch.randn(80, 131)
    batch = torch.full((2, 80, 400), 1e4)  # what stands in the padding must not matter
    batch[0], batch[1, :, :131] = long, short
    mask = (torch.arange(400) < torch.tensor([[400], [131]])).long()
    with torch.no_grad():
        output = ours(batch, mask)
        alone = ours(short[None])
    assert output.attention_mask.sum(-1).tolist() == [200, 66]
    assert torch.allclose(output.last_hidden_state[1, :66], alone.last_hidden_state[0], atol=1e-5)


def test_hidden_states_of_all_depths_in_one_pass() -> None:
    ours, _ = pair(6, 80)
    mel = torch.randn(1, 80, 300)
    with torch.no_grad():
        states, mask = ours.hidden_states_at(mel, None, [0, 2, 6])
        for depth in (2, 6):
            pruned, _ = pair(6, 80, list(range(depth)))
            assert torch.allclose(ours.layer_norm(states[depth]), pruned(mel).last_hidden_state, atol=1e-5)
    assert mask.all() and set(states) == {0, 2, 6}
    for depths in ([], [7], [-1]):
        with pytest.raises(ValueError, match="between 0 and 6"):
            ours.hidden_states_at(mel, None, depths)


def test_clear_errors() -> None:
    ours, _ = pair(1, 80)
    with pytest.raises(ValueError, match="reads 80 mel bins but got 128"):
        ours(torch.randn(1, 128, 100))
    with pytest.raises(ValueError, match=r"30\.0 s.*positions|positions for 1500"):
        ours(torch.randn(1, 80, 3002))
