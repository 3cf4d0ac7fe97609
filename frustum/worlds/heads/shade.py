"""From buffers of parts and surfaces to colours and classes."""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.heads import paint as P
from frustum.worlds.heads.light import ball_shadow, shadow_at
from frustum.worlds.heads.paint import (
    brow_line,
    is_nose,
    lids,
    lip_colour,
    lip_edges,
    mouth_colour,
    skin_colour,
)
from frustum.worlds.heads.parts import (
    BACKGROUND,
    BEARD,
    BODY,
    BROW_LEFT,
    BROW_RIGHT,
    EAR_LEFT,
    EAR_RIGHT,
    GLASSES,
    HAIR,
    HAT,
    NECKLACE,
)
from frustum.worlds.heads.shape import smooth_step
from frustum.worlds.heads.skull import LIP_GAP, LIP_LINE
from frustum.worlds.street.jit import SHADING, SHADING_INLINE
from frustum.worlds.street.kernels_texture import hash2, smooth_noise

BALL = 1.28  # radius of an eyeball, centimetres
IRIS = 0.70


@numba.njit(**SHADING)
def _lit(albedo, nx, ny, nz, sun, sky_open, light, wrap, red):
    """Diffuse light; `red` lets the light creep around as it does in skin."""
    d = nx * light.key[0] + ny * light.key[1] + nz * light.key[2]
    w = wrap + 0.22 * red
    kr = max((d + w) / (1.0 + w), 0.0)
    w = wrap + 0.07 * red
    kg = max((d + w) / (1.0 + w), 0.0)
    w = wrap + 0.03 * red
    kb = max((d + w) / (1.0 + w), 0.0)
    sr = sun + (1.0 - sun) * 0.10 * red
    up = 0.5 + 0.5 * ny
    back = max(nx * light.rim[0] + ny * light.rim[1] + nz * light.rim[2], 0.0) * sky_open
    c, s, g, b = light.key_colour, light.sky, light.ground, light.rim_colour
    deep = sky_open * sky_open
    r = albedo[0] * (c[0] * kr * sr + (g[0] + (s[0] - g[0]) * up) * (sky_open + 0.25 * red * (1.0 - sky_open)) + b[0] * back)
    gr = albedo[1] * (c[1] * kg * sun + (g[1] + (s[1] - g[1]) * up) * (sky_open * 0.8 + 0.2 * deep) + b[1] * back)
    bl = albedo[2] * (c[2] * kb * sun + (g[2] + (s[2] - g[2]) * up) * (sky_open * 0.8 + 0.2 * deep) + b[2] * back)
    return r, gr, bl


@numba.njit(**SHADING)
def _gloss(nx, ny, nz, vx, vy, vz, light, sharp):
    """Highlight of the key light, 0..1."""
    hx, hy, hz = light.key[0] + vx, light.key[1] + vy, light.key[2] + vz
    k = 1.0 / (np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9)
    c = max((nx * hx + ny * hy + nz * hz) * k, 0.0)
    return c**sharp


@numba.njit(**SHADING)
def thread_colour(albedo, tx, ty, tz, rx, ry, rz, vx, vy, vz, sun, sky_open, light, shine):
    """Kajiya-Kay: a thread of direction t is lit like a cylinder; r is the way out of the bundle."""
    lx, ly, lz = light.key
    d = tx * lx + ty * ly + tz * lz
    across = np.sqrt(max(1.0 - d * d, 0.0))
    out = rx * lx + ry * ly + rz * lz
    body = across * (0.35 + 0.65 * min(max(0.55 + 0.6 * out, 0.0), 1.0))
    e = tx * vx + ty * vy + tz * vz
    both = across * np.sqrt(max(1.0 - e * e, 0.0)) - d * e
    first = max(both, 0.0) ** 60.0
    d2 = d + 0.18
    second = max(np.sqrt(max(1.0 - d2 * d2, 0.0)) * np.sqrt(max(1.0 - e * e, 0.0)) - d2 * e, 0.0) ** 18.0
    facing = min(max(0.3 + out, 0.0), 1.0)
    up = 0.5 + 0.5 * ry
    rim = max(rx * light.rim[0] + ry * light.rim[1] + rz * light.rim[2], 0.0)
    k = sky_open
    res_r = albedo[0] * (
        light.key_colour[0] * sun * body + (light.ground[0] + (light.sky[0] - light.ground[0]) * up) * k + light.rim_colour[0] * rim
    )
    res_g = albedo[1] * (
        light.key_colour[1] * sun * body + (light.ground[1] + (light.sky[1] - light.ground[1]) * up) * k + light.rim_colour[1] * rim
    )
    res_b = albedo[2] * (
        light.key_colour[2] * sun * body + (light.ground[2] + (light.sky[2] - light.ground[2]) * up) * k + light.rim_colour[2] * rim
    )
    s = shine * sun * facing
    white, tinted = 0.045 * s * first, 0.55 * s * second
    res_r += light.key_colour[0] * (white + tinted * albedo[0])
    res_g += light.key_colour[1] * (white + tinted * albedo[1])
    res_b += light.key_colour[2] * (white + tinted * albedo[2])
    return res_r, res_g, res_b


