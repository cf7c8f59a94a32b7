"""Laws of the offline evaluation: the policy's own decisions, every window once, honest figures."""

import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from canvas_robot.data.bridge import BridgeV2
from canvas_robot.data.transitions import DataRules, chosen
from canvas_robot.data.windows import Draw, WindowReader
from canvas_robot.evaluation.held_out import held_out, some
from canvas_robot.evaluation.offline import (
    POLICY,
    PREVIOUS,
    ZERO,
    ChunkPredictor,
    Evaluation,
    Judge,
    JudgedEpisode,
    OfflineError,
    Recording,
)
from canvas_robot.evaluation.offline_errors import (
    GRIPPER,
    RESAMPLES,
    Measures,
    Resampling,
    Sums,
    estimate,
    measured,
    previous_actions,
    repeated,
    still,
)
from canvas_robot.evaluation.offline_report import summarise, verdicts
from canvas_robot.evaluation.offline_run import OfflineSettings, evaluate_offline
from canvas_robot.policy.checkpoint import load_checkpoint, save_checkpoint
from canvas_robot.policy.policy import CanvasPolicy
from canvas_robot.resources import config_path
from canvas_robot.schema import CanvasSchema
from canvas_robot.signals import Observation, load_binding, load_statistics
from canvas_robot.training.export import RECORD, TrainingRecord

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "bridge_sample" / "bridge_dataset"
BINDING = load_binding(config_path("bindings", "widowx.yaml"))
STATISTICS = load_statistics(config_path("statistics", "bridge_v2.json"))
RULES = DataRules()
COMPONENTS = {"dx": "m", "dy": "m", "dz": "m", "a": "rad", "b": "rad", "c": "rad", "gripper": "1"}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For small tensors more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sample() -> Path:
    """25 real Bridge V2 episodes, 10 steps, pictures 64x64; both splits hold the same ones."""
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    return SAMPLE / "1.0.0"


@pytest.fixture(scope="module")
def val(sample):
    return BridgeV2(sample, "val")


@pytest.fixture(scope="module")
def train(sample):
    return BridgeV2(sample, "train")


def small_policy(*edges: tuple[str, str], **regions) -> CanvasPolicy:
    """widowx_tiny with small pictures, moved away from the fresh graft."""
    data = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    data["layout"].update(H=7, W=16)
    bounds = {
        "visual": [0, 2, 0, 4, 0, 4],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
    }
    for name, region in data["regions"].items():
        region.update(bounds=bounds[name], **regions.get(name, {}))
    data["topology"] += [{"src": src, "dst": dst} for src, dst in edges]
    policy = CanvasPolicy.untrained(CanvasSchema.from_dict(data), BINDING, STATISTICS, loops=2)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.own_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return policy


@pytest.fixture(scope="module")
def policy():
    return small_policy()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Untrained weights in a folder."""
    return save_checkpoint(small_policy(), tmp_path_factory.mktemp("checkpoints") / "untrained")


# ---------------------------------------------------------------- one path


def decided(policy: CanvasPolicy, windows) -> np.ndarray:
    """What the policy does when it is given the same observations, from the first tick on."""
    policy.reset(windows[0].instruction)
    observations = [
        Observation(window.step, (window.step + 1) * BINDING.tick_ns, window.frames)
        for window in windows
    ]
    return np.stack([policy.act(observation).values for observation in observations])


@pytest.mark.parametrize(
    "edges, regions",
    [
        ((), {}),
        ((), {"visual": {"period": 3}}),
        ((("visual", "proprio"),), {"visual": {"period": 3, "hold": True}}),
    ],
    ids=["every tick", "a slow camera", "a camera that holds"],
)
def test_a_windows_prediction_is_what_the_policy_does_on_the_same_observation(val, edges, regions):
    policy = small_policy(*edges, **regions)
    reader = WindowReader(val, policy.schema, policy.binding, RULES)
    windows = reader.windows([Draw(3, step) for step in range(6)])
    predictor = ChunkPredictor(policy, batch=4)
    predicted = np.stack([chunk for _, chunk in predictor.each(windows)])
    np.testing.assert_allclose(predicted, decided(policy, windows), rtol=1e-4, atol=1e-6)
    assert np.ptp(predicted, axis=0).max() > 1e-4, "the windows differ"


def test_neighbours_in_a_batch_change_nothing(policy, val):
    judge = [Judge(policy, val, RULES, batch) for batch in (1, 5)]
    selection = some(chosen(val, RULES, judge[0].reader.cameras), 2)
    one, five = ([r.predicted for r in each.recordings(selection)] for each in judge)
    np.testing.assert_allclose(np.concatenate(one), np.concatenate(five), rtol=1e-4, atol=1e-6)


def test_regions_that_hold_with_several_periods_are_refused():
    policy = small_policy(visual={"period": 2, "hold": True}, proprio={"period": 3, "hold": True})
    with pytest.raises(OfflineError, match=r"hold and have periods \[2, 3\]"):
        ChunkPredictor(policy, 1)


def test_a_decision_that_is_not_finite_is_named(val):
    policy = small_policy()
    with torch.no_grad():
        next(policy.model.action.parameters()).fill_(torch.nan)
    reader = WindowReader(val, policy.schema, policy.binding, RULES)
    with pytest.raises(OfflineError, match="bridge_dataset/val/4, step 2: expected finite actions"):
        ChunkPredictor(policy, 1).chunks(reader.windows([Draw(4, 2)]))


def test_every_window_is_judged_once(policy, val):
    judge = Judge(policy, val, RULES, 3)
    selection = some(chosen(val, RULES, judge.reader.cameras), 3)
    told = []
    evaluation = judge.evaluate(selection, lambda done, total: told.append((done, total)))
    assert evaluation.windows == selection.counts.sum() == 3 * 8
    assert told == [(1, 3), (2, 3), (3, 3)]
    for sums in evaluation.sums.values():  # 8 windows, horizon 4: 8 + 7 + 6 + 5 known steps
        assert sums.counts.tolist() == [[8, 7, 6, 5]] * 3


def test_what_is_judged_against_are_the_recorded_actions_and_those_before_them(policy, val):
    judge = Judge(policy, val, RULES, 8)
    (recording,) = judge.recordings(some(chosen(val, RULES, judge.reader.cameras), 1))
    first = recording.recorded[:, 0]
    assert np.array_equal(recording.previous[1:], first[:-1])
    assert not recording.previous[0, :GRIPPER].any()
    assert not recording.missing[:, 0].any() and recording.missing[-1].tolist() == [0, 1, 1, 1]


# ---------------------------------------------------------------- errors


def random_chunks(seed: int, windows: int = 6, horizon: int = 3):
    random = np.random.default_rng(seed)
    predicted, recorded = random.normal(size=(2, windows, horizon, 7))
    recorded[..., GRIPPER] = random.integers(0, 2, (windows, horizon))
    missing = random.random((windows, horizon)) < 0.3
    missing[:, 0] = False
    return predicted, recorded, missing, random.integers(0, 2, windows).astype(float)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_errors_are_those_of_the_known_steps(seed):
    predicted, recorded, missing, kept = random_chunks(seed)
    of = Measures(Sums.of(predicted, recorded, missing, kept), np.full(7, 2.0))
    errors = (predicted - recorded)[~missing]
    assert np.allclose(of.mean_absolute()[0], np.abs(errors).mean(0))
    assert np.allclose(of.root_mean_square()[0], np.sqrt(np.square(errors).mean(0)))
    assert np.isclose(of.motion()[0], np.abs(errors)[:, :GRIPPER].mean() / 2)
    right = (predicted[..., GRIPPER] > 0.5) == (recorded[..., GRIPPER] > 0.5)
    assert np.isclose(of.gripper()[0], right[~missing].mean())
    changes = ~missing & (recorded[..., GRIPPER] != kept[:, None])
    expected = right[changes].mean() if changes.any() else np.nan
    assert np.isclose(of.gripper_changes()[0], expected, equal_nan=True)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_what_stands_beyond_the_end_counts_nothing(seed):
    predicted, recorded, missing, kept = random_chunks(seed)
    other = np.where(missing[..., None], 7.0, predicted)
    one, two = (Sums.of(chunks, recorded, missing, kept) for chunks in (predicted, other))
    for name in ("counts", "absolute", "squared", "grips"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_the_balance_weighs_open_and_closed_the_same():
    recorded = np.zeros((4, 1, 7))
    recorded[:3, 0, GRIPPER] = 1.0  # three open, one closed
    always_open = np.ones((4, 1, 7))
    sums = Sums.of(always_open, recorded, np.zeros((4, 1), bool), np.ones(4))
    of = Measures(sums, np.ones(7))
    assert (of.gripper()[0], of.gripper_balanced()[0]) == (0.75, 0.5)
    assert of.gripper_changes()[0] == 0.0
    only_open = Sums.of(always_open[:3], recorded[:3], np.zeros((3, 1), bool), np.ones(3))
    assert Measures(only_open, np.ones(7)).gripper_balanced()[0] == 1.0


def test_baselines_know_only_what_came_before():
    actions = np.arange(21, dtype=np.float32).reshape(3, 7)
    previous = previous_actions(actions, np.array([0, 0, 0, 0, 0, 0, 0.9]))
    assert previous[0].tolist() == [0, 0, 0, 0, 0, 0, 1], "at first the gripper as it is"
    assert np.array_equal(previous[1:], actions[:2])
    assert np.array_equal(repeated(previous, 2)[:, 1], previous)
    assert not still(previous, 2)[..., :GRIPPER].any()
    assert np.array_equal(still(previous, 2)[:, 1, GRIPPER], previous[:, GRIPPER])


def sums_of(seeds) -> Sums:
    return Sums.joined([Sums.of(*random_chunks(seed)) for seed in seeds])


def test_intervals_are_of_draws_of_whole_episodes():
    sums = sums_of(range(12))
    motion = measured({"policy": sums}, np.ones(7))["policy"].motion()
    assert len(motion) == 1 + RESAMPLES
    assert np.isclose(motion[0], sums.absolute[..., :GRIPPER].sum() / sums.counts.sum() / GRIPPER)
    of = estimate(motion)
    assert of["low"] < of["value"] < of["high"]
    again = estimate(measured({"policy": sums}, np.ones(7))["policy"].motion())
    assert of == again
    same = sums_of([5] * 8)  # episodes that are all alike: no draw differs
    alike = estimate(measured({"policy": same}, np.ones(7))["policy"].motion())
    assert alike["high"] - alike["low"] == pytest.approx(0, abs=1e-12)


def test_one_episode_has_no_interval():
    of = estimate(measured({"policy": sums_of([0])}, np.ones(7))["policy"].motion())
    assert of["value"] > 0 and of["low"] is None and of["high"] is None


def test_draws_count_every_episode_as_often_as_it_was_drawn():
    totals = Resampling(4).totals(np.eye(4))
    assert np.array_equal(totals[0], np.ones(4)) and (totals.sum(1) == 4).all()


# ---------------------------------------------------------------- held out


def record_of(dataset: BridgeV2, episodes: int) -> TrainingRecord:
    return TrainingRecord(
        run="run",
        step=1,
        steps=1,
        weights="last",
        refresh="inline",
        rules=RULES,
        folder=str(dataset.folder),
        split=dataset.split,
        fingerprint=dataset.fingerprint,
        episodes=episodes,
        held_out="val",
    )


def judged_on(dataset: BridgeV2, fingerprint: str, record=None, trained=True):
    selection = chosen(dataset, RULES, ["image_0"])
    return held_out(dataset, selection, trained, fingerprint, record, ["image_0"])


def test_the_split_that_was_trained_on_is_known_by_its_fingerprint(val):
    selection, seen = judged_on(val, val.fingerprint)
    assert seen.answer == "yes" and len(selection) == 25
    assert "all 25 episodes were trained on" in seen.text


def test_episodes_that_were_trained_on_are_left_out_where_others_remain(val):
    selection, seen = judged_on(val, val.fingerprint, record_of(val, 20))
    assert seen.answer == "no" and selection.left_out["trained on"] == 20
    assert selection.episodes.tolist() == [20, 21, 22, 23, 24]


def test_the_same_recordings_in_another_split_are_found(val, train):
    """The sample's two splits hold the same episodes, in another order."""
    _, seen = judged_on(val, train.fingerprint, record_of(train, 25))
    assert seen.answer == "yes" and "compared with its episodes (bridge_dataset/train)" in seen.text
    selection, seen = judged_on(val, train.fingerprint, record_of(train, 10))
    assert seen.answer == "no" and len(selection) == 15
    trained_on = {train.read(k).states.tobytes() for k in range(10)}
    judged = {val.read(k).states.tobytes() for k in selection.episodes}
    assert not trained_on & judged


def test_what_cannot_be_known_is_said(val, train, tmp_path):
    assert judged_on(val, "")[1].answer == "unknown"
    gone = msgspec.structs.replace(record_of(train, 25), folder=str(tmp_path), split="nowhere")
    _, seen = judged_on(val, train.fingerprint, gone)
    assert seen.answer == "unknown" and "is not here to be compared" in seen.text
    assert judged_on(val, "", trained=False)[1].answer == "no"


def test_some_episodes_are_spread_over_all(val):
    selection = chosen(val, RULES, ["image_0"])
    assert some(selection, 3).episodes.tolist() == [0, 12, 24]
    assert some(selection, 0) is selection and some(selection, 99) is selection


# ---------------------------------------------------------------- the report


def made_up(quality: float, episodes: int = 6) -> Evaluation:
    """A policy that is off by `quality` times what doing nothing is off by."""
    random, parts, judged = np.random.default_rng(0), [], []
    for number in range(episodes):
        recorded = random.normal(size=(8, 3, 7))
        recorded[..., GRIPPER] = random.integers(0, 2, (8, 3))
        predicted = recorded * (1 - quality)
        predicted[..., GRIPPER] = recorded[..., GRIPPER]
        episode = JudgedEpisode(number, f"bridge_dataset/val/{number}", "lift", 8)
        judged.append(episode)
        previous = previous_actions(recorded[:, 0], np.zeros(7))
        missing = np.zeros((8, 3), bool)
        parts.append(Recording(episode, predicted, recorded, missing, previous).sums())
    sums = {name: Sums.joined([part[name] for part in parts]) for name in parts[0]}
    return Evaluation(judged, sums, 1.0)


def test_a_perfect_policy_has_no_error_and_is_better_than_the_baselines():
    report = summarise(made_up(0.0), COMPONENTS, np.ones(7))
    of = report["predictors"][POLICY]
    assert of["motion"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert of["gripper"]["accuracy"]["value"] == 1.0
    counts = of["gripper"]["counts"]
    assert counts["closed taken for open"] == counts["open taken for closed"] == 0
    assert sum(counts.values()) == 6 * 8 * 3
    assert report["predictors"][ZERO]["motion"]["value"] > 0.5
    assert report["better_than"][PREVIOUS]["motion"]["low"] > 0


@pytest.mark.parametrize(
    "quality, kind, text",
    [
        (0.2, "good", "the policy's motion error is lower by 0.6"),
        (1.0, "warn", "no difference that these episodes show: lower by 0 (0 to 0)"),
        (3.0, "bad", "the policy's motion error is higher by 1."),
    ],
)
def test_a_verdict_says_what_the_interval_says(quality, kind, text):
    report = summarise(made_up(quality), COMPONENTS, np.ones(7))
    report |= {
        "trained": True,
        "remarks": {},
        "trained_on": {"answer": "no", "text": "it is so"},
    }
    found = {head: (kind, text) for kind, head, text in verdicts(report)}
    assert found[f"Beside {ZERO}:"][0] == kind and text in found[f"Beside {ZERO}:"][1]
    assert found["Held out."] == ("good", "It is so.")


def test_the_worst_episodes_come_first():
    evaluation = made_up(0.5)
    worst = summarise(evaluation, COMPONENTS, np.ones(7))["worst_episodes"]
    errors = [entry["motion"] for entry in worst]
    assert errors == sorted(errors, reverse=True) and len(errors) == 6


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def evaluated(checkpoint, sample, tmp_path_factory):
    """(report, folder) of untrained weights on two episodes."""
    folder = tmp_path_factory.mktemp("reports") / "report"
    settings = OfflineSettings(checkpoint=checkpoint, data=sample, episodes=2)
    return evaluate_offline(settings, folder), folder


def test_the_folder_holds_figures_pictures_and_a_page(evaluated):
    report, folder = evaluated
    assert json.loads((folder / "report.json").read_text()) == report
    for name in ("errors.png", "horizon.png", "episodes.png"):
        picture = cv2.imread(str(folder / name))
        assert picture.shape[1] >= 1200 and picture.std() > 5
    page = Page((folder / "report.html").read_text())
    assert len(page.pictures) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)


def test_the_report_says_what_the_targets_are_and_that_nothing_was_trained(evaluated):
    report, folder = evaluated
    assert report["trained"] is False and report["actions"] == "composed"
    words = "".join(Page((folder / "report.html").read_text()).words)
    assert "trained: false." in words
    assert "The checkpoint does not say what its actions mean" in words
    assert report["data"]["fingerprint"] in words
    assert report["data"]["episodes"] == 2 and report["data"]["windows"] == 16


@pytest.mark.parametrize(
    "wrong, text",
    [
        ("speed=1", "expected key=value with a key among"),
        ("actions=best", "Invalid enum value 'best'"),
    ],
)
def test_rules_that_are_none_are_refused(checkpoint, sample, tmp_path, wrong, text):
    settings = OfflineSettings(checkpoint=checkpoint, data=sample, rules=[wrong])
    with pytest.raises(OfflineError, match=text):
        evaluate_offline(settings, tmp_path)


def test_rules_are_the_trainings_with_changes_and_the_report_says_where_they_differ(
    sample, train, tmp_path
):
    policy = small_policy()
    robot = msgspec.structs.replace(policy.binding.robot, anchor="measured")
    policy.binding = msgspec.structs.replace(policy.binding, robot=robot)
    policy.trained = True
    folder = save_checkpoint(policy, tmp_path / "trained", "composed", train.fingerprint)
    record = msgspec.structs.replace(record_of(train, 25), refresh="sliced")
    (folder / RECORD).write_bytes(msgspec.json.encode(record))
    assert load_checkpoint(folder).trained
    changes = ["actions=recorded", "gripper=raw"]
    settings = OfflineSettings(checkpoint=folder, data=sample, episodes=1, rules=changes)
    report = evaluate_offline(settings, tmp_path / "report")
    assert report["rules"] == msgspec.to_builtins(RULES) | {"actions": "recorded", "gripper": "raw"}
    assert report["data"]["windows"] == 9, "the last step has an action that was recorded"
    assert report["trained_on"]["answer"] == "yes"
    heads = {head: text for _, head, text in verdicts(report)}
    assert {"Trained on these episodes.", "Sliced refresh."} <= set(heads)
    assert heads["Actions."] == (
        "The policy was trained on composed actions, the targets are recorded ones."
    )
