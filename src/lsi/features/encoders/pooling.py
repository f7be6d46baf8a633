"""What a network returns → one row of features for each sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsi.errors import InputError

POOLINGS = ("auto", "mean", "cls", "last", "max", "pooler")
"""Ways to reduce a network's output to one vector."""


def pool(output: Any, how: str, mask: Tensor | None = None) -> Tensor:
    r"""Return one vector for each sample.

    With tokens :math:`h_t` and mask :math:`m_t \in \{0, 1\}`: ``mean`` is
    :math:`\sum_t m_t h_t / \sum_t m_t` (over positions for the maps of a convolutional network),
    ``max`` the maximum of each entry, ``cls`` the first token, ``last`` the last token with
    :math:`m_t = 1`, ``pooler`` the summary that the network itself offers.

    Args:
        output: A tensor `(B, D)`, `(B, T, D)` or `(B, D, H, W)`, or an output of transformers.
        how: One of `POOLINGS`; ``auto`` is ``mean`` here.
        mask: `(B, T)`, 1 where a token counts; None: all tokens count.

    Returns:
        Tensor `(B, D)`.

    Raises:
        InputError: If the output has no such vector.
    """
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    if how == "pooler":
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            raise InputError("this encoder has no pooler output. Use --pooling mean or --pooling cls.")
        return pooled.flatten(1)
    hidden = output if isinstance(output, Tensor) else _hidden(output)
    if hidden.ndim == 2:
        return hidden
    if hidden.ndim == 4:
        if how in ("cls", "last"):
            raise InputError(f"--pooling {how} needs tokens, but this network returns maps. Use mean or max.")
        return hidden.amax((2, 3)) if how == "max" else hidden.mean((2, 3))
    if hidden.ndim != 3:
        raise InputError(f"features must be (B, D), (B, T, D) or (B, D, H, W), got {tuple(hidden.shape)}.")
    return _pool_tokens(hidden, how, mask)


def _pool_tokens(hidden: Tensor, how: str, mask: Tensor | None) -> Tensor:
    if how == "cls":
        return hidden[:, 0]
    if mask is None or mask.shape != hidden.shape[:2]:
        mask = torch.ones(hidden.shape[:2], device=hidden.device)
    if how == "last":
        position = torch.arange(hidden.shape[1], device=hidden.device)
        last = (position * (mask > 0)).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    kept = mask.to(hidden.dtype)[..., None]
    if how == "max":
        return hidden.masked_fill(kept == 0, -torch.inf).amax(1)
    return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1)


def _hidden(output: Any) -> Tensor:
    for name in ("last_hidden_state", "image_embeds", "text_embeds", "logits"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    raise InputError(
        f"the network returns a {type(output).__name__}, in which no features can be found. Wrap it in a "
        "module that returns a tensor (B, D)."
    )
