"""What the reference code computes, written anew from its formulas: its encoder, its projectors and its model.

Formulas: OpenAI's Whisper encoder at any length (`WhisperEncoder`), the projectors of arXiv 2603.27981 and of SLAM-LLM
(`Concat`, `Conv1d`, `QFormer`), and the order audio, prompt, transcript, end of SLAM-ASR (`sequence_loss`).
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Blip2QFormerConfig, Blip2QFormerModel

SIZE, TEXT_SIZE, RATE, HIDDEN, QUERIES = 32, 32, 5, 48, 6
OPTIONS: dict[str, dict[str, Any]] = {
    "concat_linear": {"projector_type": "concat_linear"},
    "concat_linear without norm": {"projector_type": "concat_linear", "projector_layer_norm": False},
    "conv1d": {"projector_type": "conv1d"},
    "conv1d without norm": {"projector_type": "conv1d", "projector_layer_norm": False},
    "qformer": {"projector_type": "qformer", "projector_num_queries": QUERIES, "projector_num_layers": 2},
}


class Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)
        self.attn_ln, self.mlp_ln = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attn_ln(x)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.mlp_ln(x))))


class WhisperEncoder(nn.Module):
    """Whisper's encoder at the length of its input; `depth` blocks from the bottom are run, the rest are carried along."""

    def __init__(self, mels: int, width: int, heads: int, inner: int, blocks: int, depth: int | None = None) -> None:
        super().__init__()
        self.depth = depth
        self.conv1 = nn.Conv1d(mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.randn(1500, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width, heads, inner) for _ in range(blocks))
        self.ln_post = nn.LayerNorm(width)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks[: self.depth]:
            x = block(x)
        return self.ln_post(x)

    def transformers_state(self) -> dict[str, torch.Tensor]:
        """The weights under the names of transformers' Whisper checkpoints."""
        names = {
            "attn_ln": "self_attn_layer_norm", "query": "self_attn.q_proj", "key": "self_attn.k_proj",
            "value": "self_attn.v_proj", "out": "self_attn.out_proj", "mlp_ln": "final_layer_norm",
            "up": "fc1", "down": "fc2",
        }  # fmt: skip
        state = {}
        for name, tensor in self.state_dict().items():
            parts = name.split(".")
            if parts[0] == "blocks":
                parts = ["layers", parts[1], names[parts[2]], parts[3]]
            elif parts[0] == "positions":
                parts = ["embed_positions", "weight"]
            elif parts[0] == "ln_post":
                parts[0] = "layer_norm"
            state[".".join(["model.encoder", *parts])] = tensor.clone().contiguous()
        return state


class Concat(nn.Module):
    """`linear`: frames joined by k; with `norm` that of arXiv 2603.27981, without it SLAM-LLM's."""

    def __init__(self, size: int, text_size: int, k: int, hidden: int, norm: bool) -> None:
        super().__init__()
        self.k = k
        self.linear1, self.linear2 = nn.Linear(size * k, hidden), nn.Linear(hidden, text_size)
        if norm:
            self.layer_norm = nn.LayerNorm(text_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, : x.shape[1] // self.k * self.k].reshape(len(x), -1, self.k * x.shape[2])
        x = self.linear2(torch.relu(self.linear1(x)))
        return self.layer_norm(x) if hasattr(self, "layer_norm") else x


class Conv1d(nn.Module):
    """`cov1d-linear`; SLAM-LLM has a second ReLU where arXiv 2603.27981 has a LayerNorm at the end."""

    def __init__(self, size: int, text_size: int, k: int, hidden: int, norm: bool) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(size, size, k, stride=k)
        self.linear1, self.linear2 = nn.Linear(size, hidden), nn.Linear(hidden, text_size)
        if norm:
            self.layer_norm = nn.LayerNorm(text_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear1(torch.relu(self.conv1d(x.transpose(1, 2)).transpose(1, 2)))
        return self.layer_norm(self.linear2(x)) if hasattr(self, "layer_norm") else self.linear2(torch.relu(x))


class QFormer(nn.Module):
    """`q-former`: BLIP-2's, with `queries` learned queries."""

    def __init__(self, size: int, text_size: int, queries: int, layers: int) -> None:
        super().__init__()
        config = Blip2QFormerConfig(encoder_hidden_size=size, num_hidden_layers=layers)
        self.query = nn.Parameter(torch.randn(1, queries, config.hidden_size))
        self.qformer = Blip2QFormerModel(config)
        self.linear = nn.Linear(config.hidden_size, text_size)
        self.norm = nn.LayerNorm(text_size, eps=1e-5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(x.shape[:2], dtype=torch.long)
        out = self.qformer(
            query_embeds=self.query.expand(len(x), -1, -1), encoder_hidden_states=x, encoder_attention_mask=mask
        )
        return self.norm(self.linear(out.last_hidden_state))


def sequence_loss(llm: Any, audio: torch.Tensor, prompt: list[int], transcript: list[int], end: int) -> torch.Tensor:
    """Mean cross-entropy on transcript and end token of one utterance: audio `(1, tokens, hidden)`, prompt, transcript, end."""
    text = torch.tensor([[*prompt, *transcript, end]])
    embeddings = torch.cat([audio, llm.get_input_embeddings()(text)], dim=1)
    labels = torch.full(embeddings.shape[:2], -100)
    labels[:, audio.shape[1] + len(prompt) :] = text[:, len(prompt) :]
    return llm(inputs_embeds=embeddings, labels=labels).loss


def reference_projector(kind: str) -> torch.nn.Module:
    norm = not kind.endswith("without norm")
    if kind.startswith("concat"):
        return Concat(SIZE, TEXT_SIZE, RATE, HIDDEN, norm)
    if kind.startswith("conv1d"):
        return Conv1d(SIZE, TEXT_SIZE, RATE, HIDDEN, norm)
    return QFormer(SIZE, TEXT_SIZE, QUERIES, layers=2)