@numba.njit(**SHADING)
def eye_colour(px, py, pz, distance, ball, gaze, under_lid, sun, sky_open, light, paint):
    """Colour of an eyeball where the camera's ray through a point of the face meets it."""
    dx, dy, dz = px, py, pz - distance
    k = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx * k, dy * k, dz * k
    ox, oy, oz = -ball[0], -ball[1], distance - ball[2]
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - BALL * BALL
    root = np.sqrt(max(b * b - c, 0.0))
    t = -b - root
    nx, ny, nz = (ox + t * dx) / BALL, (oy + t * dy) / BALL, (oz + t * dz) / BALL
    k = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz)
    nx, ny, nz = nx * k, ny * k, nz * k
    c = nx * gaze[0] + ny * gaze[1] + nz * gaze[2]
    away = BALL * np.sqrt(max(2.0 - 2.0 * c, 0.0)) / IRIS if c > 0.0 else 9.0
    white = (0.60, 0.57, 0.54)
    edge = smooth_step(1.06, 0.94, away)
    if edge > 0.0:
        ix, iy = nx - c * gaze[0], ny - c * gaze[1]
        angle = np.arctan2(iy, ix)
        rays = 0.75 + 0.5 * smooth_noise(angle * 7.0 + 40.0, away * 2.0)
        tone = rays * (0.55 + 0.75 * smooth_step(0.95, 0.45, away)) * (0.35 + 0.65 * smooth_step(1.02, 0.85, away))
        tone *= 1.0 + 0.6 * smooth_step(0.2, -0.8, iy * BALL / IRIS * 1.2)
        pupil = smooth_step(0.36, 0.44, away)
        iris = paint.iris[0] * tone * pupil + 0.004, paint.iris[1] * tone * pupil + 0.004, paint.iris[2] * tone * pupil + 0.004
        white = white[0] + (iris[0] - white[0]) * edge, white[1] + (iris[1] - white[1]) * edge, white[2] + (iris[2] - white[2]) * edge
    veil = (0.45 + 0.55 * under_lid) * sky_open
    r, g, bl = _lit(white, nx, ny, nz, sun * (0.4 + 0.6 * under_lid), veil, light, 0.35, 0.3)
    sx, sy, sz = nx + 0.3 * gaze[0] * edge, ny + 0.3 * gaze[1] * edge, nz + 0.3 * gaze[2] * edge
    k = 1.0 / np.sqrt(sx * sx + sy * sy + sz * sz)
    spark = _gloss(sx * k, sy * k, sz * k, -dx, -dy, -dz, light, 180.0) * (0.3 + 0.7 * sun) * 1.4
    return r + spark, g + spark, bl + spark


