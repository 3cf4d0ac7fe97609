"""From what the rays met to pixels: sun, sky, shadows, haze, tone curve and sensor noise in one pass."""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.arrays import Actors, Models, Surfaces, World, cell_at, paint_at
from frustum.worlds.street.jit import SHADING, SHADING_INLINE
from frustum.worlds.street.kernels_cast import ACTOR, BELOW, GROUND, SKY
from frustum.worlds.street.kernels_light import Light
from frustum.worlds.street.kernels_texture import GLASS, LAMP, LEAVES, METAL, hash2, hash3, surface_tone
from frustum.worlds.street.sky import SKY_REACH, TONE_SCALE, TONE_SIZE


@numba.njit(**SHADING_INLINE)
def look_up_sky(sky, x, y, z):
    """Radiance of the sky in direction (x, y, z), nearest texel; below the horizon the horizon's."""
    size = sky.shape[0]
    s = 1.0 / (1.0 + max(z, 0.0))
    if z < 0.0:
        s = 1.0 / np.sqrt(x * x + y * y + 1e-12)
    i = int((x * s / SKY_REACH + 1.0) * 0.5 * size)
    j = int((y * s / SKY_REACH + 1.0) * 0.5 * size)
    i, j = min(max(i, 0), size - 1), min(max(j, 0), size - 1)
    return sky[i, j, 0], sky[i, j, 1], sky[i, j, 2]


@numba.njit(**SHADING_INLINE)
def sunlit(light: Light, x, y, z):
    """Share of sunlight 0..1 that reaches a point in cell units: four neighbouring shadow texels, blended."""
    u = x - z * light.kx + light.offset_x - 0.5
    v = y - z * light.ky + light.offset_y - 0.5
    i, j = int(u), int(v)
    if u < 0.0 or v < 0.0 or i + 1 >= light.shadow.shape[0] or j + 1 >= light.shadow.shape[1]:
        return 1.0
    a, b = u - i, v - j
    lit = 0.0
    if light.shadow[i, j] <= z:
        lit += (1.0 - a) * (1.0 - b)
    if light.shadow[i + 1, j] <= z:
        lit += a * (1.0 - b)
    if light.shadow[i, j + 1] <= z:
        lit += (1.0 - a) * b
    if light.shadow[i + 1, j + 1] <= z:
        lit += a * b
    return lit


@numba.njit(**SHADING_INLINE)
def ground_height(world: World, x, y):
    """Height of the ground in cell units at column position x, y."""
    i, j = min(max(int(x), 0), world.nx - 1), min(max(int(y), 0), world.ny - 1)
    at = i * (world.ny + 1) + j
    u, v = x - i, y - j
    low = world.base[at] * (1.0 - u) + world.base[at + world.ny + 1] * u
    high = world.base[at + 1] * (1.0 - u) + world.base[at + world.ny + 2] * u
    return low * (1.0 - v) + high * v + world.step[i * world.ny + j]


@numba.njit(**SHADING_INLINE)
def _leaf_normal(world: World, x, y, z, nx, ny, nz):
    """Outward normal of a crown at cell x, y, z from its neighbours two cells off, roughened; (nx, ny, nz) is the face."""
    sx, sy, sz = world.bx << 3, world.by << 3, world.bz << 3
    gx, gy, gz = 1.2 * nx, 1.2 * ny, 1.2 * nz + 0.3
    for s in range(-2, 3, 4):
        if 0 <= x + s < sx and cell_at(world, x + s, y, z) == 0:
            gx += 0.5 * s
        if 0 <= y + s < sy and cell_at(world, x, y + s, z) == 0:
            gy += 0.5 * s
        if 0 <= z + s < sz and cell_at(world, x, y, z + s) == 0:
            gz += 0.5 * s
    h = hash3(x, y, z)
    gx += 1.6 * (h - 0.5)
    gy += 1.6 * (hash3(x + 7, y, z) - 0.5)
    length = 1.0 / np.sqrt(gx * gx + gy * gy + gz * gz + 1e-9)
    return gx * length, gy * length, gz * length


@numba.njit(**SHADING_INLINE)
def ground_colour(world: World, surfaces: Surfaces, x, y, foot):
    """Linear colour of the ground at column position x, y for a pixel that covers `foot` metres."""
    m = paint_at(world, x, y)
    tone, warm = surface_tone(surfaces.texture[m], x * world.cell, y * world.cell, foot, 6)
    return (
        surfaces.colour[m, 0] * tone * (1.0 + warm),
        surfaces.colour[m, 1] * tone,
        surfaces.colour[m, 2] * tone * (1.0 - warm),
    )


