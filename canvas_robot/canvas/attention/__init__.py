"""Attention by topology: one softmax per row over what it reads, residual edges of other types."""

from canvas_robot.canvas.attention.canvas_attention import CanvasAttention
from canvas_robot.canvas.attention.functions.interface import EdgeOptions

__all__ = ["CanvasAttention", "EdgeOptions"]
