"""The residual edge functions: one class for each function type that is not the backbone's own.

Which rows an edge reads, its zero gate and its weight are the executor's; see `interface` for what
the two agree on.
"""

from canvas_robot.canvas.attention.functions.compression import Perceiver, Pooling
from canvas_robot.canvas.attention.functions.convolution import Hyena
from canvas_robot.canvas.attention.functions.dot_product import (
    CosineAttention,
    GatedAttention,
    LinearAttention,
    SigmoidAttention,
)
from canvas_robot.canvas.attention.functions.interface import (
    EdgeFunction,
    EdgeGeometry,
    EdgeOptions,
    EdgeOptionsError,
    EdgeShapeError,
)
from canvas_robot.canvas.attention.functions.routing import Mixture
from canvas_robot.canvas.attention.functions.sparse import (
    LocalAttention,
    RandomFixed,
    SparseAttention,
)
from canvas_robot.canvas.attention.functions.state_space import RWKV, Mamba
from canvas_robot.canvas.attention.functions.transfer import Copy

EDGE_FUNCTIONS: dict[str, type[EdgeFunction]] = {
    "linear_attention": LinearAttention,
    "cosine_attention": CosineAttention,
    "sigmoid_attention": SigmoidAttention,
    "gated": GatedAttention,
    "perceiver": Perceiver,
    "pooling": Pooling,
    "copy": Copy,
    "mamba": Mamba,
    "rwkv": RWKV,
    "hyena": Hyena,
    "sparse_attention": SparseAttention,
    "local_attention": LocalAttention,
    "random_fixed": RandomFixed,
    "mixture": Mixture,
}

__all__ = [
    "EDGE_FUNCTIONS",
    "EdgeFunction",
    "EdgeGeometry",
    "EdgeOptions",
    "EdgeOptionsError",
    "EdgeShapeError",
]
