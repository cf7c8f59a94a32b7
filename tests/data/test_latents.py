"""Laws of latent caches: they hold what the codec gives, however often the run was broken off.

What does not fit is refused by field, what is spoilt by its path.
"""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from canvas_robot.backbone.loading import load_backbone
from canvas_robot.data import latents as latents_module
from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.crops import crop_box
from canvas_robot.data.encode_dataset import PROMPTS, EncodingReport, encode_dataset
from canvas_robot.data.encoding import (
    EncodingPlan,
    camera_sizes,
    latent_keys,
    open_latents,
    plan_encoding,
)
from canvas_robot.data.latent_files import (
    LatentCacheError,
    LatentManifest,
    RangeNote,
    Recipe,
    tensor_name,
)
from canvas_robot.data.latents import LatentCache
from canvas_robot.data.transitions import DataRules
from canvas_robot.data.windows import Draw, WindowReader
from canvas_robot.policy.codecs.text import PromptTooLongError, prompt_embedding
from canvas_robot.policy.codecs.visual import VisualCodec
from canvas_robot.policy.model import CanvasModel
from canvas_robot.policy.prompts import open_prompts
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Binding, Frames, load_binding, load_statistics
from canvas_robot.signals.binding import binding_from_yaml

WIDOWX = load_binding(config_path("bindings", "widowx.yaml"))
RECIPE = Recipe(data="/data", backbone="tiny", schema="small.json", binding="widowx.yaml")
COMMAND = (
    "canvas-robot data encode /data --backbone tiny --schema small.json --binding widowx.yaml "
    "--out {} --split train --crops {} --dtype float32"
)
# A float16 has 11 significant bits. Batches of one size give equal float32 latents; of other sizes
# they may differ in their last bits, which may tip the rounding.
ROUNDING = {"rtol": 2**-10, "atol": 2e-5}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny")


class MadeUpEpisode:
    """Smooth pictures, other ones at every step; those of image_1 are black in odd episodes."""

    def __init__(self, number: int, steps: int) -> None:
        self.name, self.instruction = f"made up/{number}", f"do {number % 5}"
        self._number, self._steps = number, steps

    def __len__(self) -> int:
        return self._steps

    def images(self, camera: str, steps) -> np.ndarray:
        rows, columns = np.mgrid[:36, :48]
        black = camera == "image_1" and self._number % 2
        waves = [
            [np.sin(rows / (3 + step) + c) + np.cos(columns / (2 + self._number % 7) + c)]
            for step in steps
            for c in range(3)
        ]
        images = np.reshape(waves, (len(steps), 3, 36, 48)).transpose(0, 2, 3, 1)
        return (np.zeros_like(images) if black else 127 + 60 * images).astype(np.uint8)


class MadeUp:
    """Data in memory: 36 episodes of 1 to 3 steps."""

    split, cameras = "train", ("image_0", "image_1")
    fingerprint = "0123456789abcdef" * 4

    def __init__(self, episodes: int = 36) -> None:
        self.steps = np.arange(episodes, dtype=np.int32) % 3 + 1
        self.pictures = np.stack([np.ones(episodes, bool), np.arange(episodes) % 2 == 0], axis=1)

    def __len__(self) -> int:
        return len(self.steps)

    def read(self, index: int) -> MadeUpEpisode:
        return MadeUpEpisode(index, int(self.steps[index]))


