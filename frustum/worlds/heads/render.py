"""render(): one picture of a head, with everything that is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from frustum.errors import ConfigError
from frustum.worlds.heads import parts as kinds
from frustum.worlds.heads.canvas import NECK_JOINT, Canvas, Pose, rotation, surface_values
from frustum.worlds.heads.hair import chart_hairs, hairline, hang, head_hair
from frustum.worlds.heads.landmarks import landmarks
from frustum.worlds.heads.light import light_frame, open_sky
from frustum.worlds.heads.motion import Motion
from frustum.worlds.heads.paint import Face, beard_area, brow_line
from frustum.worlds.heads.parts import Mesh, Threads, body_mesh, ear, earrings, glasses, hat_meshes, necklace
from frustum.worlds.heads.person import Colour, Glasses, Identity
from frustum.worlds.heads.raster import grid_normals
from frustum.worlds.heads.scene import Scene, draw_backdrop, neckline_heights
from frustum.worlds.heads.shade import BALL, develop, shade
from frustum.worlds.heads.shape import BROW_Y, EYE, EYE_HALF, JAW_ANGLE, MOUTH_HALF, NOSE_TIP, floats, head_points, stretch_all
from frustum.worlds.heads.skull import grid_place, points_at, skull
from frustum.worlds.street.jit import forget_stale

WINDOW = 39.0  # centimetres that a picture is wide, at the head, at scale 1
MIDDLE = -2.4  # height of the picture's middle
SHADOW_SIZE, SHADOW_SPAN = 176, 44.0
SUBPIXELS = 2
SMALLEST, LARGEST = 64, 512


@dataclass(frozen=True)
class HeadImage:
    """A picture and its truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        parsing: (H, W) uint8 CelebAMask-HQ ids, the class of most of a pixel's sub-pixels.
        matte: (H, W) float32 share of each pixel that the head covers.
        depth: (H, W) float32 centimetres along the optical axis to the nearest surface, 0 = background.
        landmarks: (68, 2) float32 x, y in pixels in the order of iBUG 300-W; the middle of the top left pixel is (.5, .5).
        is_visible: (68,) bool: inside the picture and not hidden.
    """

    image: np.ndarray
    parsing: np.ndarray
    matte: np.ndarray
    depth: np.ndarray
    landmarks: np.ndarray
    is_visible: np.ndarray


def linear(colour: Colour) -> Colour:
    """A screen's colour as linear light."""
    r, g, b = (float(c) ** 2.2 for c in colour)
    return r, g, b


def _linear_fields(value: Any) -> Any:
    """A NamedTuple of floats with its colours made linear."""
    return type(value)(*(linear(v) if isinstance(v, tuple) else float(v) for v in value))


def face_numbers(identity: Identity, motion: Motion) -> Face:
    """Where the features are on the chart."""
    s = identity.shape
    half = MOUTH_HALF * s.mouth_width * (1.0 + 0.12 * motion.smile - 0.28 * motion.pucker)
    wide = 1.0 + 0.12 * max(motion.brow_raise, 0.0) + 0.1 * motion.jaw
    return Face(
        eye_x=EYE[0] * s.eye_spacing, eye_half=EYE_HALF[0] * s.eye_width, eye_high=EYE_HALF[1] * s.eye_height * wide, eye_tilt=s.eye_tilt,
        open_left=1.0 - motion.blink_left, open_right=1.0 - motion.blink_right,
        brow_y=BROW_Y + s.brow_height + 0.55 * motion.brow_raise - 0.2 * motion.frown, brow_thick=0.36 * s.brow_thickness,
        brow_arch=0.3 + s.brow_arch + 0.15 * motion.brow_raise, brow_frown=motion.frown + 0.35 * min(motion.smile, 0.0),
        mouth_half=half, upper_lip=0.62 * s.upper_lip * (1.0 - 0.25 * max(motion.smile, 0.0)),
        lower_lip=0.80 * s.lower_lip * (1.0 - 0.2 * max(motion.smile, 0.0)), mouth_open=9.0 * np.sin(JAW_ANGLE * motion.jaw),
        nose_tip=NOSE_TIP * s.nose_length, nose_width=s.nose_width, age=s.age, squint=0.8 * max(motion.smile, 0.0),
    )  # fmt: skip


@cache
def _check_kernels() -> None:
    """Once per process: drop compiled kernels that are older than their sources."""
    sources = ("raster", "shade", "paint", "light", "shape", "hair", "scene")
    forget_stale(Path(shade.stats.cache_path), [Path(__file__).with_name(f"{name}.py") for name in sources])


