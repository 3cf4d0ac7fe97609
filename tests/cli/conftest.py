"""Runs the command line in this process, as a shell would see it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from frustum.cli.common import Settings
from frustum.cli.main import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def frustum(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call it with the words of a command; returns exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(Settings, "debug", False)
        monkeypatch.setattr(sys, "argv", ["frustum", *map(str, words)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else (0 if stop.code is None else 1)
        return Outcome(code, *capfd.readouterr())

    return run
