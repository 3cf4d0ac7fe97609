"""What is said while one waits: how fast, and how long still."""

from __future__ import annotations

import re

import pytest

from frustum.cli import worlds
from frustum.engine import progress
from frustum.engine.progress import pace, progress_bar
from frustum.worlds.street.world_config import WorldConfig


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress.time, "monotonic", found.monotonic)
    return found


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (123.456, "123.46 steps/s"),
        (0.1, "0.10 steps/s"),
        (0.099, "10 s per step"),
        (0.004, "250 s per step"),
        (0.0, "no step yet"),
    ],
)
def test_a_slow_pace_is_told_in_seconds(rate, text):
    assert pace(rate) == text
    assert pace(rate, "keyframes") == text.replace("step", "keyframe")


def test_digits_of_a_fast_pace():
    assert pace(3.456, "keyframes", 1) == "3.5 keyframes/s"


def test_no_time_left_is_guessed_from_one_item(clock, capsys):
    with progress_bar("filming", 10, unit="keyframes", every=5) as bar:
        clock.now += 40  # compiling and the first one
        bar.advance()
        clock.now += 20
        bar.advance()
        clock.now += 2
        bar.advance()  # not yet time for a line
        clock.now += 8
        bar.advance("loss 3.2")
        bar.note("half way")
    assert capsys.readouterr().out.splitlines() == [
        "filming: 1/10, 40 s per keyframe",
        "filming: 2/10, 30 s per keyframe, 4:00 left",
        "filming: 4/10, 18 s per keyframe, 1:45 left, loss 3.2",
        "half way",
    ]


def test_the_last_one_is_told_even_if_it_is_the_only_one(clock, capsys):
    with progress_bar("predict", 1, unit="frames") as bar:
        clock.now += 0.5
        bar.advance()
    assert capsys.readouterr().out == "predict: 1/1, 2.00 frames/s, 0:00 left\n"


def test_what_was_there_before_tells_nothing_about_the_pace(clock, capsys):
    with progress_bar("filming", 100, unit="keyframes", every=1) as bar:
        clock.now += 5
        bar.already(90)
        clock.now += 10
        bar.advance()
        clock.now += 10
        bar.advance()
    assert capsys.readouterr().out.splitlines() == [
        "filming: 91/100, 0.10 keyframes/s",
        "filming: 92/100, 0.10 keyframes/s, 1:20 left",
    ]


def test_nothing_is_said_when_switched_off(clock, capsys):
    with progress_bar("train", 2, show=False) as bar:
        clock.now += 100
        bar.advance()
        bar.note("x")
    assert capsys.readouterr().out == ""


def test_a_resumed_world_counts_only_what_it_films(clock, capsys, monkeypatch, tmp_path):
    def generate(config, root, workers, tick, overwrite):
        tick(6, 10)
        for done in (7, 8):
            clock.now += 20
            tick(done, 10)
        raise KeyboardInterrupt

    monkeypatch.setattr(worlds, "generate", generate)
    with pytest.raises(KeyboardInterrupt):
        worlds.generate_world(WorldConfig(train_scenes=1, val_scenes=1, frames=5), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["filming: 7/10, 20 s per keyframe", "filming: 8/10, 20 s per keyframe, 0:40 left"]


def test_the_bar_of_a_terminal(clock, capsys, monkeypatch):
    """What is drawn is rich's affair; it is fed with the same words."""
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True)
    with progress_bar("train", 4, done=1) as bar:
        assert bar._bar is not None
        bar.already(2)
        clock.now += 50
        bar.advance("loss 1.5")
        (task,) = bar._bar.tasks
        assert (task.completed, task.total, task.fields["rate"], task.fields["note"]) == (3, 4, "50 s per step", "loss 1.5")
    assert re.search("train", capsys.readouterr().out)
