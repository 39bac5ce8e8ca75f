"""The connector: how a latent state reaches the decoder.

PAN's is linear, and the decoder's own (`state_proj`, before its state stream), so there is nothing here for it. Pandora's is a Q-Former: learned queries that
look at the backbone's, and whose answers stand where the text's tokens would.

Shapes: B states, Q queries of the backbone, S its width, N tokens, D width of the text encoder's tokens, K the Q-Former's width.
"""

from typing import Any

import torch
from torch import nn

from training.model.spec import QFormerSpec


class QFormer(nn.Module):
    """States to tokens in the text encoder's space: Linear S to K, transformers' `Blip2QFormerModel`, Linear K to D.

    Source: maitrix-org/Pandora; BLIP-2 (arXiv 2301.12597) for the Q-Former: cross-attention in every second layer.
    """

    def __init__(self, spec: QFormerSpec, state_dim: int, text_dim: int) -> None:
        super().__init__()
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        config = Blip2QFormerConfig(
            hidden_size=spec.hidden,
            encoder_hidden_size=spec.hidden,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            intermediate_size=spec.intermediate,
            hidden_dropout_prob=spec.dropout,
            attention_probs_dropout_prob=spec.dropout,
            cross_attention_frequency=2,
        )
        self.state_in = nn.Linear(state_dim, spec.hidden)
        self.query_tokens = nn.Parameter(torch.randn(spec.queries, spec.hidden) * spec.query_std)
        self.qformer = Blip2QFormerModel(config)
        self.text_out = nn.Linear(spec.hidden, text_dim)

    def forward(self, states_BQS: Any) -> Any:
        """tokens_BND, N = `spec.queries`; each state on its own. B may be several dimensions, or none."""
        states_XQS = states_BQS.reshape(-1, *states_BQS.shape[-2:])
        queries_XNK = self.query_tokens.expand(len(states_XQS), -1, -1)
        seen_XNK = self.qformer(query_embeds=queries_XNK, encoder_hidden_states=self.state_in(states_XQS)).last_hidden_state
        return self.text_out(seen_XNK).reshape(*states_BQS.shape[:-2], *self.query_tokens.shape[:1], -1)
