"""CanvasAttention beside canvas-engineering 0.5.0's AttentionDispatcher, in a process of its own.

That version bears the same package name as 0.1.0 and its masks are others; the folder that holds it
comes first on this process's path: `python -m canvas_robot.evaluation.dispatcher_bench FOLDER`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from canvas_robot.evaluation.canvas_bench import (
    MEDIUM,
    alternate,
    attention_and_masked,
    striped_schema,
)

VERSION = "0.5.0"


def bench_dispatcher(folder: Path, threads: int, runs: int) -> dict:
    """Figures of a child process that finds canvas-engineering 0.5.0 in `folder`.

    Raises RuntimeError when it is not there; the message says how to get it.
    """
    if not (folder / "canvas_engineering" / "dispatch.py").is_file():
        raise RuntimeError(
            f"{folder}: expected canvas-engineering {VERSION} there; run: "
            f"pip install --no-deps --target {folder} canvas-engineering=={VERSION}"
        )
    words = [sys.executable, "-m", __name__, str(folder.resolve()), str(threads), str(runs)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{folder}: the comparison failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(threads: int, runs: int) -> dict:
    """Median milliseconds of both and of one masked attention, in turns, and the ratios."""
    import canvas_engineering as other
    import torch
    from canvas_engineering.dispatch import AttentionDispatcher

    torch.set_num_threads(threads)
    schema = striped_schema(MEDIUM, "causal_temporal", d_model=256)
    layout = schema.layout
    their_layout = other.CanvasLayout(
        T=layout.T, H=layout.H, W=layout.W, d_model=layout.d_model, regions=layout.regions
    )
    their_topology = other.CanvasTopology.causal_temporal(list(layout.regions))
    ours, masked = attention_and_masked(schema, n_heads=8)
    dispatcher = AttentionDispatcher(their_topology, their_layout, layout.d_model, n_heads=8)
    functions = {"ours": ours, "dispatcher": dispatcher, "masked": masked}
    times = alternate(functions, schema, runs)
    return {
        "ours_ms": times["ours"],
        "dispatcher_0_5_0_ms": times["dispatcher"],
        "masked_sdpa_ms": times["masked"],
        "ratio_to_dispatcher": times["dispatcher"] / times["ours"],
        "ratio_to_masked_sdpa": times["masked"] / times["ours"],
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    print(json.dumps(compare(int(sys.argv[2]), int(sys.argv[3]))))