def small_schema(**visual: list[int]) -> CanvasSchema:
    """widowx_tiny with pictures of 2 x 2 patches, 32 x 32 pixels; more visual regions by bounds."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["layout"].update(H=9, W=16)
    regions = data["regions"]
    for name, bounds in {
        "visual": [1, 2, 0, 2, 0, 2],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
    }.items():
        regions[name]["bounds"] = bounds
    for name, bounds in visual.items():
        regions[name] = regions["visual"] | {"bounds": bounds}
    return CanvasSchema.from_dict(data)


def bound(regions: dict[str, str], cameras: dict[str, str]) -> Binding:
    """The shipped binding with more visual regions, by signal, and their cameras."""
    data = msgspec.to_builtins(WIDOWX)
    for name in cameras:
        data["signals"][name] = data["signals"]["image"]
    data["regions"] |= {name: {"signal": s, "codec": "visual"} for name, s in regions.items()}
    data["sources"]["dataset"] |= cameras
    return binding_from_yaml(json.dumps(data))


SCHEMA = small_schema()
TWO = (
    small_schema(wrist=[1, 2, 0, 2, 2, 4], large=[1, 2, 0, 4, 4, 8], same=[1, 2, 2, 4, 0, 2]),
    bound({"wrist": "wrist", "large": "image", "same": "image"}, {"wrist": "image_1"}),
)


def plan(folder, backbone, dataset=None, schema=SCHEMA, binding=WIDOWX, crops=1) -> EncodingPlan:
    dataset = dataset or MadeUp()
    return plan_encoding(dataset, folder, schema, binding, backbone, RECIPE, crops)


def encoded(folder, backbone, dataset=None, **options) -> EncodingReport:
    return encode_dataset(plan(folder, backbone, dataset, **options))


def opened(folder, backbone, dataset=None, crops=1) -> LatentCache:
    dataset = dataset or MadeUp()
    return open_latents(folder, dataset, SCHEMA, WIDOWX, backbone, crops)["visual"]


def contents(folder: Path) -> dict[str, bytes]:
    """By path, the bytes of all files below a folder; of prompts those of the embedding."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): load_file(path)["embedding"].tobytes()
        if path.parent.name == PROMPTS and path.suffix == ".safetensors"
        else path.read_bytes()
        for path in files
    }


@pytest.fixture(scope="module")
def kept(tmp_path_factory, backbone) -> Path:
    """A whole cache of the made-up data, two crops; tests only read it."""
    folder = tmp_path_factory.mktemp("kept")
    encoded(folder, backbone, crops=2)
    return folder


@pytest.fixture
def folder(tmp_path, kept) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(kept, tmp_path / "cache"))


def codec(backbone) -> VisualCodec:
    """A policy's own."""
    statistics = load_statistics(config_path("statistics", "bridge_v2.json"))
    fresh = load_backbone("tiny", backbone.vae.dtype)  # a model grafts its backbone
    return CanvasModel(SCHEMA, WIDOWX, statistics, fresh, 1).codec("visual")


def each_alone(codec: VisualCodec, images: np.ndarray) -> torch.Tensor:
    """What the model's codec makes of images, one by one, in float16."""
    stamps = np.arange(1, len(images) + 1, dtype=np.int64)
    return codec.encode(Frames(images, stamps, np.zeros(len(images), bool))).half()


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_frame_of_the_real_sample_is_what_the_codec_gives(bridge_sample, tmp_path, dtype):
    backbone = load_backbone("tiny", dtype)
    dataset = BridgeV2(bridge_sample, index_dir=tmp_path)
    report = encoded(tmp_path, backbone, dataset)
    assert (report.latents, report.files_made) == (dataset.steps.sum(), 2)
    cache, encode = opened(tmp_path, backbone, dataset), codec(backbone)
    for number, episode in enumerate(dataset):
        found = torch.from_numpy(cache.frames(number, range(len(episode))))
        expected = each_alone(encode, episode.images)
        torch.testing.assert_close(found, expected, **ROUNDING)


def test_a_window_of_latents_is_that_of_pictures_encoded(bridge_sample, tmp_path, backbone):
    dataset = BridgeV2(bridge_sample, index_dir=tmp_path)
    schema = small_schema(early=[0, 2, 0, 2, 2, 4])
    binding = bound({"early": "image"}, {})
    encode_dataset(plan_encoding(dataset, tmp_path, schema, binding, backbone, RECIPE))
    latents = open_latents(tmp_path, dataset, schema, binding, backbone)
    draws, encode = [Draw(7, step) for step in (0, 1, 7)], codec(backbone)
    pictures = WindowReader(dataset, schema, binding, DataRules()).windows(draws)
    windows = WindowReader(dataset, schema, binding, DataRules(), latents).windows(draws)
    for shown, window in zip(pictures, windows, strict=True):
        for region, steps in (("visual", 1), ("early", 2)):
            frames = window.frames[region]
            assert frames.values.shape == (steps, 8, 4, 4) and frames.values.dtype == np.float16
            assert np.array_equal(frames.missing, shown.frames[region].missing)
            expected = each_alone(encode, shown.frames[region].values)
            torch.testing.assert_close(torch.from_numpy(frames.values), expected, **ROUNDING)


