"""Laws of batches: the sampler's order whatever the workers, and a place that counts deliveries."""

import importlib
import json
import sys
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from canvas_robot.data.batches import Batch, Stacked, WindowLoader, collate
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.sampling import WindowSampler
from canvas_robot.data.transitions import DataRules, chosen
from canvas_robot.data.windows import Draw, WindowError, WindowReader
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import load_binding
from canvas_robot.signals.signal import ImageSignal

RULES = DataRules()
LENGTHS = (9, 3, 6, 12, 4)


@pytest.fixture(scope="module")
def made_up():
    """The module made_up_dataset beside this file; worker processes find it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("made_up_dataset")
        sys.modules.pop("made_up_dataset")


def reader_of(dataset):
    schema = CanvasSchema.from_json(config_path("schemas", "widowx_tiny.json"))
    binding = load_binding(config_path("bindings", "widowx.yaml"))
    image = ImageSignal(sizes=((4, 6), (64, 64)))
    binding = msgspec.structs.replace(binding, signals=binding.signals | {"image": image})
    return WindowReader(dataset, schema, binding, RULES)


def loader_of(dataset, workers=0, **changes):
    reader, selection = reader_of(dataset), chosen(dataset, RULES, ["image_0"])
    arguments = {"seed": 5, "clips_per_visit": 2, "phases": reader.phases} | changes
    sampler = WindowSampler(selection.counts, selection.episodes, 4, **arguments)
    return WindowLoader(reader, sampler, workers)


def draws_of(batch):
    return list(zip(batch.names, batch.steps.tolist(), batch.phases.tolist(), strict=True))


def expected(dataset, epochs=1):
    """By the sampler alone, (name, step, phase) of each window of each batch."""
    sampler = loader_of(dataset).sampler
    return [
        [(dataset.name(draw.episode), draw.step, draw.phase) for draw in draws]
        for _ in range(epochs)
        for draws in sampler
    ]


def assert_equal(batch, other):
    assert draws_of(batch) == draws_of(other) and batch.instructions == other.instructions
    for part in ("frames", "targets", "past"):
        assert getattr(batch, part).keys() == getattr(other, part).keys()
        for region, stacked in getattr(batch, part).items():
            for mine, its in zip(stacked, getattr(other, part)[region], strict=True):
                assert mine.dtype == its.dtype and torch.equal(mine, its)


# Stacking.


def test_a_batch_stacks_what_the_windows_hold(made_up):
    reader = reader_of(made_up.MadeUpDataset(*LENGTHS))
    windows = [reader.windows([draw])[0] for draw in (Draw(0, 2), Draw(3, 9), Draw(0, 6, 1))]
    batch = collate(windows)
    assert len(batch) == 3
    shapes = {"visual": (3, 1, 4, 6, 3), "proprio": (3, 2, 7), "action": (3, 4, 7)}
    stacked = batch.frames | batch.targets
    assert {region: tuple(values.shape) for region, (values, _) in stacked.items()} == shapes
    dtypes = {"visual": torch.uint8, "proprio": torch.float32, "action": torch.float32}
    assert {region: values.dtype for region, (values, _) in stacked.items()} == dtypes
    for row, window in enumerate(windows):
        for region, frames in (window.frames | window.targets).items():
            values, missing = stacked[region]
            assert np.array_equal(values[row].numpy(), frames.values)
            assert missing.dtype == torch.bool
            assert missing[row].tolist() == frames.missing.tolist()
    assert draws_of(batch) == [("made up/0", 2, 0), ("made up/3", 9, 0), ("made up/0", 6, 1)]
    assert batch.instructions == ["do 0", "do 3", "do 0"] and batch.past == {}
    assert batch.steps.dtype == batch.phases.dtype == torch.int64


def test_pictures_of_several_sizes_are_not_stacked(made_up):
    reader = reader_of(made_up.MadeUpDataset(*LENGTHS))
    first, other = reader.windows([Draw(0, 0), Draw(0, 1)])
    frames = other.frames["visual"]
    larger = type(frames)(np.zeros((1, 8, 8, 3), np.uint8), frames.stamps_ns, frames.missing)
    other.frames["visual"] = larger
    with pytest.raises(WindowError) as error:
        collate([first, other])
    assert str(error.value) == (
        "region 'visual': expected frames of one size in a batch, got (1, 4, 6, 3) of episode "
        "'made up/0' and (1, 8, 8, 3) of 'made up/0'"
    )


def test_a_batch_moves_as_a_whole():
    one = {"a": Stacked(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.bool))}
    batch = Batch(one, one, ["do"], ["it"], torch.tensor([1]), torch.tensor([0]), one)
    moved = batch.to("meta")
    tensors = [*moved.frames["a"], *moved.targets["a"], *moved.past["a"], moved.steps, moved.phases]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.names, moved.instructions) == (["it"], ["do"])
    assert batch.steps.device.type == "cpu"


# Order and place.


def test_batches_are_the_samplers_without_workers(made_up):
    dataset = made_up.MadeUpDataset(*LENGTHS)
    loader = loader_of(dataset)
    read = [draws_of(batch) for _ in range(2) for batch in loader]
    assert read == expected(dataset, epochs=2)
    assert len(read) == 2 * len(loader)


def test_each_record_is_read_once(made_up):
    dataset = made_up.MadeUpDataset(*LENGTHS)
    names = {name for batch in loader_of(dataset) for name in batch.names}
    assert sorted(dataset.reads) == sorted(int(name.split("/")[1]) for name in names)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_and_a_place_counts_what_was_handed_out(made_up, workers):
    dataset = made_up.MadeUpDataset(*LENGTHS)
    plain, loader = loader_of(dataset), loader_of(dataset, workers)
    for batch, other in zip(plain, islice(loader, 3), strict=False):
        assert_equal(batch, other)
        assert loader.state_dict() == plain.state_dict()
        if plain.sampler.batch == 3:
            break
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["batch"] == 3, "however many the workers read ahead"
    # What was read ahead when the iteration was left does not come again later.
    rest = [draws_of(batch) for batch in loader]
    assert rest == expected(dataset)[3:]
    second = [draws_of(batch) for batch in islice(loader, 2)]
    assert second == expected(dataset, epochs=2)[len(plain) :][:2]
    resumed = loader_of(dataset)
    resumed.load_state_dict(state)
    assert [draws_of(batch) for batch in resumed] == rest


def test_batches_stay_as_they_were_handed_out(made_up):
    """A worker writes to the same memory again and again; what was handed out is not there."""
    here, kept = (list(loader_of(made_up.MadeUpDataset(*LENGTHS), workers)) for workers in (0, 1))
    assert len(kept) > 3  # more than a worker has room for
    for batch, same in zip(kept, here, strict=True):
        tensors, expected = [], []
        batch.each(tensors.append)
        same.each(expected.append)
        assert all(map(torch.equal, tensors, expected)) and len(tensors) == len(expected) > 5
        assert batch.instructions == same.instructions


def test_torchs_own_random_numbers_are_not_used(made_up):
    before = torch.get_rng_state()
    for _ in loader_of(made_up.MadeUpDataset(*LENGTHS)):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_are_without_tensorflow_and_have_one_thread(made_up):
    dataset = made_up.AboutItsProcess(*LENGTHS)
    batch = next(iter(loader_of(dataset, workers=1)))
    assert set(batch.instructions) == {"TensorFlow: False, threads: (1, 1)"}


def test_real_episodes_are_read_by_a_worker_as_here(bridge_sample):
    dataset = BridgeV2(bridge_sample)
    for batch, other in zip(loader_of(dataset), islice(loader_of(dataset, 1), 3), strict=False):
        assert_equal(batch, other)
        assert batch.frames["visual"].values.shape == (4, 1, 64, 64, 3)


# Failing.


@pytest.mark.parametrize("workers", [0, 1])
def test_an_episode_that_cannot_be_read_is_named(made_up, workers):
    loader = loader_of(made_up.Damaged(*LENGTHS), workers, shuffle="none")
    with pytest.raises(WindowError, match=r"^episode 'made up/2' \(number 2\): stored bytes are"):
        for batch in loader:
            assert "made up/2" not in batch.names
    assert loader.state_dict()["batch"] == 2, "the batch that failed was not handed out"
