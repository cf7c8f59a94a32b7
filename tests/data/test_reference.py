"""What BridgeV2 gives is what tensorflow-datasets gives, step by step; checked on real data."""

import numpy as np
import pytest

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.reference import tfds_episodes


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("camera", ["image_0", "image_1", "image_2", "image_3"])
def test_every_step_is_equal(bridge_sample, tmp_path, split, camera):
    ours = BridgeV2(bridge_sample, split, camera, index_dir=tmp_path)
    theirs = list(tfds_episodes(bridge_sample, split, camera))
    assert len(ours) == len(theirs) == 25
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine.name, mine.instruction) == (reference.name, reference.instruction)
        for field in ("images", "states", "actions", "stamps_ns"):
            mine_rows, reference_rows = getattr(mine, field), getattr(reference, field)
            assert mine_rows.dtype == reference_rows.dtype
            np.testing.assert_array_equal(mine_rows, reference_rows)