@numba.njit(**SHADING)
def shade(
    world: World, models: Models, actors: Actors, surfaces: Surfaces, light: Light, pose, table, pixel, width, seed, image,
    distance, kind, face, material, actor, model_cell,
):  # fmt: skip
    """Colour all pixels of one camera.

    Args:
        pose, table: as for cast_rays; distance to model_cell: its results.
        pixel: size of a pixel at 1 m, metres.
        width: pixels per row, for the noise.
        seed: of the noise.
        image: (N, 3) uint8, result.
    """
    cell = world.cell
    sx, sy, sz = light.sun[0], light.sun[1], light.sun[2]
    ox, oy, oz = (pose[0, 3] - world.origin[0]) / cell, (pose[1, 3] - world.origin[1]) / cell, (pose[2, 3] - world.origin[2]) / cell
    for n in range(table.shape[0]):
        a, b, c = table[n, 0], table[n, 1], table[n, 2]
        ex = pose[0, 0] * a + pose[0, 1] * b + pose[0, 2] * c
        ey = pose[1, 0] * a + pose[1, 1] * b + pose[1, 2] * c
        ez = pose[2, 0] * a + pose[2, 1] * b + pose[2, 2] * c
        norm = np.sqrt(ex * ex + ey * ey + ez * ez)
        wx, wy, wz = ex / norm, ey / norm, ez / norm
        what = kind[n]
        if what in (SKY, BELOW):
            red, green, blue = look_up_sky(light.sky, wx, wy, wz)
            if what == BELOW:  # land beyond the map, fading into the horizon
                fade = min(-wz * 12.0, 1.0)
                red, green, blue = red * (1.0 - 0.45 * fade), green * (1.0 - 0.40 * fade), blue * (1.0 - 0.45 * fade)
        else:
            t = distance[n]
            reach = t * norm
            foot = t * pixel
            x, y, z = ox + ex / cell * t, oy + ey / cell * t, oz + ez / cell * t
            m = material[n]
            texture = surfaces.texture[m]
            f = face[n]
            side = 1.0 if f & 1 else -1.0
            nx, ny, nz = side if f < 2 else 0.0, side if 2 <= f < 4 else 0.0, side if 4 <= f < 6 else 0.0
            gx, gy, gz = nx, ny, nz  # shading normal
            open_sky = 1.0
            if what == GROUND:
                i, j = min(max(int(x), 0), world.nx - 1), min(max(int(y), 0), world.ny - 1)
                at = i * (world.ny + 1) + j
                gx = -0.5 * (world.base[at + world.ny + 1] - world.base[at] + world.base[at + world.ny + 2] - world.base[at + 1])
                gy = -0.5 * (world.base[at + 1] - world.base[at] + world.base[at + world.ny + 2] - world.base[at + world.ny + 1])
                gz = 1.0 / np.sqrt(1.0 + gx * gx + gy * gy)
                gx, gy = gx * gz, gy * gz
                nx, ny, nz = gx, gy, gz
                slant = max(-(wx * gx + wy * gy + wz * gz), 0.02)
                if foot > 0.015 or foot / slant > 0.06:  # average along the pixel's footprint, jittered
                    length = min(foot / slant, 30.0) / cell
                    level = 1.0 / np.sqrt(wx * wx + wy * wy + 1e-9)
                    hx, hy = wx * level, wy * level
                    red, green, blue = 0.0, 0.0, 0.0
                    # The texture's own detail has to fade with the longer side of the footprint.
                    mean_foot = np.sqrt(foot * length * cell)
                    for s in range(4):
                        along = ((s + hash3(n, s, seed)) * 0.25 - 0.5) * length
                        across = ((s & 1) - 0.5 + 0.5 * (hash3(n, s + 4, seed) - 0.5)) * 0.5 * foot / cell
                        p, q, r = ground_colour(world, surfaces, x + hx * along - hy * across, y + hy * along + hx * across, mean_foot)
                        red, green, blue = red + 0.25 * p, green + 0.25 * q, blue + 0.25 * r
                else:
                    red, green, blue = ground_colour(world, surfaces, x, y, foot)
                open_sky = 1.0 - light.contact[i, j]
            else:
                red, green, blue = surfaces.colour[m, 0], surfaces.colour[m, 1], surfaces.colour[m, 2]
                if what == ACTOR:
                    who = actor[n]
                    mod = actors.model[who]
                    q = actors.to_cells[who]
                    px, py, pz = (x * cell + world.origin[0], y * cell + world.origin[1], z * cell + world.origin[2])
                    size = models.cell[mod]
                    lx = (q[0, 0] * px + q[0, 1] * py + q[0, 2] * pz + q[0, 3]) * size
                    ly = (q[1, 0] * px + q[1, 1] * py + q[1, 2] * pz + q[1, 3]) * size
                    lz = (q[2, 0] * px + q[2, 1] * py + q[2, 2] * pz + q[2, 3]) * size
                    at = model_cell[n]
                    blend = 1.0 / 127.0
                    gx = 0.45 * nx + models.normals[at, 0] * blend
                    gy = 0.45 * ny + models.normals[at, 1] * blend
                    gz = 0.45 * nz + models.normals[at, 2] * blend
                    length = 1.0 / np.sqrt(gx * gx + gy * gy + gz * gz + 1e-9)
                    gx, gy, gz = gx * length, gy * length, gz * length
                    r = actors.rotation[who]
                    gx, gy, gz = (
                        r[0, 0] * gx + r[0, 1] * gy + r[0, 2] * gz,
                        r[1, 0] * gx + r[1, 1] * gy + r[1, 2] * gz,
                        r[2, 0] * gx + r[2, 1] * gy + r[2, 2] * gz,
                    )
                    nx, ny, nz = (
                        r[0, 0] * nx + r[0, 1] * ny + r[0, 2] * nz,
                        r[1, 0] * nx + r[1, 1] * ny + r[1, 2] * nz,
                        r[2, 0] * nx + r[2, 1] * ny + r[2, 2] * nz,
                    )
                    if surfaces.tintable[m]:
                        red, green, blue = red * actors.tint[who, 0], green * actors.tint[who, 1], blue * actors.tint[who, 2]
                else:
                    lx, ly, lz = x * cell, y * cell, z * cell
                    if texture == LEAVES:
                        gx, gy, gz = _leaf_normal(world, int(x - 0.5 * nx), int(y - 0.5 * ny), int(z - 0.5 * nz), nx, ny, nz)
                if f < 2:
                    tone, warm = surface_tone(texture, ly, lz, foot, f)
                elif f < 4:
                    tone, warm = surface_tone(texture, lx, lz, foot, f)
                else:
                    tone, warm = surface_tone(texture, lx, ly, foot, f)
                red, green, blue = red * tone * (1.0 + warm), green * tone, blue * tone * (1.0 - warm)
                above = (z - ground_height(world, x, y)) * cell
                low = min(max(above / 1.2, 0.0), 1.0)
                open_sky = 0.45 + 0.55 * low * (2.0 - low)
            # Light: sun through the shadow map, sky from above, ground bounce from below.
            cosine = gx * sx + gy * sy + gz * sz
            if nx * sx + ny * sy + nz * sz < 0.0 and what != ACTOR and texture != LEAVES:
                cosine = 0.0
            if texture == LEAVES:  # light passes through leaves
                cosine = 0.35 + 0.65 * cosine
            lit = 0.0
            if cosine > 0.0:
                bias = 0.9 if what != GROUND else 0.25
                lit = cosine * sunlit(light, x + bias * nx + 0.5 * sx, y + bias * ny + 0.5 * sy, z + bias * nz + 0.5 * sz + 0.2)
            up = (0.62 + 0.38 * gz) * open_sky
            bounce = 0.16 * (1.0 - gz) * 0.5 * sz * open_sky
            sr, sg, sb = light.sun_colour[0], light.sun_colour[1], light.sun_colour[2]
            ar, ag, ab = light.ambient[0], light.ambient[1], light.ambient[2]
            dr, dg, db = red, green, blue
            red *= sr * (lit + bounce) + ar * up
            green *= sg * (lit + bounce) + ag * up
            blue *= sb * (lit + bounce * 0.9) + ab * up
            if texture == LAMP:
                red, green, blue = red + 0.8 * dr, green + 0.8 * dg, blue + 0.8 * db
            if texture in (GLASS, METAL):
                facing = -(wx * gx + wy * gy + wz * gz)
                mx, my, mz = wx + 2.0 * facing * gx, wy + 2.0 * facing * gy, wz + 2.0 * facing * gz
                rim = 1.0 - min(max(facing, 0.0), 1.0)
                rim = rim * rim * rim
                share = 0.16 + 0.6 * rim if texture == GLASS else 0.05 + 0.35 * rim
                if mz > 0.0:
                    p, q, r = look_up_sky(light.sky, mx, my, mz)
                    p, q, r = min(p, 1.5), min(q, 1.5), min(r, 1.5)
                else:
                    p, q, r = 0.25 * ar, 0.25 * ag, 0.25 * ab
                share *= open_sky
                red, green, blue = red * (1.0 - share) + share * p, green * (1.0 - share) + share * q, blue * (1.0 - share) + share * r
                gleam = mx * sx + my * sy + mz * sz
                if gleam > 0.9 and lit > 0.0:
                    gleam = (gleam - 0.9) * 10.0
                    gleam = gleam * gleam * gleam * 0.8 * (1.0 if texture == GLASS else 0.6)
                    red, green, blue = red + gleam * sr, green + gleam * sg, blue + gleam * sb
            keep = np.exp(-light.haze * reach)
            p, q, r = look_up_sky(light.sky, wx, wy, 0.02)
            red, green, blue = red * keep + p * (1.0 - keep), green * keep + q * (1.0 - keep), blue * keep + r * (1.0 - keep)
        # Tone curve and noise: shot noise grows with the root of the signal; one hash gives three channels.
        grain = light.noise * 255.0
        v, u = n // width, n % width
        shared = hash2(u + seed * 7, v) + hash2(u + 5197, v + seed * 3) - 1.0
        for k in range(3):
            value = np.sqrt(max(red if k == 0 else (green if k == 1 else blue), 0.0) * light.exposure)
            shown = light.tone[min(int(value * TONE_SCALE), TONE_SIZE - 1)]
            own = hash3(u, v + k * 1031, seed) - 0.5
            shown += grain * (1.5 * shared + 1.6 * own) * (0.35 + 0.65 * shown / 128.0 if shown < 128.0 else 1.0)
            image[n, k] = np.uint8(min(max(shown + 0.5, 0.0), 255.0))
