"""Laws of the bench of loaders: turns that leave one another alone, figures that fit together."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from canvas_robot.data.synthetic import SyntheticCopy, write_synthetic
from canvas_robot.data.tf_windows import WindowShape
from canvas_robot.evaluation import data_bench
from canvas_robot.evaluation.data_bench import (
    CONTENDERS,
    TARGETS,
    DataBench,
    Target,
    bench_data,
    epoch_figures,
    index_figures,
    ratios,
    resume_figures,
)
from canvas_robot.evaluation.data_contenders import (
    Contender,
    Setting,
    by_us,
    make_loader,
    window_shape,
)
from canvas_robot.resources import config_path


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def made_up():
    """The module made_up_contenders beside this file; other processes find it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("made_up_contenders")
        sys.modules.pop("made_up_contenders")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Five episodes, pictures of 64x64, one core."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).repeat(6, 1).repeat(6, 2)
    copy = SyntheticCopy(episodes=5, size=64, picture_bytes=1500)
    folder = write_synthetic(tmp_path_factory.mktemp("copy"), copy, frames.astype(np.uint8))
    return Setting(folder, "widowx_tiny.json", "widowx.yaml", batch_size=4, cores=1, workers=0)


# ---------------------------------------------------------------- a contender's process


def test_a_turn_lasts_as_long_as_asked_and_counts_what_was_handed_out(made_up, setting):
    with Contender(made_up.counting, setting, 7) as contender:
        turn = contender.run(0.2)
        assert turn.windows > 0 and turn.windows % 7 == 0 and 0.2 <= turn.seconds
        assert 0.0 <= turn.cpu_seconds <= turn.seconds + 0.1
        assert contender.run_windows(20).windows == 21


def test_memory_is_the_processs_own(made_up, setting):
    def anonymous(megabytes):
        with Contender(made_up.holding, setting, megabytes) as contender:
            turn = contender.run(0.0)
        assert turn.anonymous <= turn.peak
        return turn.anonymous

    assert anonymous(60) - anonymous(10) == pytest.approx(50e6, rel=0.05)


def test_workers_count_too(setting):
    def turn_of(workers):
        with Contender(by_us, replace(setting, workers=workers), False) as contender:
            return contender.run_windows(8)

    alone, helped = turn_of(0), turn_of(1)
    assert helped.anonymous > 1.5 * alone.anonymous and helped.shared > alone.shared == 0


def test_a_contender_uses_the_cores_it_is_given(made_up, setting):
    with Contender(made_up.cores, setting) as contender:
        assert contender.run_windows(1).windows == setting.cores == 1


def test_a_contender_that_is_held_does_nothing_until_it_goes_on(made_up, setting):
    with Contender(made_up.counting, setting, 1) as contender:
        process = contender._process
        contender.hold()
        assert process.status() == psutil.STATUS_STOPPED
        contender.resume()
        assert contender.run_windows(5).windows == 5
        contender.hold()
    assert not process.is_running()


def test_what_goes_wrong_at_the_start_is_raised_here(made_up, setting):
    with pytest.raises(OSError, match="stored bytes are damaged"):
        Contender(made_up.failing, setting)


# ---------------------------------------------------------------- what is compared


def test_windows_have_the_shape_of_the_schema(setting):
    assert window_shape(setting) == WindowShape("image_0", pictures=1, states=2, actions=4)


def test_a_schema_that_others_cannot_serve_is_refused(setting, tmp_path):
    schema = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    schema["regions"]["visual"]["period"] = 2
    (tmp_path / "slow.json").write_text(json.dumps(schema))
    with pytest.raises(ValueError, match="region 'visual': expected period 1"):
        window_shape(replace(setting, schema=str(tmp_path / "slow.json")))


def test_our_loader_delivers_all_windows_of_the_copy(setting):
    loader = make_loader(setting)
    figures = index_figures(setting.folder, silent)
    windows = figures["steps"] - 2 * figures["episodes"]  # without the first and the last step
    assert len(loader) == windows // setting.batch_size


# ---------------------------------------------------------------- figures


def test_a_resumed_run_gives_the_same_batches(setting):
    figures = resume_figures(setting, silent)
    assert figures == {"resumed_batches": data_bench.COMPARED, "resumed_batches_differing": 0}


def test_batches_that_differ_are_counted(setting, monkeypatch):
    def forgetful(setting):
        loader = make_loader(setting)
        loader.load_state_dict = lambda state: None
        return loader

    monkeypatch.setattr(data_bench, "make_loader", forgetful)
    assert resume_figures(setting, silent)["resumed_batches_differing"] == data_bench.COMPARED


def test_memory_is_looked_at_in_every_epoch(setting, tmp_path):
    figures = epoch_figures(DataBench(tmp_path, epochs=3), setting, silent)
    held = figures["memory_of_epochs_mib"]
    assert len(held) == 3 and figures["memory_over_epochs"] == max(held) / min(held)
    assert max(held) < 1000


def test_an_index_is_made_and_thrown_away(setting):
    before = {path.name: path.stat().st_mtime_ns for path in setting.folder.iterdir()}
    figures = index_figures(setting.folder, silent)
    assert figures["episodes"] == 5 and 60 <= figures["steps"] <= 450
    assert figures["index_s_per_gigabyte"] > 0 and 0 < figures["gigabytes"] < 0.01
    assert before == {path.name: path.stat().st_mtime_ns for path in setting.folder.iterdir()}


def test_ratios_are_of_speed_and_memory():
    of = {"steps_per_s": 10.0, "anonymous_mib": 100.0}
    twice = {"steps_per_s": 20.0, "anonymous_mib": 50.0}
    found = ratios({"tfds": of, "jpeg": twice, "latents": of})
    assert found == {
        "jpeg_to_tfds": 2.0,
        "jpeg_memory_to_tfds": 0.5,
        "latents_to_tfds": 1.0,
        "latents_memory_to_tfds": 1.0,
    }


def test_a_target_is_met_from_its_limit_on():
    faster, smaller = Target("speed", 1.5), Target("memory", 0.2, at_least=False)
    assert faster.met({"speed": 1.5}) and not faster.met({"speed": 1.49})
    assert smaller.met({"memory": 0.2}) and not smaller.met({"memory": 0.21})
    assert (str(faster), str(smaller)) == ("speed >= 1.5", "memory <= 0.2")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_bench_gives_every_figure_as_json(tmp_path):
    bench = DataBench(tmp_path, episodes=3, latent_episodes=3, rounds=1, seconds=0.2, epochs=1)
    figures = json.loads(json.dumps(bench_data(bench, silent)))
    assert figures["contenders"].keys() == CONTENDERS.keys()
    for contender in figures["contenders"].values():
        assert contender["steps_per_s"] == contender["steps_per_s_per_core"] > 0
        assert 0 < contender["anonymous_mib"] <= contender["peak_mib"]
    assert figures["targets"].keys() == {str(target) for target in TARGETS}
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-of-*")}
    latents = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    data_bench.prepare(bench, silent)
    assert len(made) == 2 and latents  # the copy's shard, and the link to it
    assert all(path.stat().st_mtime_ns == then for path, then in (made | latents).items())
