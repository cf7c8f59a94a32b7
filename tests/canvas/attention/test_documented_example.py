"""The example of docs/schemas.md that uses CanvasAttention runs and asserts what it says."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[3] / "docs" / "schemas.md"


def test_the_example_on_the_page_runs():
    section = PAGE.read_text(encoding="utf-8").split("## The attention alone")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {}
    torch.manual_seed(0)
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["out"].shape == (2, 48, 64)