def render(identity: Identity, motion: Motion, scene: Scene, size: int = 128) -> HeadImage:
    """Draw a head.

    Args:
        identity: whose head it is.
        motion: pose, expression and gaze; the neck follows.
        scene: light, background and body. Its skin is the body's, whoever the head belongs to.
        size: height and width in pixels, 64 to 512.

    The body and the background do not depend on the identity: its shadow on them is that of a standard head in the same pose.

    Raises:
        ConfigError: another size.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"a head cannot be drawn at {size} pixels: choose a size from {SMALLEST} to {LARGEST}.")
    _check_kernels()
    pose = Pose(rotation(motion), np.array([motion.shift_x, motion.shift_y, 0.0]))
    full = size * SUBPIXELS
    focal = full / WINDOW * scene.distance * motion.scale
    camera = np.array([focal, full / 2, full / 2 + focal * MIDDLE / scene.distance, scene.distance])
    light, face = floats(scene.light), floats(face_numbers(identity, motion))
    own = head_points(identity.shape, motion)
    frame = light_frame(light)
    canvas, shadow, lens = Canvas(full, camera), _shadow_canvas(frame, pose), Canvas(full, camera, with_surface=False)
    for mesh in _head_meshes(identity, own, pose):
        flat, values = surface_values(mesh.points, mesh.chart, mesh.is_closed)
        canvas.mesh(mesh.part, flat, values, mesh.points.shape[1])
        shadow.mesh(mesh.part, np.ascontiguousarray(flat @ frame.T), values, mesh.points.shape[1])
    body = _body(scene, pose)
    canvas.mesh(body.part, *surface_values(body.points, body.chart, True), body.points.shape[1])
    tubes, lenses = _glasses(identity, own, face, pose)
    for threads in [*_hairs(identity, own, face, pose, scene), *tubes]:
        canvas.threads(threads)
        shadow.threads(threads._replace(points=threads.points @ frame.T))
    for mesh in lenses:
        lens.mesh(mesh.part, *surface_values(mesh.points, mesh.chart, False), mesh.points.shape[1])
    if scene.necklace > 0:
        canvas.threads(necklace(body, scene.necklace))
    sky, backdrop = np.empty((size, size), np.float32), np.empty((size, size, 3), np.float32)
    open_sky(canvas.depths, canvas.parts, canvas.surface, kinds.HAIR, focal, SUBPIXELS, 3.2, sky)
    b = scene.backdrop
    draw_backdrop(b.kind, linear(b.first), linear(b.second), linear(b.third), b.seed, backdrop)
    balls, gazes = _eyes(own, face, motion, pose)
    middle = pose.apply(np.array([0.0, -0.5, -0.5]))  # of the standard head that casts a shadow on the body
    colours, classes = np.empty((full, full, 3), np.float32), np.empty((full, full), np.uint8)
    shade(
        canvas.depths, canvas.parts, canvas.surface, lens.depths, sky, camera, SUBPIXELS, light, frame, shadow.camera, shadow.depths,
        hairline(identity.hair), balls, gazes, middle, pose.move, face, _linear_fields(identity.paint), _linear_fields(scene.dress),
        neckline_heights(scene.neckline), backdrop, colours, classes,
    )  # fmt: skip
    image, parsing = np.empty((size, size, 3), np.uint8), np.empty((size, size), np.uint8)
    matte, depth = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    develop(colours, classes, canvas.depths, SUBPIXELS, light.exposure, np.empty(19, np.int64), image, parsing, matte, depth)
    points, is_visible = landmarks(own, face, pose.apply, camera, canvas.depths)
    return HeadImage(image, parsing, matte, depth, points / SUBPIXELS, is_visible)


def _shadow_canvas(frame: np.ndarray, pose: Pose) -> Canvas:
    """What the key light sees: it looks at the head's middle from far away."""
    far, k, half = 1000.0, SHADOW_SIZE / SHADOW_SPAN, SHADOW_SIZE / 2
    x, y, z = frame @ pose.apply(np.array([0.0, 1.0, -1.0]))
    return Canvas(SHADOW_SIZE, np.array([k * far, half - k * x, half + k * y, far + z]), with_surface=False)


def _head_meshes(identity: Identity, own: np.ndarray, pose: Pose) -> list[Mesh]:
    """Head, ears and hat in the world."""
    attached = [ear(-1, identity.shape.ears), ear(1, identity.shape.ears), *hat_meshes(identity.hat)]
    attached = [mesh._replace(points=pose.apply(stretch_all(mesh.points, identity.shape))) for mesh in attached]
    return [Mesh(kinds.HEAD, pose.apply(own), skull().chart, is_closed=True), *attached]


def _body(scene: Scene, pose: Pose) -> Mesh:
    """The body in the world; its neck follows a standard head."""
    c, s = np.cos(scene.body_turn), np.sin(scene.body_turn)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    top = (pose.turn @ (np.array([0.0, -3.0, -2.2]) - NECK_JOINT)) + NECK_JOINT
    body = body_mesh(scene.build, turn.T @ top, neckline_heights(scene.neckline))
    return body._replace(points=body.points @ turn.T + pose.move)


