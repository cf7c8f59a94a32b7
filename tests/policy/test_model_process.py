"""Laws of a policy in a process of its own: the same decisions, and no fault of it reaches us."""

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from canvas_robot.policy.assemble import assemble_policy
from canvas_robot.policy.codecs.squash import squash
from canvas_robot.policy.dialogue import Act, Expect
from canvas_robot.policy.exchange import BLOCK_BYTES, Block, Exchange, ExchangeError, Message, ends
from canvas_robot.policy.model_process import (
    DEATHS,
    GivenUpError,
    ModelError,
    ModelProcess,
    ModelRefusedError,
)
from canvas_robot.policy.settings import STAND_INS, PolicySettings, default_declarations
from canvas_robot.policy.squashing import Squashing
from canvas_robot.policy.stand_in import FAULT_EVERY
from canvas_robot.resources import config_path
from canvas_robot.signals import Frames, GoingOn, Observation, TickHistory

PATIENCE_S = 60.0


@pytest.fixture
def started():
    """Starts processes, and ends them after the test."""
    processes = []

    def start(policy_settings: PolicySettings, **options) -> ModelProcess:
        processes.append(ModelProcess(policy_settings, 1, lambda level, line: None, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


def observations(ticks: int) -> list[Observation]:
    """Of the default schema, other at each tick."""
    history = TickHistory(*default_declarations(PolicySettings()))
    return [history.observe(sample(tick)) for tick in range(ticks)]


def sample(tick: int) -> dict[str, np.ndarray]:
    return {
        "image": np.random.default_rng(tick).integers(0, 256, (256, 256, 3), np.uint8),
        "state": np.float32([0.2 + tick / 100, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0]),
    }


def seen(tick: int) -> Observation:
    return observations(tick + 1)[-1]


def decided(policy, ticks: int) -> list[np.ndarray]:
    policy.reset("touch the red cube")
    return [policy.act(observation).values for observation in observations(ticks)]


def waits_for(condition) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_decides_what_the_policy_decides_in_this_process(started):
    process, policy = started(PolicySettings()), assemble_policy(PolicySettings())
    assert (process.schema, process.binding) == (policy.schema, policy.binding)
    assert (process.horizon, process.trained) == (policy.horizon, False)
    for ours, theirs in zip(decided(process, 3), decided(policy, 3), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert process.facts.rows == policy.model.plan.n_rows and process.memory_bytes > 0


def test_whoever_waits_is_told_once_that_a_decision_is_about_to_come(started, monkeypatch):
    """Before its head is computed."""
    process, policy, told = started(PolicySettings()), assemble_policy(PolicySettings()), []
    decode = policy.model.action.decode
    monkeypatch.setattr(
        policy.model.action, "decode", lambda tokens: (told.append("head"), decode(tokens))[1]
    )
    policy.about_to_decide = lambda: told.append("soon")
    theirs = decided(policy, 2)
    assert told == ["soon", "head"] * 2
    told.clear()
    process.about_to_decide = lambda: told.append("soon")
    for one, other in zip(decided(process, 2), theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert told == ["soon"] * 2


def test_whoever_is_told_that_a_decision_is_about_to_come_can_see_it_come(started):
    process, seen_to_come = started(PolicySettings()), []

    def soon() -> None:
        assert waits_for(lambda: process.has_answered)
        seen_to_come.append(process.has_answered)

    process.about_to_decide = soon
    assert not process.has_answered
    decided(process, 2)
    assert seen_to_come == [True, True] and not process.has_answered


def test_what_has_come_is_seen_on_a_descriptor_of_any_number():
    """A robot's node may have more than a thousand open."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed[1] <= 2000:
        pytest.skip("this user may open no more than a thousand files")
    ours, theirs = ends()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed[0], 2001), allowed[1]))
    try:
        high = socket.socket(fileno=fcntl.fcntl(ours.detach(), fcntl.F_DUPFD, 2000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    block = Block()
    other = Block(os.dup(block.fd))
    with high, theirs:
        here, there = Exchange(high, block, Act), Exchange(theirs, other, Act)
        assert not here.has_come
        there.send(Act(0, 0, {}, None))
        assert here.has_come
        here.receive()
        assert not here.has_come
        theirs.close()
        assert here.has_come


def test_an_answer_that_was_not_read_is_not_taken_for_the_next_one(started):
    """Where whoever is told raises, the process is exchanged for another."""
    process = started(PolicySettings())
    process.reset("touch the red cube")

    def raises() -> None:
        raise RuntimeError("on purpose")

    process.about_to_decide = raises
    with pytest.raises(ModelError, match="answer could not be read: RuntimeError: on purpose"):
        process.act(seen(0))
    process.about_to_decide = lambda: None
    assert waits_for(lambda: process.restarts == 1)
    process.reset("touch the red cube")
    assert process.act(seen(1)).tick == 1


def test_a_process_for_an_accelerator_is_no_fork(started):
    """CUDA works in none."""
    chosen = PolicySettings(stand_in="constant", device="cuda")
    spawned, forked = started(chosen), started(PolicySettings(stand_in="constant"))
    for ours, theirs in zip(decided(spawned, 2), decided(forked, 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert b"spawn_main" in Path(f"/proc/{spawned.pid}/cmdline").read_bytes()
    assert b"spawn_main" not in Path(f"/proc/{forked.pid}/cmdline").read_bytes()


def test_it_predicts_what_the_policy_predicts_in_this_process(started):
    video = PolicySettings(
        schema="widowx_small_video.json", binding="widowx_video.yaml", backbone="small"
    )
    predicted = []
    for policy in (started(video), assemble_policy(video)):
        assert policy.imagined(60.0) is None
        policy.reset("touch it")
        policy.act(TickHistory(*default_declarations(video)).observe(sample(0)))
        while (done := policy.imagined(0.001)) is None:
            pass
        predicted.append(done.frames["future"])
    np.testing.assert_array_equal(*predicted)
    assert predicted[0].shape == (1, 96, 96, 3)


def test_what_cannot_be_loaded_says_why():
    with pytest.raises(ModelError, match=r"FileNotFoundError: .*nowhere\.json"):
        ModelProcess(PolicySettings(schema="nowhere.json"), 1, lambda level, line: None)


def test_what_nobody_waits_for_is_given_up():
    with pytest.raises(GivenUpError):
        ModelProcess(PolicySettings(), 1, lambda level, line: None, is_given_up=lambda: True)


def test_what_the_loader_says_is_told():
    told = []
    process = ModelProcess(PolicySettings(), 1, lambda level, line: told.append(line))
    process.close()
    assert any("transformer weights" in line for line in told)


def test_an_instruction_that_it_cannot_take_changes_nothing(started):
    process = started(PolicySettings())
    wanted = decided(process, 2)
    process.reset("touch the red cube")
    first = process.act(seen(0)).values
    with pytest.raises(ModelRefusedError, match="PromptTooLongError"):
        process.reset("so " * 60)
    np.testing.assert_array_equal([first, process.act(seen(1)).values], wanted)


def test_a_model_that_raises_stays(started):
    process = started(PolicySettings(stand_in="raises"))
    pid = process.pid
    for tick in range(FAULT_EVERY - 1):
        process.act(seen(tick))
    with pytest.raises(ModelError, match="RuntimeError: the stand-in raises"):
        process.act(seen(FAULT_EVERY))
    process.act(seen(FAULT_EVERY + 1))
    assert process.pid == pid and process.restarts == 0


@pytest.mark.parametrize(
    "kind, said", [("dies", r"ended \(exit code -9\)"), ("hangs", "not answered within 0.5 s")]
)
def test_a_model_that_is_lost_is_started_again(started, kind, said):
    process = started(PolicySettings(stand_in=kind), timeout_s=0.5)
    pid = process.pid
    for tick in range(FAULT_EVERY - 1):
        process.act(seen(tick))
    with pytest.raises(ModelError, match=said + "; another is being started"):
        process.act(seen(FAULT_EVERY))
    assert not alive(pid)
    assert waits_for(lambda: process.restarts == 1)
    assert process.act(seen(0)).values.shape == (process.horizon, 7)
    assert process.pid not in (pid, None)


def test_a_model_that_is_lost_again_and_again_is_left_alone(started):
    process = started(PolicySettings(stand_in="constant"))
    for death in range(DEATHS):
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ModelError):
            process.act(seen(0))
        assert death == DEATHS - 1 or waits_for(lambda: process.pid is not None)
    with pytest.raises(ModelError, match=f"lost {DEATHS} times within .*configure it again"):
        process.act(seen(0))
    assert process.pid is None and process.memory_bytes == 0


def test_closing_ends_a_process_that_hangs_and_whoever_waits_for_it(started):
    process = started(PolicySettings(stand_in="hangs"))
    pid = process.pid
    for tick in range(FAULT_EVERY - 1):
        process.act(seen(tick))
    errors, last = [], seen(FAULT_EVERY)

    def hang() -> None:
        try:
            process.act(last)
        except ModelError as error:
            errors.append(error)

    waiting = threading.Thread(target=hang)
    waiting.start()
    assert waits_for(process._asking.locked)  # else there is nothing yet to end
    process.close()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive() and not alive(pid)
    with pytest.raises(ModelError) as refused:
        process.act(seen(0))
    told = [str(error) for error in (*errors, refused.value)]
    assert told == ["the model's process has been closed"] * 2


def asked_at_once(process: ModelProcess, observed: list[Observation]) -> list[tuple]:
    """What each of as many threads gets, an ActionChunk or a ModelError, and after how long."""
    got, together = [None] * len(observed), threading.Barrier(len(observed))

    def ask(number: int) -> None:
        together.wait(PATIENCE_S)
        began = time.monotonic()
        try:
            answer = process.act(observed[number])
        except ModelError as error:
            answer = error
        got[number] = answer, time.monotonic() - began

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(observed))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return got


def test_a_request_beside_another_is_refused_at_once_and_nobody_gets_anothers_answer(started):
    process = started(PolicySettings(stand_in="constant", stand_in_ms=1000.0))
    got = asked_at_once(process, observations(4))
    (mine,) = [number for number, (answer, _) in enumerate(got) if hasattr(answer, "tick")]
    assert got.pop(mine)[0].tick == mine
    for refused, seconds in got:
        assert "still deciding on what it was asked before" in str(refused) and seconds < 0.5
    assert process.act(seen(5)).tick == 5


def test_a_process_that_hangs_is_lost_once_whoever_asks_meanwhile(started):
    process = started(PolicySettings(stand_in="hangs"), timeout_s=2.0)
    for tick in range(FAULT_EVERY - 1):
        process.act(seen(tick))
    got = asked_at_once(process, observations(DEATHS + 1))
    told = [str(error) for error, _ in got]
    assert sum("not answered within 2 s; another is being started" in one for one in told) == 1
    assert sum("still deciding" in one for one in told) == DEATHS
    assert waits_for(lambda: process.pid is not None)
    assert process.act(seen(0)).tick == 0 and process.restarts == 1


def test_what_keeps_it_from_being_started_again_is_said():
    lines = []
    settings = PolicySettings(stand_in="constant")
    process = ModelProcess(settings, 1, lambda level, line: lines.append(line))

    def said() -> str:
        with pytest.raises(ModelError) as error:
            process.work()
        return str(error.value)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.kill(process.pid, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # no file can be opened any more
    try:
        assert waits_for(lambda: "could not be started again: OSError: " in said())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        process.close()
    assert "Too many open files; clean the node up" in lines[-1]


def test_a_process_that_hangs_does_not_outlive_the_one_that_asked():
    code = (
        "from canvas_robot.policy.model_process import ModelProcess\n"
        "from canvas_robot.policy.settings import PolicySettings\n"
        "from canvas_robot.signals import Observation\n"
        "settings = PolicySettings(stand_in='hangs')\n"
        "process = ModelProcess(settings, 1, lambda level, line: None)\n"
        "print(process.pid, flush=True)\n"
        "for tick in range(30): process.act(Observation(tick, 0, {}))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as asking:
        pid = int(asking.stdout.readline())
        assert alive(pid)
        asking.kill()
    assert waits_for(lambda: not alive(pid))


INTERRUPTED = """
import multiprocessing, signal, sys
from canvas_robot.policy.model_process import prepare

signal.signal(signal.SIGINT, lambda number, frame: print("interrupted", flush=True))
if __name__ == "__main__":
    prepare(sys.argv[1])
    print("loading", flush=True)
    sys.stdin.read(1)
    forked = multiprocessing.get_context("forkserver").Process(target=print, args=("alive",))
    forked.start()
    forked.join()
"""


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def loads_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def test_ctrl_c_while_libraries_load_is_for_the_process_that_asked(tmp_path):
    (tmp_path / "asks.py").write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, "asks.py", "cpu"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as asks:
        try:
            assert asks.stdout.readline() == "loading\n"
            assert waits_for(lambda: any(map(loads_torch, children(asks.pid))))
            os.killpg(asks.pid, signal.SIGINT)
            said, errors = asks.communicate("\n", timeout=PATIENCE_S)
        finally:
            asks.kill()
    assert (said.split(), errors, asks.returncode) == (["interrupted", "alive"], "", 0)


def test_a_stand_in_takes_its_time_and_decides_no_motion(started):
    process = started(PolicySettings(stand_in="constant", stand_in_ms=30.0))
    process.reset("touch the red cube")
    chunk = process.act(seen(4))
    assert chunk.tick == 4 and chunk.timings_ms["forward"] >= 30.0
    np.testing.assert_array_equal(chunk.values, [[0, 0, 0, 0, 0, 0, 1]] * process.horizon)
    assert set(chunk.stamps_ns) == {"visual", "proprio"}


def test_an_unknown_stand_in_is_refused():
    with pytest.raises(ValueError, match=f"stand_in: expected one of {', '.join(STAND_INS)}"):
        PolicySettings(stand_in="sleeps")


# ---------------------------------------------------------------- the exchange


class Values(Message):
    arrays: list[np.ndarray]


class Words(Message):
    text: str
    number: float


@pytest.fixture(scope="module")
def both():
    """Two ends in one process."""
    here, there = ends()
    block = Block()
    other = Block(os.dup(block.fd))
    with here, there:
        yield Exchange(here, block, Values | Words), Exchange(there, other, Values | Words)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        arrays.arrays(
            st.sampled_from([np.uint8, np.float32, np.int64, bool]),
            arrays.array_shapes(max_dims=4, max_side=9, min_side=0),
        ),
        max_size=5,
    )
)
def test_what_arrives_is_what_was_sent_and_stays_so(both, values):
    first, second = both
    first.send(Values(values))
    got = second.receive().arrays
    first.send(Values([np.full(8192, 255, np.uint8)]))  # over the same memory
    second.receive()
    for ours, theirs in zip(values, got, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_large_and_small_arrays_arrive_in_one_message(both):
    """A large one goes by the shared memory, a small one with all else; both may be written to."""
    first, second = both
    picture, stamps = np.arange(640 * 480, dtype=np.uint8), np.array([1, 2])
    turned = np.arange(10_000.0).reshape(100, 100).T  # not in one piece
    first.send(Values([picture, stamps, turned]))
    got = second.receive().arrays
    for ours, theirs in zip((picture, stamps, turned), got, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        theirs[0] = 7  # the receiver's own
    assert picture[0] == 0


@pytest.mark.parametrize("length", [10, 65_000, 70_000, 3_000_000])
def test_words_arrive_however_long(both, length):
    first, second = both
    text = "aé中" + "x" * length
    first.send(Words(text, np.float32(0.5)))
    assert second.receive(1.0) == Words(text, 0.5)


def test_an_end_waits_for_a_message_and_no_longer_than_it_should(both):
    first, second = both
    for timeout_s in (0.001, 0.02):
        with pytest.raises(TimeoutError):
            second.receive(timeout_s)
    first.send(Words("something", 1.0))
    assert second.receive().text == "something"


def test_an_end_learns_that_the_other_ended():
    here, there = ends()
    end = Exchange(here, Block(), Words)
    there.close()
    with pytest.raises(EOFError):
        end.receive()
    with here, pytest.raises(OSError):
        end.send(Words("nobody hears", 0.0))


def test_more_than_the_memory_holds_is_refused(both):
    first, second = both
    with pytest.raises(ExchangeError, match=f"{BLOCK_BYTES:,} bytes"):
        first.send(Values([np.zeros(BLOCK_BYTES + 1, np.uint8)]))
    for value in (object(), np.array([None]), np.zeros(3, "i4,f4")):
        with pytest.raises(TypeError, match="expected what can be exchanged"):
            first.send(Values([value]))
    first.send(Words("still there", 0.0))
    assert second.receive().text == "still there"


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_squashed_pictures_are_those_that_the_policy_would_make(data):
    """Whatever is shown again, in whatever order of windows; each is squashed once."""
    size, rng = (24, 16), np.random.default_rng(data.draw(st.integers(0, 99)))
    squashing = Squashing({"front": size})
    taken = rng.integers(0, 256, (6, 48, 64, 3), np.uint8)
    first = 0
    for tick in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(first, 5))
        shown = [first, *data.draw(st.lists(st.integers(first, 5), max_size=3).map(sorted))]
        frames = Frames(taken[shown], np.array(shown) + 1, np.zeros(len(shown), bool))
        other = Frames(taken[:1], np.array([1]), np.zeros(1, bool))
        got = squashing.observation(Observation(tick, tick, {"front": frames, "state": other}))
        assert got.frames["state"] is other
        np.testing.assert_array_equal(
            got.frames["front"].values, [squash(taken[i], size) for i in shown]
        )
        np.testing.assert_array_equal(got.frames["front"].stamps_ns, frames.stamps_ns)


def test_pictures_of_another_episode_are_looked_at_anew():
    squashing, stamps = Squashing({"front": (2, 2)}), np.array([1])

    def shown(level: int) -> np.ndarray:
        frames = Frames(np.full((1, 4, 4, 3), level, np.uint8), stamps, np.zeros(1, bool))
        return squashing.observation(Observation(0, 1, {"front": frames})).frames["front"].values

    assert (shown(7) == 7).all()
    squashing.reset()
    assert (shown(9) == 9).all()


def test_large_pictures_lead_to_the_same_decisions(started):
    """Squashed on this side or on the other."""
    process, policy = started(PolicySettings()), assemble_policy(PolicySettings())
    rng, history = np.random.default_rng(1), TickHistory(policy.schema, policy.binding)
    process.reset("touch the red cube")
    policy.reset("touch the red cube")
    for _ in range(2):
        sample = {
            "image": rng.integers(0, 256, (480, 640, 3), np.uint8),
            "state": np.float32([0.2, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0]),
        }
        observation = history.observe(sample)
        ours, theirs = process.act(observation), policy.act(observation)
        np.testing.assert_array_equal(ours.values, theirs.values)
        assert 0.0 < ours.timings_ms["squash"] <= ours.timings_ms["codec"]


def test_what_was_expected_is_decided_on_as_if_it_had_not_been(started, monkeypatch):
    """Pictures squashed ahead change nothing, whether it is these that are asked about or not."""
    squashed = []
    monkeypatch.setattr(
        "canvas_robot.policy.squashing.squash",
        lambda picture, size: (squashed.append(size), squash(picture, size))[1],
    )
    plain, ahead = started(PolicySettings()), started(PolicySettings())
    rng, history = np.random.default_rng(1), TickHistory(plain.schema, plain.binding)
    plain.reset("touch the red cube")
    ahead.reset("touch the red cube")
    for comes_later in (False, True):
        picture = rng.integers(0, 256, (480, 640, 3), np.uint8)
        state = np.float32([0.2, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0])
        observation = history.observe({"image": picture, "state": state})
        shown = observation.frames["visual"]
        other = Frames(255 - shown.values, shown.stamps_ns - 1, shown.missing)
        frames = {**observation.frames, "visual": other} if comes_later else observation.frames
        ahead.expect(Observation(observation.tick, observation.stamp_ns, frames))
        squashed.clear()
        chunk = ahead.act(observation)
        assert len(squashed) == comes_later
        np.testing.assert_array_equal(chunk.values, plain.act(observation).values)
        assert chunk.timings_ms["squash_ahead"] > 0
    assert (
        ahead.act(history.observe({"image": picture, "state": state})).timings_ms["squash_ahead"]
        == 0.0
    )


def test_frames_cross_over_once(started, monkeypatch):
    """Those of a region that keeps its own, and those that were expected; the last ones count."""
    process, sent = started(PolicySettings()), []
    send = Exchange.send
    monkeypatch.setattr(Exchange, "send", lambda end, value: (sent.append(value), send(end, value)))

    def crossed() -> list[tuple[str, list[str]]]:
        asked = [one for one in sent if isinstance(one, Expect | Act)]
        sent.clear()
        return [(type(one), sorted(r for r in one.frames if one.frames[r])) for one in asked]

    process.reset("touch the red cube")
    (first, other), tick_ns = observations(2), 200_000_000

    def at(tick: int, frames: dict[str, Frames]) -> Observation:
        return Observation(tick, first.stamp_ns + tick * tick_ns, frames)

    both = sorted(first.frames)
    process.act(at(0, first.frames))
    assert crossed() == [(Act, both)]
    process.act(at(1, first.frames))
    assert crossed() == [(Act, [])]
    process.expect(at(2, {**other.frames, "visual": first.frames["visual"]}))
    process.act(at(2, other.frames))
    assert crossed() == [(Expect, [r for r in both if r != "visual"]), (Act, ["visual"])]


def test_a_process_that_took_the_place_of_another_is_sent_all_frames(started):
    process, observation = started(PolicySettings(stand_in="constant")), seen(0)
    process.reset("touch the red cube")
    before = process.act(observation)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ModelError):
        process.act(observation)
    process.expect(observation)  # there is none: `act` will say so
    assert waits_for(lambda: process.restarts == 1)
    after = process.act(observation)
    assert after.stamps_ns == before.stamps_ns and len(after.stamps_ns) == len(observation.frames)


def test_after_a_fault_all_frames_are_sent_again(started):
    """Nobody knows what the process had kept by then."""
    process, observation = started(PolicySettings(stand_in="raises")), seen(0)
    process.reset("touch the red cube")
    for decision in range(1, 2 * FAULT_EVERY + 1):
        if decision % FAULT_EVERY:
            assert process.act(observation).stamps_ns
        else:
            with pytest.raises(ModelError, match="the stand-in raises"):
                process.act(observation)


def test_what_goes_on_crosses_over_and_comes_back_with_the_chunk_that_goes_on_with_it(
    started, tmp_path
):
    binding = tmp_path / "drawing.yaml"
    text = config_path("bindings", "widowx.yaml").read_text()
    binding.write_text(text.replace("codec: action,", "codec: action_diffusion,"))
    drawing = PolicySettings(binding=str(binding))
    process, policy = started(drawing), assemble_policy(drawing)
    observation = TickHistory(policy.schema, policy.binding).observe(sample(0))
    going_on = GoingOn(np.full((3, 7), 0.01, np.float32), 2)
    process.reset("touch the red cube")
    policy.reset("touch the red cube")
    ours, theirs = process.act(observation, going_on), policy.act(observation, going_on)
    np.testing.assert_array_equal(ours.values, theirs.values)
    np.testing.assert_array_equal(ours.continues.rows, going_on.rows)
    assert ours.continues.frozen == 2
