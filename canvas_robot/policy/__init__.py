"""The policy: codecs, heads, the plan's runner, CanvasPolicy and its checkpoints."""