def _hairs(identity: Identity, own: np.ndarray, face: Face, pose: Pose, scene: Scene) -> list[Threads]:
    """Brows, beard, hair and earrings in the world."""
    normals = np.empty((own.shape[0] * own.shape[1], 3))
    grid_normals(np.ascontiguousarray(own.reshape(-1, 3)), own.shape[0], own.shape[1], True, normals)
    normals = normals.reshape(own.shape)
    found = _brows(identity, face, own, normals)
    if identity.beard > 0:
        found.append(_beard(identity, own, normals))
    if identity.earring > 0:
        rings = earrings(identity.earring, identity.shape.ears)
        found.append(rings._replace(points=stretch_all(rings.points, identity.shape)))
    found = [threads._replace(points=pose.apply(threads.points)) for threads in found]
    hair = head_hair(floats(identity.hair), identity.shape, identity.hat_rim)
    if hair is not None:
        placed = hang(hair.points, pose.turn, NECK_JOINT, pose.move, scene.build.shoulders, scene.build.slope)
        found.append(hair._replace(points=placed))
    return found


def _glasses(identity: Identity, own: np.ndarray, face: Face, pose: Pose) -> tuple[list[Threads], list[Mesh]]:
    """Frame and lenses in the world."""
    worn = identity.glasses
    if worn is None:
        return [], []
    x = face.eye_x
    places = np.array([[0.0, 0.4], *([s * x, y] for s in (-1.4, -0.6, 0.6, 1.4) for y in (-2.1, 1.6))])
    touched = points_at(own, grid_place(places))  # nose, cheeks and brows keep them off
    front = float((touched[:, 2] + kinds.LENS_CURVE * touched[:, 0] ** 2).max()) + 0.3
    tubes, lenses = glasses(front, x, worn.roundness, worn.size, 7.3 * identity.shape.width, worn.thickness)
    return [t._replace(points=pose.apply(t.points)) for t in tubes], [m._replace(points=pose.apply(m.points)) for m in lenses]


def _eyes(own: np.ndarray, face: Face, motion: Motion, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the left and the right eyeball and where they look, (2, 3) each, in the world."""
    fronts = points_at(own, grid_place(np.array([[face.eye_x, 0.0], [-face.eye_x, 0.0]])))
    middles = fronts - np.array([[0.12, 0.0, 0.97 * BALL], [-0.12, 0.0, 0.97 * BALL]])
    cx, cy = motion.gaze_x, motion.gaze_y
    gaze = np.array([np.sin(cx) * np.cos(cy), np.sin(cy), np.cos(cx) * np.cos(cy)])
    return pose.apply(middles), np.stack([pose.turn @ gaze] * 2)


def _brows(identity: Identity, face: Face, own: np.ndarray, normals: np.ndarray) -> list[Threads]:
    """Hairs of the left and the right eyebrow."""
    rng = np.random.default_rng([identity.hair.seed, 3])
    t, e = rng.uniform(0.0, 0.97, 70), rng.uniform(-0.8, 0.8, 70)
    tone, length = rng.uniform(0.3, 0.6, 70), rng.uniform(0.45, 0.75, 70)
    y, half = np.array([brow_line(place, face) for place in t]).T
    found = []
    for side, part in ((1, kinds.BROW_LEFT), (-1, kinds.BROW_RIGHT)):
        at = grid_place(np.stack([side * (face.eye_x - 1.75 + 3.75 * t), y + half * e], axis=-1))
        flow = np.stack([side * (0.45 + 0.6 * t), 0.8 - 1.1 * t - 0.4 * e, -0.3 * t], axis=-1)
        found.append(chart_hairs(part, own, normals, at, flow, length * (1 - 0.4 * t), 0.09, tone))
    return found


@cache
def _beard_places() -> np.ndarray:
    """(N, 2) chart positions of a beard's roots."""
    rng = np.random.default_rng(5)
    places = rng.uniform((-9.8, -13.0), (9.8, -2.5), (2600, 2))
    return places[[beard_area(x, y) > least for (x, y), least in zip(places, rng.uniform(0.3, 0.8, 2600), strict=True)]]


def _beard(identity: Identity, own: np.ndarray, normals: np.ndarray) -> Threads:
    """Hairs of beard and moustache."""
    rng, places = np.random.default_rng([identity.hair.seed, 5]), _beard_places()
    X, Y = places.T
    is_lip = (Y > -6.8) & (np.abs(X) < 3.4)
    flow = np.stack([np.where(is_lip, np.sign(X) * 1.3, 0.05 * X), np.where(is_lip, -0.5, -1.0), np.where(is_lip, 0.1, 0.25)], axis=-1)
    flow += rng.normal(0, 0.18, flow.shape)
    length = np.where(is_lip, min(identity.beard, 0.7), identity.beard * (0.6 + 0.5 * np.exp(-((X / 4.0) ** 2))))
    length *= rng.uniform(0.7, 1.0, len(X))
    return chart_hairs(kinds.BEARD, own, normals, grid_place(places), flow, length, 0.12, rng.uniform(0.25, 0.65, len(X)))


def warm_up() -> None:
    """Compile every kernel, or load it from the cache."""
    identity = Identity(hat="cap", glasses=Glasses(), earring=0.5, beard=0.5)
    render(identity, Motion(), Scene(necklace=3.0), SMALLEST)
