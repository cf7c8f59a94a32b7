"""Geometries of boxes, and small options that leave something out."""

import pytest
import torch

from canvas_robot.canvas.attention.functions import EdgeGeometry, EdgeOptions


def box_cells(groups, box):
    """(G, t h w, 3) cells: group g fills h x w of the t steps from g t on."""
    t, h, w = box
    axes = torch.arange(t), torch.arange(h), torch.arange(w)
    cells = torch.cartesian_prod(*axes).view(-1, 3)
    first = torch.tensor([[[g * t, 0, 0]] for g in range(groups)])
    return cells + first


@pytest.fixture(scope="session")
def boxes():
    def make(groups, src, dst):
        return EdgeGeometry(
            box_cells(groups, src), box_cells(groups, dst), tuple(src[1:]), tuple(dst[1:])
        )

    return make


@pytest.fixture(scope="session")
def options():
    return EdgeOptions(
        top_k=3, window=(1, 1, 1), latents=3, random_keys=3, routed_keys=4, state_size=3
    )


@pytest.fixture(scope="session")
def rows():
    def make(geometry, width, batch=2, dtype=torch.float64, seed=0):
        """Random src and dst rows for a geometry."""
        generator = torch.Generator().manual_seed(seed)
        groups = geometry.groups
        return tuple(
            torch.randn(batch, groups, n, width, dtype=dtype, generator=generator)
            for n in (geometry.src_rows, geometry.dst_rows)
        )

    return make
