"""The registry of connection function types: their names, families, costs and meanings.

No execution lives here.
"""

from __future__ import annotations

from canvas_robot.schema.plain import shown


class UnknownAttentionTypeError(ValueError):
    """A connection or region names a function type that is not in ATTENTION_TYPES."""


class AttentionType(str):
    """What a function type computes, for src rows (N queries) reading dst rows (M keys/values).

    It is its description as a string; `family`, `cost` and `meaning` are its parts.
    """

    family: str
    cost: str
    meaning: str

    def __new__(cls, family: str, cost: str, meaning: str) -> AttentionType:
        made = super().__new__(cls, f"{meaning} ({family}, {cost})")
        made.family, made.cost, made.meaning = family, cost, meaning
        return made


ATTENTION_TYPES: dict[str, AttentionType] = {
    "cross_attention": AttentionType(
        "dot product", "O(NM)", "softmax over queries, keys and values"
    ),
    "linear_attention": AttentionType("dot product", "O(N+M)", "kernel features, no softmax"),
    "cosine_attention": AttentionType("dot product", "O(NM)", "normalised queries and keys"),
    "sigmoid_attention": AttentionType("dot product", "O(NM)", "each key gated independently"),
    "gated": AttentionType("gating", "O(NM)", "cross attention times a learned sigmoid gate"),
    "perceiver": AttentionType("compression", "O(NK)", "dst compressed into K learned latents"),
    "pooling": AttentionType("compression", "O(N+M)", "mean of dst, broadcast to src"),
    "copy": AttentionType("transfer", "O(N)", "dst tokens handed to src, no parameters"),
    "mamba": AttentionType("state space", "O(N)", "selective scan (S6)"),
    "rwkv": AttentionType("state space", "O(N)", "linear attention with learned decay"),
    "hyena": AttentionType("convolution", "O(N log N)", "long convolution with gating"),
    "sparse_attention": AttentionType("sparse", "O(NK)", "top-k logits survive"),
    "local_attention": AttentionType("sparse", "O(NW)", "within a space-time window"),
    "none": AttentionType("meta", "0", "declared but disabled"),
    "random_fixed": AttentionType("meta", "O(NK)", "fixed random subset"),
    "mixture": AttentionType("meta", "O(NK)", "learned router to a subset"),
}


def require_attention_type(name: str, where: str) -> None:
    """Raises UnknownAttentionTypeError, naming `where`, unless `name` is registered."""
    if not isinstance(name, str) or name not in ATTENTION_TYPES:
        raise UnknownAttentionTypeError(
            f"{where}: expected one of {', '.join(ATTENTION_TYPES)}; got {shown(name)}"
        )