def test_every_crop_is_the_codecs_latents_of_its_box(kept, backbone):
    dataset, cache, encode = MadeUp(), opened(kept, backbone, crops=2), codec(backbone)
    for number in range(0, len(dataset), 5):
        stored = dataset.read(number)
        images = stored.images("image_0", range(len(stored)))
        for crop in range(2):
            box = crop_box(dataset.fingerprint, number, crop, images.shape[1:3])
            found = torch.from_numpy(cache.frames(number, range(len(stored)), crop))
            expected = each_alone(encode, np.ascontiguousarray(box.of(images)))
            torch.testing.assert_close(found, expected, **ROUNDING)


def test_steps_come_in_the_order_asked_as_often_as_asked(kept, backbone):
    cache = opened(kept, backbone, crops=2)
    whole = cache.frames(2, [0, 1, 2])
    assert whole.shape == (3, 8, 4, 4) and whole.dtype == np.float16
    assert np.array_equal(cache.frames(2, [2, 0, 0, 1]), whole[[2, 0, 0, 1]])
    assert np.array_equal(cache.frames(2, np.array([1])), whole[1:2])


def test_what_is_read_may_be_written_into(kept, backbone):
    cache = opened(kept, backbone, crops=2)
    cache.frames(2, [0])[:] = 0
    assert cache.frames(2, [0]).any()


@pytest.mark.parametrize(
    "episode, steps, crop, text",
    [
        (0, [1], 0, "episode 0: expected steps from 0 to 0, got [1]"),
        (2, [0, -1], 0, "episode 2: expected steps from 0 to 2, got [0, -1]"),
        (2, [], 0, "episode 2: expected steps from 0 to 2, got []"),
        (36, [0], 0, "expected an episode below 36 and a crop below 2, got 36 and 0"),
        (-1, [0], 0, "expected an episode below 36 and a crop below 2, got -1 and 0"),
        (0, [0], 2, "expected an episode below 36 and a crop below 2, got 0 and 2"),
    ],
)
def test_what_is_not_there_is_refused(kept, backbone, episode, steps, crop, text):
    with pytest.raises(IndexError) as error:
        opened(kept, backbone, crops=2).frames(episode, steps, crop)
    assert str(error.value) == f"{kept / 'train-image_0-32x32'}: {text}"


def test_regions_have_the_sizes_of_their_codecs_and_share_what_is_the_same(tmp_path, backbone):
    schema, binding = TWO
    sizes = camera_sizes(schema, binding, backbone.pixels_per_token)
    assert sizes == {
        "visual": ("image_0", (32, 32)),
        "wrist": ("image_1", (32, 32)),
        "large": ("image_0", (64, 64)),
        "same": ("image_0", (32, 32)),
    }
    assert sizes["visual"][1] == codec(backbone).image_size
    encoded(tmp_path, backbone, schema=schema, binding=binding)
    caches = open_latents(tmp_path, MadeUp(), schema, binding, backbone)
    assert {region: cache.folder.name for region, cache in caches.items()} == {
        "visual": "train-image_0-32x32",
        "wrist": "train-image_1-32x32",
        "large": "train-image_0-64x64",
        "same": "train-image_0-32x32",
    }
    assert caches["same"] is caches["visual"]
    assert caches["large"].frames(2, [1]).shape == (1, 8, 8, 8)


def test_an_episode_that_lacks_a_camera_takes_the_room_of_one_frame(tmp_path, backbone):
    schema, binding = TWO
    made = plan(tmp_path, backbone, schema=schema, binding=binding)
    encode_dataset(made)
    wrist = open_latents(tmp_path, MadeUp(), schema, binding, backbone)["wrist"]
    black = each_alone(codec(backbone), np.zeros((1, 36, 48, 3), np.uint8))
    found = torch.from_numpy(wrist.frames(5, [0, 1, 2]))
    torch.testing.assert_close(found, black.expand(3, -1, -1, -1), **ROUNDING)
    with pytest.raises(IndexError, match="expected steps from 0 to 2, got \\[3\\]"):
        wrist.frames(5, [3])
    stored = load_file(wrist.folder / "000000-000015.safetensors")
    assert [len(stored[tensor_name(episode, 0)]) for episode in (4, 5)] == [2, 1]
    files = (file for file in tmp_path.glob("*/*.safetensors") if file.parent.name != PROMPTS)
    tensors = [tensor for file in files for tensor in load_file(file).values()]
    assert made.bytes_expected == sum(tensor.nbytes for tensor in tensors)


