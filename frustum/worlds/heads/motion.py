"""What a head does: pose, expression and gaze."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Motion:
    """Pose, expression and gaze at one moment.

    Attributes:
        yaw, pitch, roll: radians; positive turns to the person's left, looks down, tilts towards the person's left shoulder.
        shift_x, shift_y: centimetres that the person stands to the right of the picture's middle and above it. scale: size in the picture.
        jaw: 0 closed .. 1 wide open. smile: -0.5 sad .. 1. pucker: 0 .. 1. frown: 0 .. 1. brow_raise: -0.5 .. 1.
        blink_left, blink_right: 0 open .. 1 closed, of the person's own left and right eye.
        gaze_x, gaze_y: radians to the person's left and up, relative to the head.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 1.0
    jaw: float = 0.0
    smile: float = 0.0
    pucker: float = 0.0
    frown: float = 0.0
    brow_raise: float = 0.0
    blink_left: float = 0.0
    blink_right: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
