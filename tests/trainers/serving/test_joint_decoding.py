"""Joint decoding without torch scores as the model's own does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_slam_asr import projector_slam_asr
from modeling_slam_asr.projector_slam_asr import CtcPrefixScores, CtcScores
from trainers.serving import joint_decoding
from trainers.serving.joint_decoding import JointScores

TOKENS, END, VOCAB = [10, 12, 11], 13, 15  # 14 is a token that the head does not know


def test_the_constants_are_the_model_s() -> None:
    for name in ("UNKNOWN_SHARE", "NEVER", "LEAST"):
        assert getattr(joint_decoding, name) == getattr(projector_slam_asr, name)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    frames=st.integers(1, 14),
    transcript=st.lists(st.sampled_from([*TOKENS, 14]), max_size=6),
    weight=st.sampled_from([0.3, 0.9]),
)
def test_scores_are_the_model_s(seed: int, frames: int, transcript: list[int], weight: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = (2 * torch.randn(1, frames, 4, generator=generator)).log_softmax(-1)
    model = CtcPrefixScores(CtcScores(log_probs, torch.ones(1, frames, dtype=torch.bool)), TOKENS, {END}, weight)
    ours = JointScores(log_probs[0].numpy(), TOKENS, {END}, weight)
    for length in range(len(transcript) + 1):
        llm = torch.randn(1, VOCAB, generator=generator)
        expected = model(torch.tensor([transcript[:length]], dtype=torch.long), llm)[0].numpy()
        found = ours(llm[0].numpy())
        possible = expected > -60 * weight  # below, float32 in the model's own has run out
        assert found[possible] == pytest.approx(expected[possible], abs=2e-3)
        assert (found[~possible] < -30 * weight).all()
        if length < len(transcript):
            ours.take(transcript[length])


def test_the_best_token_is_taken_in() -> None:
    frames = np.log(np.full((6, 4), 0.02))
    frames[:, 0] = np.log(0.94)
    frames[1] = frames[4] = np.log([0.02, 0.94, 0.02, 0.02])  # token 10, twice
    joint = JointScores(frames.astype(np.float32), TOKENS, {END}, 0.9)
    written = []
    while not written or written[-1] != END:
        written.append(int(joint(np.zeros(VOCAB, np.float32)).argmax()))
        joint.take(written[-1])
    assert written == [10, 10, END]