def test_splits_lie_side_by_side(folder, backbone):
    val = MadeUp(2)
    val.split, val.fingerprint = "val", "f" * 64
    encoded(folder, backbone, val)
    assert opened(folder, backbone, val).manifest.episodes == 2
    assert opened(folder, backbone).manifest.episodes == 36


# ---------------------------------------------------------------- instructions


def test_every_instruction_has_the_text_encoders_embedding(kept, backbone):
    prompts = open_prompts(kept / PROMPTS, backbone)
    assert prompts.prompts() == [f"do {number}" for number in range(5)]
    expected = prompt_embedding(backbone.text_encoder, backbone.tokenizer, "do 3", 128)
    assert torch.equal(prompts.load("do 3"), expected)


def test_embeddings_that_were_lost_are_made_again_without_encoding_frames(folder, backbone):
    before = contents(folder)
    for path in (folder / PROMPTS).iterdir():
        path.unlink()
    report = encoded(folder, backbone, crops=2)
    assert report == EncodingReport(0, 3, 0, prompts_made=5, prompts_kept=0)
    assert contents(folder) == before


def test_instructions_that_are_too_long_are_named_when_all_else_is_done(tmp_path, backbone):
    class Wordy(MadeUp):
        def read(self, index):
            episode = super().read(index)
            episode.instruction = "a" * 128 if index == 1 else episode.instruction
            return episode

    with pytest.raises(PromptTooLongError) as error:
        encoded(tmp_path, backbone, Wordy())
    assert str(error.value) == (
        "1 of 6 instructions have more than the 128 tokens of the text stream, and no embedding; "
        f"the latents are whole. The first: {'a' * 128!r}; use a backbone with a longer text stream"
    )
    assert opened(tmp_path, backbone, Wordy()).manifest.files == 3
    assert len(open_prompts(tmp_path / PROMPTS, backbone).prompts()) == 5


# ---------------------------------------------------------------- going on


def test_a_whole_cache_is_left_as_it_is(folder, backbone):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    report = encoded(folder, backbone, crops=2)
    assert report == EncodingReport(0, 3, 0, prompts_made=0, prompts_kept=5)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("keep", [None, 0, 100, -1], ids=["lost", "empty", "header", "cut"])
def test_files_that_are_lost_or_cut_are_made_again_byte_for_byte(folder, backbone, keep):
    before = contents(folder)
    path = folder / "train-image_0-32x32" / "000016-000031.safetensors"
    path.write_bytes(path.read_bytes()[:keep]) if keep is not None else path.unlink()
    report = encoded(folder, backbone, crops=2)
    assert (report.files_made, report.files_kept, report.latents) == (1, 2, 2 * 32)
    assert contents(folder) == before


def killed_after(latents: int, folder: str) -> None:
    """Encodes as `kept` is encoded, in a process that is killed after so many latents."""

    def kill(done: int, total: int) -> None:
        if done >= latents:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    encode_dataset(plan(Path(folder), load_backbone("tiny"), crops=2), progress=kill)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path, kept, backbone):
    out = tmp_path / "cache"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_latents; "
        f"test_latents.killed_after(100, {str(out)!r})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    there = [path.name for path in (out / "train-image_0-32x32").iterdir()]
    assert sorted(there) == ["000000-000015.safetensors", "manifest.json"]
    with pytest.raises(LatentCacheError) as error:
        opened(out, backbone)
    assert str(error.value) == (
        f"{out / 'train-image_0-32x32'}: not whole: expected 3 files, got 1; missing episodes "
        f"16 to 31, 32 to 35; finish it with: {COMMAND.format(out, 2)}"
    )
    report = encoded(out, backbone, crops=2)
    assert (report.files_made, report.files_kept) == (2, 1)
    assert contents(out) == contents(kept)


