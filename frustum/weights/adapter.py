"""What this package must know of a project that published weights, for them to load as they are: one module of weights/ each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from frustum.types.contract import ModelConfig


class Found(NamedTuple):
    """What a state dict is, as far as its names and shapes say.

    Attributes:
        about: in words: what it is, which recipe loads it, what contradicts itself, what can be done with a part of a network.
        recipe: the recipe that loads it; empty if there is none.
        published: its name in the catalogue; empty if it is not a published file.
        is_consistent: its widths can belong to one network.
        channels: the counts that were read from the shapes; empty if it is not of this project.
    """

    about: str
    recipe: str = ""
    published: str = ""
    is_consistent: bool = True
    channels: Mapping[str, Any] = {}


class Origin(NamedTuple):
    """Where a state dict comes from.

    Attributes:
        what: the file, for messages.
        around: plain facts around the weights in it (`StateFile.details`).
        said: the settings that the user gave, as typed, by path.
    """

    what: str
    around: Mapping[str, Any]
    said: Mapping[str, str]


class Adapter(Protocol):
    """A module of weights/, listed in weights/upstream.py."""

    SOURCE: str  # the project's name for --source

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state dict of the project in the names and conventions of our modules; any other one, and one that is so already, as it is."""

    def reads(self, config: ModelConfig) -> bool:
        """Whether the project publishes weights for networks of this kind, of whatever widths."""

    def identify(self, state: Mapping[str, Tensor]) -> Found:
        """What a state dict is."""

    def widths(self, state: Mapping[str, Tensor], config: ModelConfig) -> list[str]:
        """Settings (`model.bev_channels=64`) that a state dict of this kind of network needs in addition to those of `config`."""

    def needs(self, state: Mapping[str, Tensor] | None, origin: Origin | None = None) -> dict[str, Any]:
        """What the weights must be fed and run with: values of settings that travel, by the last word of their path.

        With an `origin`, a CheckpointError is raised if a setting is not known that neither the file nor the user says.
        """
