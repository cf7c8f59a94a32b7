"""A copy of a checkpoint whose loops after the first add nothing: a control of what they are worth.

Run it: .venv/bin/python tools/close_loop_gates.py CHECKPOINT OUT
"""

import argparse
from pathlib import Path

import torch

from canvas_robot.backbone.looped_block import LoopedCogVideoXBlock
from canvas_robot.policy.checkpoint import load_checkpoint, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help='its folder, or "demo"')
    parser.add_argument("out", type=Path, help="folder to write")
    words = parser.parse_args()
    policy = load_checkpoint(words.checkpoint)
    blocks = [m for m in policy.model.modules() if isinstance(m, LoopedCogVideoXBlock)]
    with torch.no_grad():
        for number, block in enumerate(blocks):
            gates = [round(gate, 3) for gate in block.loop_gate.flatten().tolist()]
            print(f"block {number}: gates {gates}")
            block.loop_gate[1:] = 0.0
    print(save_checkpoint(policy, words.out, whole=True))


if __name__ == "__main__":
    main()