def test_a_run_that_fails_leaves_no_part_of_a_file(tmp_path, backbone):
    class Damaged(MadeUp):
        def read(self, index):
            if index == 20:
                raise OSError("stored bytes are damaged")
            return super().read(index)

    with pytest.raises(OSError, match="stored bytes are damaged"):
        encoded(tmp_path, backbone, Damaged(), crops=2)
    there = [path.name for path in (tmp_path / "train-image_0-32x32").iterdir()]
    assert sorted(there) == ["000000-000015.safetensors", "manifest.json"]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_share_the_work_give_what_one_gives(tmp_path, kept, backbone, processes):
    shared = plan(tmp_path, backbone, crops=2)
    reports = [encode_dataset(shared, index, processes) for index in range(processes)]
    assert [report.files_made for report in reports] == {2: [2, 1], 4: [1, 1, 1, 0]}[processes]
    assert contents(tmp_path) == contents(kept)


def test_progress_ends_at_all_that_was_planned_and_counts_what_is_there(folder, backbone):
    (folder / "train-image_0-32x32" / "000016-000031.safetensors").unlink()
    seen = []
    made = plan(folder, backbone, crops=2)
    encode_dataset(made, progress=lambda *counts: seen.append(counts))
    assert seen == sorted(seen) and seen[0] == (2 * 31, 2 * 72) and seen[-1] == (2 * 72, 2 * 72)


def test_a_plan_tells_how_many_bytes_it_takes_and_how_many_are_there(folder, backbone):
    (folder / "train-image_0-32x32" / "000016-000031.safetensors").unlink()
    made, latent = plan(folder, backbone, crops=2), 2 * 8 * 4 * 4
    assert made.bytes_expected == 72 * 2 * latent
    assert made.bytes_expected - made.bytes_there == 32 * 2 * latent


def test_a_disk_that_is_too_small_is_refused_before_anything_is_encoded(
    tmp_path, backbone, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 18_431))
    made = plan(tmp_path, backbone)
    with pytest.raises(OSError) as error:
        made.require_space()
    assert str(error.value) == (
        f"{tmp_path}: the latents need 18.4 kB, 18.4 kB are free; "
        "make room, or choose another disk with --out or fewer --crops"
    )
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 18_432))
    made.require_space()


def test_latents_that_float16_does_not_hold_are_refused(tmp_path):
    loud = load_backbone("tiny")
    with torch.no_grad():
        loud.vae.encoder.conv_out.conv.weight.mul_(1e6)
    with pytest.raises(LatentCacheError) as error:
        encoded(tmp_path, loud)
    assert str(error.value) == (
        "episode 'made up/0': image_0: expected latents that float16 holds, up to 65504, got "
        "larger ones or NaN; the VAE computes in float32: try --dtype float32"
    )
    assert not list(tmp_path.rglob("0*"))


def test_data_without_episodes_is_refused(tmp_path, backbone):
    with pytest.raises(LatentCacheError, match="expected episodes, and a region of codec visual"):
        plan_encoding(MadeUp(0), tmp_path, SCHEMA, WIDOWX, backbone, RECIPE)


def test_a_camera_that_the_data_lacks_is_refused(tmp_path, backbone):
    with pytest.raises(LatentCacheError) as error:
        plan(tmp_path, backbone, binding=bound({"visual": "wrist"}, {"wrist": "image_7"}))
    message = str(error.value)
    assert message.startswith("binding: sources.dataset: region 'visual': expected a camera of ")
    assert message.endswith(", image_0 or image_1; got 'image_7'")


def test_a_camera_that_the_binding_has_no_source_for_is_refused(tmp_path, backbone):
    data = msgspec.to_builtins(WIDOWX)
    del data["sources"]["dataset"]["image"]
    with pytest.raises(LatentCacheError) as error:
        plan(tmp_path, backbone, binding=binding_from_yaml(json.dumps(data)))
    assert str(error.value) == (
        "binding: sources.dataset: expected the camera of signal 'image', which region 'visual' "
        "shows; got those of ['state']"
    )


def test_a_schema_for_another_backbone_is_refused(backbone):
    large = CanvasSchema.from_json(config_path("schemas", "widowx_bridge_2b.json"))
    with pytest.raises(LatentCacheError) as error:
        latent_keys(MadeUp(), large, WIDOWX, backbone)
    assert str(error.value) == (
        "schema: expected d_model 128, the width of backbone 'tiny', got 1920; "
        "choose the schema made for it"
    )