@numba.njit(**SHADING)
def face_colour(X, Y, px, py, pz, nx, ny, nz, vx, vy, vz, sun, sky_open, distance, face, paint, hairline, balls, gazes, light):
    """Colour and class of a place of the head's own surface."""
    a = abs(X)
    side = 1.0 if X > 0.0 else -1.0
    if paint.has_hair > 0.0 and a < 23.6:
        at = a / 0.375
        k = int(at)
        line = hairline[k] + (hairline[min(k + 1, 63)] - hairline[k]) * (at - k) + 0.5 * (hash2(int(X * 9.0 + 900), 5) - 0.5)
        if line < Y:
            t = 0.5 + 0.5 * hash2(int(X * 8.0 + 900), int(Y * 8.0 + 900))
            base = paint.hair[0] * t, paint.hair[1] * t, paint.hair[2] * t
            k = smooth_step(line + 1.2, line, Y) * 0.5
            base = (
                base[0] + (paint.skin[0] * 0.6 - base[0]) * k,
                base[1] + (paint.skin[1] * 0.6 - base[1]) * k,
                base[2] + (paint.skin[2] * 0.6 - base[2]) * k,
            )
            return _lit(base, nx, ny, nz, sun, sky_open, light, 0.1, 0.0), P.HAIR_CLASS
    # eyes
    dx, dy = (a - face.eye_x) / face.eye_half, Y
    lash, opened = 0.0, face.open_left if side > 0 else face.open_right
    lid = -9.0
    if abs(dx) < 1.35 and abs(dy) < 2.4:
        dy -= face.eye_tilt * dx * 0.5
        low, top = lids(min(max(dx, -1.0), 1.0), face.eye_high, opened, face.squint)
        if abs(dx) < 1.0 and low < dy < top:
            n = 0 if side > 0 else 1
            corner = smooth_step(-0.86, -0.97, dx)
            under = smooth_step(0.0, 0.34, top - dy)
            colour = eye_colour(px, py, pz, distance, balls[n], gazes[n], under, sun, sky_open, light, paint)
            wet = _lit((0.5, 0.2, 0.17), nx, ny, nz, sun, sky_open, light, 0.3, 1.0)
            rim = max(corner, 0.65 * smooth_step(0.09, 0.0, dy - low))
            mixed = colour[0] + (wet[0] - colour[0]) * rim, colour[1] + (wet[1] - colour[1]) * rim, colour[2] + (wet[2] - colour[2]) * rim
            return mixed, P.EYE_L if side > 0 else P.EYE_R
        lid = dy - top
        thick = (0.10 + 0.13 * paint.liner) * (0.75 + 0.45 * dx)
        if abs(dx) < 1.12 and lid >= 0.0:
            lash = smooth_step(thick + 0.08, thick * 0.4, lid) * smooth_step(1.14, 0.98, abs(dx)) * (0.55 + 0.45 * paint.liner)
        elif abs(dx) < 1.0 and dy <= low:
            lash = 0.35 * smooth_step(0.10, 0.02, low - dy) * (0.4 + 0.6 * paint.liner)
    # mouth
    q = X / face.mouth_half
    if q * q < 1.0 and abs(Y - LIP_LINE) < 2.0:
        up, down = lip_edges(q, face)
        y = Y - LIP_LINE
        height = face.mouth_open * np.sqrt(1.0 - q * q)
        if abs(y) < LIP_GAP and height > 0.12:
            inside = mouth_colour(q, min(max((LIP_GAP - y) / (2.0 * LIP_GAP), 0.0), 1.0), height)
            return _lit(inside, nx, ny, nz, 0.25 + 0.6 * sun, 0.5 * sky_open + 0.2, light, 0.5, 0.5), P.MOUTH
        if -LIP_GAP + down < y < up + LIP_GAP:
            is_upper = y > 0.0
            t = (abs(y) - LIP_GAP) / ((up if is_upper else -down) + 1e-6)
            albedo, shine = lip_colour(q, min(max(t, 0.0), 1.0), is_upper, paint)
            r, g, b = _lit(albedo, nx, ny, nz, sun, sky_open, light, 0.1, 0.8)
            s = shine * sun * 0.22 * _gloss(nx, ny, nz, vx, vy, vz, light, 30.0)
            return (r + s, g + s, b + s), P.LIP_U if is_upper else P.LIP_L
    albedo, shine, wrinkle = skin_colour(X, Y, face, paint)
    kind = P.SKIN
    if is_nose(X, Y, face):
        kind = P.NOSE
        u, v = (a - 0.62 * face.nose_width) / (0.36 * face.nose_width), (Y - face.nose_tip + 0.72) / 0.24
        hole = 0.8 * smooth_step(1.3, 0.6, u * u + v * v)
        albedo = albedo[0] * (1.0 - hole * 0.9), albedo[1] * (1.0 - hole), albedo[2] * (1.0 - hole)
    # lids and brows
    if lid > 0.0 and paint.shadow_strength > 0.0 and lid < 1.3:
        k = paint.shadow_strength * smooth_step(1.3, 0.15, lid) * smooth_step(1.3, 0.9, abs(dx))
        e = paint.eyeshadow
        albedo = albedo[0] + (e[0] - albedo[0]) * k, albedo[1] + (e[1] - albedo[1]) * k, albedo[2] + (e[2] - albedo[2]) * k
    if 0.0 < lid < 0.8 and abs(dx) < 1.1:
        crease = 0.32 * opened * np.exp(-(((lid - 0.30) / 0.09) ** 2)) * smooth_step(1.1, 0.7, abs(dx))
        albedo = albedo[0] * (1.0 - crease), albedo[1] * (1.0 - 1.2 * crease), albedo[2] * (1.0 - 1.2 * crease)
    if lash > 0.0:
        albedo = albedo[0] * (1.0 - lash) + 0.012 * lash, albedo[1] * (1.0 - lash) + 0.009 * lash, albedo[2] * (1.0 - lash) + 0.008 * lash
    t = (a - (face.eye_x - 1.75)) / 3.75
    if -0.1 < t < 1.0 and kind == P.SKIN:
        y, half = brow_line(t, face)
        e = abs(Y - y) / (half + 1e-6)
        if e < 1.0:
            kind = P.BROW_L if side > 0 else P.BROW_R
            stroke = hash2(int((a * 1.0 + Y * 0.6) * 9.0 + 300), int((Y - a * 0.25) * 3.0 + 300))
            k = smooth_step(1.0, 0.5, e) * (0.55 + 0.4 * stroke)
            c = paint.brow
            albedo = albedo[0] + (c[0] - albedo[0]) * k, albedo[1] + (c[1] - albedo[1]) * k, albedo[2] + (c[2] - albedo[2]) * k
    ny2 = ny + wrinkle
    k = 1.0 / np.sqrt(nx * nx + ny2 * ny2 + nz * nz)
    r, g, b = _lit(albedo, nx * k, ny2 * k, nz * k, sun, sky_open, light, 0.05, 1.0)
    s = sun * shine * (0.05 * _gloss(nx, ny, nz, vx, vy, vz, light, 12.0) + 0.10 * _gloss(nx, ny, nz, vx, vy, vz, light, 45.0))
    edge = 1.0 - max(nx * vx + ny * vy + nz * vz, 0.0)
    s += 0.05 * edge**4 * sky_open
    return (r + s, g + s, b + s), kind


