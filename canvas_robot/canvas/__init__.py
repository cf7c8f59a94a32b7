"""Tensors on the declared grid."""

from canvas_robot.canvas.spatiotemporal import SpatiotemporalCanvas

__all__ = ["SpatiotemporalCanvas"]