def test_a_framing_that_is_not_cached_is_refused(backbone):
    causal = CanvasSchema.from_dict(SCHEMA.to_dict() | {"metadata": {"framing": "causal"}})
    with pytest.raises(LatentCacheError, match="framing: expected 'image', got 'causal'"):
        latent_keys(MadeUp(), causal, WIDOWX, backbone)


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    "change, text",
    [
        (
            {"dataset": "f" * 64},
            "dataset: expected ffffffffffff..., the cache holds 0123456789ab...",
        ),
        ({"vae": "e" * 64}, "vae: expected eeeeeeeeeeee..., the cache holds 939e9bb84b53..."),
        ({"crops": 3}, "crops: expected 3, the cache holds 2"),
        (
            {"vae": "e" * 64, "crops": 3},
            "vae: expected eeeeeeeeeeee..., the cache holds 939e9bb84b53...; "
            "crops: expected 3, the cache holds 2",
        ),
    ],
)
def test_a_cache_of_something_else_is_refused_by_field(kept, backbone, change, text):
    key = latent_keys(MadeUp(), SCHEMA, WIDOWX, backbone)["visual"]
    with pytest.raises(LatentCacheError) as error:
        LatentCache.open(kept, msgspec.structs.replace(key, **change))
    assert str(error.value) == (
        f"{kept / 'train-image_0-32x32'}: {text}; encode into another folder what is used here, or "
        f"use what it was made for: {COMMAND.format(kept, 2)}"
    )


def test_a_cache_with_more_crops_than_are_used_fits(kept, backbone):
    assert opened(kept, backbone, crops=1).frames(0, [0]).any()


@pytest.mark.parametrize(
    "change, wanted",
    [
        ({"camera": "image_1"}, "train-image_1-32x32"),
        ({"image_size": (64, 32)}, "train-image_0-64x32"),
        ({"split": "val"}, "val-image_0-32x32"),
    ],
)
def test_a_camera_size_or_split_that_is_not_there_is_refused(kept, backbone, change, wanted):
    key = latent_keys(MadeUp(), SCHEMA, WIDOWX, backbone)["visual"]
    with pytest.raises(FileNotFoundError) as error:
        LatentCache.open(kept, msgspec.structs.replace(key, **change))
    assert str(error.value) == (
        f"{kept}: expected {wanted} in it, made by `canvas-robot data encode`; "
        "there are ['train-image_0-32x32']"
    )


def test_a_folder_without_caches_is_refused(tmp_path, backbone):
    with pytest.raises(FileNotFoundError, match=r"there are no caches$"):
        opened(tmp_path, backbone)


def test_a_run_does_not_mix_two_kinds_of_latents(folder, backbone):
    before, own = contents(folder), folder / "train-image_0-32x32"
    with pytest.raises(LatentCacheError) as error:
        plan(folder, load_backbone("tiny", torch.bfloat16), crops=3)
    assert str(error.value) == (
        f"{own}: crops: expected 3, the cache holds 2; computed_in: expected 'bfloat16', the cache "
        "holds 'float32'; choose another folder with --out, or delete this one"
    )
    assert contents(folder) == before


def test_data_that_lies_elsewhere_now_goes_on_as_well(folder, backbone):
    moved = msgspec.structs.replace(RECIPE, data="/elsewhere")
    made = plan_encoding(MadeUp(), folder, SCHEMA, WIDOWX, backbone, moved, 2)
    assert made.parts[0].whole.all()


def test_a_cache_of_which_most_is_missing_names_the_first_and_counts_the_rest(folder, backbone):
    own = folder / "train-image_0-32x32"
    for path in own.glob("*.safetensors"):
        path.unlink()
    rewrite_manifest(own, episodes=1000)
    with pytest.raises(LatentCacheError) as error:
        opened(folder, backbone)
    assert str(error.value) == (
        f"{own}: not whole: expected 63 files, got 0; missing episodes 0 to 15, 16 to 31, 32 to 47 "
        f"and others; finish it with: {COMMAND.format(folder, 2)}"
    )


# ---------------------------------------------------------------- hostile files


