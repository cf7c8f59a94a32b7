"""Timing of whole decisions: from raw samples to the action chunk."""

from __future__ import annotations

import platform
import time

import numpy as np
import torch

from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.settings import PolicySettings

WARM_UP = 5


def bench_policy(checkpoint: str, decisions: int, threads: int) -> dict:
    """Times decisions on random 640x480 pictures, each new, and random states.

    Returns milliseconds (median, 95% and 99% quantile of the whole; medians of codecs and forward)
    and what was run: threads, rows, blocks, loops, width, trained.
    """
    if threads:
        torch.set_num_threads(threads)
    policy = assemble_policy(PolicySettings(checkpoint=checkpoint))
    policy.reset("touch the red cube")
    random = np.random.default_rng(0)
    samples = [
        {
            "image": random.integers(0, 256, (480, 640, 3), dtype=np.uint8),
            "state": np.array([0.3, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0]),
        }
        for _ in range(decisions + WARM_UP)
    ]
    whole, codec, forward = [], [], []
    for sample in samples:
        started = time.perf_counter()
        chunk = policy.act(sample)
        whole.append((time.perf_counter() - started) * 1e3)
        codec.append(chunk.timings_ms["codec"])
        forward.append(chunk.timings_ms["forward"])
    config = policy.model.runner.transformer.config
    return {
        "decision_p50_ms": float(np.percentile(whole[WARM_UP:], 50)),
        "decision_p95_ms": float(np.percentile(whole[WARM_UP:], 95)),
        "decision_p99_ms": float(np.percentile(whole[WARM_UP:], 99)),
        "codec_p50_ms": float(np.median(codec[WARM_UP:])),
        "forward_p50_ms": float(np.median(forward[WARM_UP:])),
        "rows": policy.model.plan.n_rows,
        "blocks": config.num_layers,
        "loops": policy.model.plan.loops,
        "width": config.num_attention_heads * config.attention_head_dim,
        "trained": policy.trained,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }
