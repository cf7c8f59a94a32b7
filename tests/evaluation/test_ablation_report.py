"""Laws of the ablation's table: ours beside the published one, no figure that nobody measured."""

import json
from pathlib import Path

import cv2
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from rich.console import Console

from canvas_robot.evaluation.ablation_report import (
    PUBLISHED,
    SOURCE,
    markdown,
    published,
    write_ablation,
)
from canvas_robot.evaluation.ablation_run import judge_by
from canvas_robot.resources import config_path
from canvas_robot.training.ablation import (
    Ablation,
    Cell,
    Interval,
    Judgement,
    Result,
    configurations,
    grid,
    run_ablation,
)
from canvas_robot.training.config_file import config_of

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "bridge_sample" / "bridge_dataset"
CONFIG = config_of({"data": {"folder": "bridge"}, "steps": 40, "batch_size": 2}, "made up")


def result(loss: float, trained_on: str = "no", low: float | None = 0.6) -> Result:
    motion = Interval(0.7, low, 0.8 if low else None)
    judgement = Judgement(
        motion=motion,
        previous_action=Interval(0.75),
        zero_action=Interval(0.9),
        gripper=Interval(0.9, 0.8, 1.0),
        episodes=5,
        windows=40,
        trained_on=trained_on,
    )
    return Result(
        loops=1,
        freeze="full",
        steps=40,
        action_loss=loss,
        loss=loss,
        trained=345_690,
        frozen=10**9,
        steps_per_s=2.5,
        memory_mb=700.0,
        judgement=judgement,
    )


def cells_of(text: str) -> list[list[str]]:
    """The rows of the table in a page of Markdown."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_published_table_is_whole():
    """Source: canvas-engineering 0.1.0's documentation, action loss on Bridge V2."""
    assert all(published(cell) is not None for cell in grid())
    assert min(PUBLISHED["full"], key=PUBLISHED["full"].get) == 3
    assert published(Cell(3, "full")) == 0.073 and published(Cell(3, "none")) == 0.088
    assert published(Cell(5, "full")) is None


def test_every_cell_has_a_row_whatever_became_of_it():
    cells = [Cell(1, "full"), Cell(2, "full"), Cell(3, "full")]
    ablation = Ablation({cells[0]: result(0.4321)}, {cells[1]: "step 3: not finite\nmore"})
    text = markdown(ablation, cells, CONFIG)
    ours, failed, waiting = cells_of(text)
    assert ours == [
        "full",
        "1",
        "345,690",
        "0.4321",
        "0.700 (0.600 to 0.800)",
        "90.0%",
        "2.5",
        "700",
        "0.121",
    ]
    assert failed[2] == "failed" and waiting[2] == "not run yet"
    assert (failed[-1], waiting[-1]) == ("0.140", "0.073")
    assert "- loops_2_freeze_full: step 3: not finite\n" in text and SOURCE in text


def test_what_one_episode_cannot_tell_is_left_out():
    text = markdown(
        Ablation({Cell(5, "full"): result(0.4, low=None)}, {}), [Cell(5, "full")], CONFIG
    )
    ((*_, error, _, _, _, last),) = cells_of(text)
    assert (error, last) == ("0.700", "–")


@pytest.mark.parametrize(
    "answer, said", [("no", ""), ("yes", "TRAINED ON"), ("unknown", "trained on is not known")]
)
def test_the_table_says_whether_its_episodes_were_trained_on(answer, said):
    cell = Cell(1, "full")
    text = markdown(Ablation({cell: result(0.4, answer)}, {}), [cell], CONFIG)
    assert said in text and ("TRAINED ON" in text) == (answer == "yes")


@pytest.mark.parametrize("count", [0, 1, 12])
def test_the_folder_holds_the_table_in_three_forms(tmp_path, count):
    cells = grid()
    results = {cell: result(0.4 + 0.01 * n) for n, cell in enumerate(cells[:count])}
    write_ablation(tmp_path, Ablation(results, {}), cells, CONFIG)
    data = json.loads((tmp_path / "ablation.json").read_text())
    assert [entry["published_action_loss"] for entry in data["cells"]][:3] == [0.121, 0.14, 0.073]
    assert sum(entry["result"] is not None for entry in data["cells"]) == count
    assert len(cells_of((tmp_path / "ablation.md").read_text())) == 12
    picture = cv2.imread(str(tmp_path / "ablation.png"))
    assert picture.shape[1] >= 1500 and picture.std() > 5


@pytest.fixture
def alone():
    """Accelerate keeps one state for a process; torch, threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_a_run_is_judged_by_its_deployable_checkpoint_on_what_it_held_out(tmp_path, alone):
    if not SAMPLE.exists():
        pytest.skip("recorded data not found at ../shared/data/bridge_sample")
    schema = json.loads(config_path("schemas", "widowx_tiny.json").read_text())
    schema["layout"].update(H=7, W=16)
    for region, bounds in {
        "visual": [1, 2, 0, 4, 0, 4],
        "proprio": [0, 2, 4, 5, 0, 1],
        "action": [1, 5, 4, 5, 1, 3],
        "goal": [0, 4, 5, 7, 0, 16],
    }.items():
        schema["regions"][region]["bounds"] = bounds
    (tmp_path / "small.json").write_text(json.dumps(schema))
    data = {"folder": str(SAMPLE), "holdout": 0.2, "holdout_windows": 2, "workers": 0}
    config = config_of(
        {
            "data": data,
            "schema": str(tmp_path / "small.json"),
            "statistics": "bridge_v2.json",
            "steps": 1,
            "batch_size": 2,
        },
        "small",
    )
    cell = Cell(1, "full")
    runs = configurations(config, [cell], tmp_path)
    found = run_ablation(runs, judge_by(2, "cpu", 8), Console(quiet=True)).results[cell]
    assert (found.judgement.trained_on, found.judgement.episodes) == ("no", 2)
    assert found.judgement.windows == 16
    report = json.loads((tmp_path / cell.name / "eval_offline" / "report.json").read_text())
    assert report["predictors"]["policy"]["motion"]["value"] == found.judgement.motion.value
    assert report["data"]["left_out"]["trained on"] == 20
    assert (tmp_path / cell.name / "export" / "step_00000001" / "config.json").is_file()