def rewrite_manifest(own: Path, **changes) -> None:
    """Fields of the key by their own names."""
    path = own / "manifest.json"
    data = json.loads(path.read_text())
    for name, value in changes.items():
        (data["key"] if name in data["key"] else data)[name] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"colour": 1}, "Object contains unknown field `colour`"),
        ({"episodes": 0}, "Expected `int` >= 1 - at `$.episodes`"),
        ({"episodes": 10**30}, "Expected `int` <= 1000000000 - at `$.episodes`"),
        ({"episodes_per_file": -1}, "Expected `int` >= 1 - at `$.episodes_per_file`"),
        ({"shape": [8, 4]}, "Expected `array` of length 3 - at `$.shape`"),
        ({"shape": [8, 4, 10**9]}, "Expected `int` <= 65536 - at `$.shape[2]`"),
        ({"format": 2}, "Invalid enum value 2 - at `$.format`"),
        ({"boxes": "other ones"}, "Invalid enum value 'other ones' - at `$.boxes`"),
        ({"computed_in": "int8"}, "Invalid enum value 'int8' - at `$.computed_in`"),
        ({"dtype": "float32"}, "Invalid enum value 'float32' - at `$.key.dtype`"),
        ({"framing": "causal"}, "Invalid enum value 'causal' - at `$.key.framing`"),
        ({"crops": 10**6}, "Expected `int` <= 1024 - at `$.key.crops`"),
        ({"image_size": [32]}, "Expected `array` of length 2 - at `$.key.image_size`"),
        ({"vae": "x"}, "vae: expected 64 hex digits, got 'x' - at `$.key`"),
        (
            {"camera": "../../etc"},
            "camera: expected a name of letters, digits, '_', '.' and '-', got '../../etc'",
        ),
        (
            {"recipe": {"data": "\x1b[2J", "backbone": "", "schema": "", "binding": ""}},
            "recipe: expected printable characters only - at `$.recipe`",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_manifest_that_is_not_one_is_refused_by_field(folder, backbone, change, text):
    own = folder / "train-image_0-32x32"
    rewrite_manifest(own, **change)
    with pytest.raises(LatentCacheError) as error:
        opened(folder, backbone)
    assert str(error.value).startswith(f"{own / 'manifest.json'}: {text}")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b"{" * 60_000, pickle.dumps(1)])
def test_a_manifest_that_is_not_json_is_refused(folder, backbone, data):
    path = folder / "train-image_0-32x32" / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(LatentCacheError) as error:
        opened(folder, backbone)
    assert str(error.value).startswith(f"{path}: ")


def test_a_manifest_that_is_too_long_is_not_read(folder, backbone):
    path = folder / "train-image_0-32x32" / "manifest.json"
    path.write_bytes(b" " * 10**5 + path.read_bytes())
    with pytest.raises(LatentCacheError, match="expected at most 65536 bytes, got more"):
        opened(folder, backbone)


def test_a_manifest_that_promises_a_billion_files_is_refused_at_once(folder, backbone):
    rewrite_manifest(folder / "train-image_0-32x32", episodes=10**9, episodes_per_file=1)
    with pytest.raises(LatentCacheError, match="expected 1000000000 files, got 3; missing"):
        opened(folder, backbone)