@numba.njit(**SHADING)
def cloth_colour(X, Y, pattern, colour, second, period):
    """Albedo of clothes at a place of the body (x, y). Patterns: 0 plain, 1 rings, 2 stripes, 3 checks, 4 dots, 5 jacket over a shirt."""
    x, y = X / period, Y / period
    k = 0.0
    if pattern == 1:
        k = 1.0 if y - np.floor(y) < 0.5 else 0.0
    elif pattern == 2:
        k = 1.0 if x - np.floor(x) < 0.25 else 0.0
    elif pattern == 3:
        k = 0.5 * ((1.0 if x - np.floor(x) < 0.5 else 0.0) + (1.0 if y - np.floor(y) < 0.5 else 0.0))
    elif pattern == 4:
        u, v = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
        k = 1.0 if u * u + v * v < 0.06 else 0.0
    elif pattern == 5:
        edge = 4.6 - max(-14.5 - Y, 0.0) * 0.42
        k = 1.0 if abs(X) < edge else 0.0
        if abs(abs(X) - edge) < 0.12:
            return colour[0] * 0.45, colour[1] * 0.45, colour[2] * 0.45
    weave = 0.90 + 0.12 * hash2(int(X * 9.0 + 900), int(Y * 9.0 + 900)) + 0.10 * (smooth_noise(X * 0.5 + 7.0, Y * 0.35) - 0.5)
    return (
        (colour[0] + (second[0] - colour[0]) * k) * weave,
        (colour[1] + (second[1] - colour[1]) * k) * weave,
        (colour[2] + (second[2] - colour[2]) * k) * weave,
    )


@numba.njit(**SHADING)
def shade(
    depths, parts, surface, lens_depths, sky_open, camera, ss, light, frame, light_camera, light_depths, hairline, balls, gazes,
    head_middle, move, face, paint, dress, neckline, backdrop, colours, classes,
):  # fmt: skip
    """Fill `colours` (h, w, 3) float32 linear and `classes` (h, w) uint8 of every sub-pixel."""
    focal, mx, my, distance = camera[0], camera[1], camera[2], camera[3]
    for row in range(depths.shape[0]):
        for column in range(depths.shape[1]):
            part = parts[row, column]
            if part == BACKGROUND:
                is_dark = paint.lens > 0.5 and lens_depths[row, column] < 1e8
                classes[row, column] = P.EYE_G if is_dark else 0
                k = 0.96 - 0.88 * paint.lens if is_dark else 1.0
                for n in range(3):
                    colours[row, column, n] = k * backdrop[row // ss, column // ss, n]
                continue
            depth = depths[row, column]
            px, py, pz = (column + 0.5 - mx) * depth / focal, -(row + 0.5 - my) * depth / focal, distance - depth
            vx, vy, vz = -px, -py, distance - pz
            k = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx * k, vy * k, vz * k
            X, Y = surface[row, column, 0], surface[row, column, 1]
            nx, ny, nz = surface[row, column, 2], surface[row, column, 3], surface[row, column, 4]
            k = 1.0 / (np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9)
            nx, ny, nz = nx * k, ny * k, nz * k
            sky = sky_open[row // ss, column // ss]
            if part in (BODY, NECKLACE):
                sun = ball_shadow(px, py, pz, light.key[0], light.key[1], light.key[2], head_middle[0], head_middle[1], head_middle[2], 8.6)
                hx, hy, hz = head_middle[0] - px, head_middle[1] - py, head_middle[2] - pz
                d2 = hx * hx + hy * hy + hz * hz
                c = max((nx * hx + ny * hy + nz * hz) / np.sqrt(d2), 0.0) if part == BODY else 0.3
                sky = max(1.0 - 0.9 * (0.35 + 0.65 * c) * min(70.0 / d2, 1.0), 0.15)
                if part == NECKLACE:
                    r, g, b = thread_colour(dress.metal, nx, ny, nz, vx, vy, vz, vx, vy, vz, sun, sky, light, 3.0)
                    classes[row, column] = P.CHAIN
                else:
                    j = min(max(int((X / 7.5 / 6.283185 + 0.5) * 64.0), 0), 63)
                    f = (X / 7.5 / 6.283185 + 0.5) * 64.0 - j
                    line = neckline[j] + (neckline[(j + 1) % 64] - neckline[j]) * f
                    if line > Y:
                        wrinkle = 0.22 * (smooth_noise(X * 0.35 + Y * 0.4, Y * 0.25 + 3.0) - 0.5)
                        albedo = cloth_colour(px - move[0], py - move[1], dress.pattern, dress.colour, dress.second, dress.period)
                        if line - Y < 0.55:
                            albedo = albedo[0] * 0.8, albedo[1] * 0.8, albedo[2] * 0.8
                        r, g, b = _lit(albedo, nx + wrinkle, ny, nz, sun, sky, light, 0.08, 0.0)
                        classes[row, column] = P.CLOTH
                    else:
                        tone = 0.95 + 0.10 * smooth_noise(X * 0.9 + 3.0, Y * 0.9)
                        tone *= 0.6 + 0.4 * smooth_step(0.0, 0.6, Y - line)
                        s = dress.skin
                        r, g, b = _lit((s[0] * tone, s[1] * tone, s[2] * tone), nx, ny, nz, sun, sky, light, 0.05, 1.0)
                        classes[row, column] = P.NECK
            else:
                is_thread = part >= HAIR
                bias = 0.7 if is_thread else 0.55
                sun = shadow_at(px, py, pz, frame, light_camera, light_depths, bias, 3.2 if is_thread else 0.5)
                if is_thread:
                    ox, oy, oz = px - head_middle[0], py - head_middle[1], pz - head_middle[2]
                    k = 1.0 / (np.sqrt(ox * ox + oy * oy + oz * oz) + 1e-9)
                    ox, oy, oz = ox * k, oy * k, oz * k
                    tone = 0.5 + X
                    if part == HAIR:
                        tone *= 0.55 + 0.45 * smooth_step(0.0, 0.35, Y)
                        c = paint.hair[0] * tone, paint.hair[1] * tone, paint.hair[2] * tone
                        r, g, b = thread_colour(c, nx, ny, nz, ox, oy, oz, vx, vy, vz, sun, sky, light, 1.0)
                        classes[row, column] = P.HAIR_CLASS
                    elif part == BEARD:
                        c = paint.beard[0] * tone, paint.beard[1] * tone, paint.beard[2] * tone
                        r, g, b = thread_colour(c, nx, ny, nz, ox, oy, oz, vx, vy, vz, sun, sky, light, 0.5)
                        classes[row, column] = P.SKIN
                    elif part in (BROW_LEFT, BROW_RIGHT):
                        c = paint.brow[0] * tone, paint.brow[1] * tone, paint.brow[2] * tone
                        r, g, b = thread_colour(c, nx, ny, nz, ox, oy, oz, vx, vy, vz, sun, sky, light, 0.4)
                        classes[row, column] = P.BROW_L if part == BROW_LEFT else P.BROW_R
                    elif part == GLASSES:
                        r, g, b = thread_colour(paint.frame, nx, ny, nz, vx, vy, vz, vx, vy, vz, sun, sky, light, 2.5)
                        classes[row, column] = P.EYE_G
                    else:
                        r, g, b = thread_colour(paint.metal, nx, ny, nz, vx, vy, vz, vx, vy, vz, sun, sky, light, 3.0)
                        classes[row, column] = P.EAR_RING
                elif part == HAT:
                    knit = 0.85 + 0.25 * hash2(int(X * 5.0 + 900), int(Y * 9.0)) * 0.6
                    c = paint.hat[0] * knit, paint.hat[1] * knit, paint.hat[2] * knit
                    r, g, b = _lit(c, nx, ny, nz, sun, sky, light, 0.1, 0.0)
                    classes[row, column] = P.HAT_CLASS
                elif part in (EAR_LEFT, EAR_RIGHT):
                    s = paint.skin
                    u, v = (X + 0.15) / 0.75, (Y - 0.2) / 1.5
                    bowl = 0.45 * smooth_step(1.2, 0.5, u * u + v * v)
                    k = 1.0 - bowl
                    r, g, b = _lit((s[0] * 1.04 * k, s[1] * 0.86 * k, s[2] * 0.84 * k), nx, ny, nz, sun, sky, light, 0.15, 1.0)
                    classes[row, column] = P.EAR_L if part == EAR_LEFT else P.EAR_R
                else:
                    (r, g, b), kind = face_colour(
                        X, Y, px, py, pz, nx, ny, nz, vx, vy, vz, sun, sky, distance, face, paint, hairline, balls, gazes, light
                    )
                    classes[row, column] = kind
            if lens_depths[row, column] < depth and (paint.lens > 0.5 or (part != BODY and part != NECKLACE)):
                k = 0.96 - 0.88 * paint.lens
                glare = 0.03 + 0.12 * smooth_step(0.55, 0.75, smooth_noise(px * 0.35 + 0.5 * py + 20.0, 3.5))
                r, g, b = r * k + glare, g * k + glare, b * k + glare
                if paint.lens > 0.5:
                    classes[row, column] = P.EYE_G
            colours[row, column, 0], colours[row, column, 1], colours[row, column, 2] = r, g, b


@numba.njit(**SHADING_INLINE)
def is_head(kind):
    """Whether a class belongs to the head, HeSer's choice: all but background, neck, necklace and clothes."""
    return 1 <= kind <= 13 or kind >= 17


@numba.njit(**SHADING)
def develop(colours, classes, depths, ss, exposure, votes, image, parsing, matte, depth_map):
    """From sub-pixels to pixels: mean colour after tone mapping, most frequent class, the head's share, nearest depth (0 = none)."""
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            r = g = b = 0.0
            votes[:] = 0
            head, nearest = 0, np.float32(1e9)
            for i in range(row * ss, row * ss + ss):
                for j in range(column * ss, column * ss + ss):
                    r += tone(colours[i, j, 0] * exposure)
                    g += tone(colours[i, j, 1] * exposure)
                    b += tone(colours[i, j, 2] * exposure)
                    votes[classes[i, j]] += 1
                    if is_head(classes[i, j]):
                        head += 1
                    nearest = min(nearest, depths[i, j])
            k = 255.0 / (ss * ss)
            image[row, column, 0], image[row, column, 1], image[row, column, 2] = int(r * k + 0.5), int(g * k + 0.5), int(b * k + 0.5)
            best = 0
            for c in range(1, 19):
                if votes[c] > votes[best]:
                    best = c
            parsing[row, column] = best
            matte[row, column] = head / (ss * ss)
            depth_map[row, column] = nearest if nearest < 1e8 else 0.0


@numba.njit(**SHADING_INLINE)
def tone(x):
    """Linear light to a screen's value in 0..1, with a shoulder."""
    x = max(x, 0.0)
    x = (x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)
    return min(x, 1.0) ** (1.0 / 2.2)