def rewrite_file(path: Path, note: object = None, **changes) -> None:
    """Writes a file anew, some of its tensors replaced, or left out where None is given."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    tensors = load_file(path) | {name.replace("_", "."): t for name, t in changes.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(tensors, path, metadata if note is None else {"range": note})


LATENT = np.zeros((1, 8, 4, 4), np.float16)


@pytest.mark.parametrize(
    "changes, wrong",
    [
        ({"0_0": None}, "0.0"),
        ({"99_0": LATENT}, "99.0"),
        ({"0_0": LATENT.astype(np.float32)}, "0.0"),
        ({"0_1": np.zeros((2, 8, 4, 4), np.float16)}, "0.1"),
        ({"0_0": LATENT[0]}, "0.0"),
        ({"0_0": np.zeros((1, 8, 4, 5), np.float16)}, "0.0"),
        ({"note": '{"steps":[1,2],"instructions":[]}'}, "0.0, 0.1, 1.0"),
        ({"note": '{"steps":["1"],"instructions":[]}'}, "Expected `int`, got `str`"),
        ({"note": "no JSON"}, "JSON is malformed"),
    ],
    ids=["lacks", "more", "dtype", "steps", "rank", "size", "few steps", "no steps", "no note"],
)
def test_a_file_that_is_not_what_the_manifest_says_is_refused(folder, backbone, changes, wrong):
    path = folder / "train-image_0-32x32" / "000000-000015.safetensors"
    rewrite_file(path, **changes)
    cache = opened(folder, backbone, crops=2)
    with pytest.raises(LatentCacheError) as error:
        cache.frames(0, [0])
    message = str(error.value)
    assert message.startswith(
        f"{path}: expected the latents of episodes 0 to 15, each (steps, 8, 4, 4) float16; "
        f"wrong: {wrong}"
    )
    assert message.endswith(f"; delete it and run: {COMMAND.format(folder, 2)}")
    assert cache.frames(16, [0]).any()  # the others stay usable


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 64, pickle.dumps([1])], ids=["0", "huge", "pickle"]
)
def test_a_file_that_is_no_safetensors_file_is_refused(folder, backbone, data):
    path = folder / "train-image_0-32x32" / "000000-000015.safetensors"
    path.write_bytes(data)
    with pytest.raises(LatentCacheError) as error:
        opened(folder, backbone).frames(0, [0])
    assert str(error.value).startswith(f"{path}: expected the latents of episodes 0 to 15, each ")


def test_a_file_of_episodes_of_other_lengths_is_made_again(folder, backbone):
    before = contents(folder)
    path = folder / "train-image_0-32x32" / "000000-000015.safetensors"
    note = RangeNote([1, 3, *MadeUp().steps[2:16].tolist()], [])
    longer = np.zeros((3, 8, 4, 4), np.float16)
    rewrite_file(path, msgspec.json.encode(note).decode(), **{"1_0": longer, "1_1": longer})
    assert encoded(folder, backbone, crops=2).files_made == 1
    assert contents(folder) == before


# ---------------------------------------------------------------- mapped, bounded, picklable


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> LatentCache:
    """A cache of one file of 67 MB: an episode of 16 frames, each of 4 MB."""
    folder = tmp_path_factory.mktemp("large")
    key = msgspec.structs.replace(
        latent_keys(MadeUp(), SCHEMA, WIDOWX, load_backbone("tiny"))["visual"], camera="large"
    )
    manifest = LatentManifest(
        key=key,
        shape=(8, 512, 512),
        episodes=1,
        episodes_per_file=1,
        computed_in="float32",
        recipe=RECIPE,
    )
    latents = np.zeros((16, 8, 512, 512), np.float16)
    latents[:] = np.arange(16).reshape(16, 1, 1, 1)
    note = msgspec.json.encode(RangeNote([16], [])).decode()
    save_file({"0.0": latents}, folder / manifest.file(0), {"range": note})
    return LatentCache(folder, manifest)


def test_a_frame_is_read_without_the_rest_of_its_file(large):
    process = psutil.Process()
    before = process.memory_info().rss
    frame = large.frames(0, [9])
    assert (frame == 9).all() and frame.nbytes == 2**22
    grown = process.memory_info().rss - before
    assert grown < 3 * frame.nbytes, f"reading {frame.nbytes} bytes took {grown}"


def test_no_more_files_are_open_than_the_bound_and_those_used_last_stay(
    kept, backbone, monkeypatch
):
    monkeypatch.setattr(latents_module, "_MOST_OPEN", 2)
    cache = opened(kept, backbone, crops=2)
    once = [cache.frames(episode, [0]) for episode in (0, 16, 32)]
    process = psutil.Process()
    open_files = process.num_fds()
    again = [cache.frames(episode, [0]) for episode in (0, 16, 32) for _ in range(3)]
    assert process.num_fds() == open_files
    assert all(np.array_equal(a, b) for a, b in zip(np.repeat(once, 3, 0), again, strict=True))


def test_a_cache_can_be_sent_to_another_process_while_it_is_in_use(kept, backbone):
    cache = opened(kept, backbone, crops=2)
    expected = cache.frames(20, [0], 1)
    sent = pickle.dumps(cache)
    assert len(sent) < 3000
    assert np.array_equal(pickle.loads(sent).frames(20, [0], 1), expected)


def test_reading_needs_no_torch():
    code = "import sys, canvas_robot.data.latents; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
