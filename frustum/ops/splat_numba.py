"""Numba kernels of `ops.splat` for the CPU, compiled on first use and cached on disk.

G Gaussians, K some of them, M those that a camera sees at a position, nearest first; P positions sorted by tile, T tiles, I pairs of a
tile and a Gaussian that touches it; C channels with depth as the last, L limits of a position. A Gaussian's `shape` is what its alpha
takes: centre (x, y), three factors (p, q, r) with which half its squared distance is (p dx + q dy)^2 + (r dy)^2, its opacity, and the
distance where alpha ends.
A projection is computed in float64: it is a small part of the time, and long thin Gaussians lose digits in float32.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.splat_torch import BLUR, MARGIN, MAX_ALPHA, MIN_ALPHA, MIN_LEFT
from frustum.ops.threads import on_torch_threads

# Re-association lets the compiler vectorise the sums over channels; the order stays fixed at compile time, so results are deterministic.
_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True, error_model="numpy")
def _spread(spreads, g):  # pragma: no cover (compiled)
    """The six numbers of a covariance: xx, xy, xz, yy, yz, zz; spreads (G, 3) holds variances along the axes, (G, 6) all of them."""
    if spreads.shape[1] == 3:
        return np.float64(spreads[g, 0]), 0.0, 0.0, np.float64(spreads[g, 1]), 0.0, np.float64(spreads[g, 2])
    s = spreads[g]
    return np.float64(s[0]), np.float64(s[1]), np.float64(s[2]), np.float64(s[3]), np.float64(s[4]), np.float64(s[5])


@njit(cache=True, error_model="numpy")
def _in_camera(means, g, view):  # pragma: no cover (compiled)
    x, y, z = np.float64(means[g, 0]), np.float64(means[g, 1]), np.float64(means[g, 2])
    return (
        view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3],
        view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3],
        view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3],
    )


@njit(cache=True, error_model="numpy")
def _clamped(slope, focal, principal, extent):  # pragma: no cover (compiled)
    """Where the projection is linearised, and whether that moves with the Gaussian."""
    beyond = MARGIN * extent / (2 * focal)
    low, high = -principal / focal - beyond, (extent - principal) / focal + beyond
    return min(max(slope, low), high), low <= slope <= high


@njit(cache=True, error_model="numpy")
def _image(s, x, y, z, view, lens, size):  # pragma: no cover (compiled)
    """Covariance xx, xy, yy in the image, and the two rows of the linear projection from the frame of the means."""
    fx, fy = lens[0, 0], lens[1, 1]
    slope_x, _ = _clamped(x / z, fx, lens[0, 2], size[1])
    slope_y, _ = _clamped(y / z, fy, lens[1, 2], size[0])
    a, b = fx / z, fy / z
    u = (a * (view[0, 0] - slope_x * view[2, 0]), a * (view[0, 1] - slope_x * view[2, 1]), a * (view[0, 2] - slope_x * view[2, 2]))
    v = (b * (view[1, 0] - slope_y * view[2, 0]), b * (view[1, 1] - slope_y * view[2, 1]), b * (view[1, 2] - slope_y * view[2, 2]))
    su, sv = _times(s, u), _times(s, v)
    xx = u[0] * su[0] + u[1] * su[1] + u[2] * su[2] + BLUR
    xy = v[0] * su[0] + v[1] * su[1] + v[2] * su[2]
    yy = v[0] * sv[0] + v[1] * sv[1] + v[2] * sv[2] + BLUR
    return xx, xy, yy, u, v


@njit(cache=True, error_model="numpy")
def _determinant(xx, xy, yy):  # pragma: no cover (compiled)
    """Of a widened covariance, not below what widening alone gives: of extreme needles no digits are left."""
    return max(xx * yy - xy * xy, BLUR * (xx + yy - BLUR))


@njit(cache=True, error_model="numpy")
def _times(s, u):  # pragma: no cover (compiled)
    """A covariance times a vector."""
    return (
        s[0] * u[0] + s[1] * u[1] + s[2] * u[2],
        s[1] * u[0] + s[3] * u[1] + s[4] * u[2],
        s[2] * u[0] + s[4] * u[1] + s[5] * u[2],
    )


@njit(cache=True, error_model="numpy")
def _sigma(shape, dx, dy):  # pragma: no cover (compiled)
    """Half the squared distance. No fast arithmetic here: all kernels must agree about where a Gaussian ends."""
    along, across = shape[2] * dx + shape[3] * dy, shape[4] * dy
    return along * along + across * across


@njit(cache=True, error_model="numpy")
def _density(shape, dx, dy):  # pragma: no cover (compiled)
    """Opacity times the Gaussian, 0 where it ends."""
    sigma = _sigma(shape, dx, dy)
    return sigma * 0 if sigma > shape[6] else shape[5] * np.exp(-sigma)


@njit(cache=True, error_model="numpy")
def _stretch(view, row, focal, principal, extent):  # pragma: no cover (compiled)
    """The largest that a row of the linear projection (`_image`) can be for a focal length and a depth of 1, squared."""
    slope = max(abs(principal), abs(extent - principal)) / focal + MARGIN * extent / (2 * focal)  # the largest of `_clamped`
    own, both, forward = 0.0, 0.0, 0.0
    for i in range(3):
        own += view[row, i] * view[row, i]
        both += view[row, i] * view[2, i]
        forward += view[2, i] * view[2, i]
    return own + 2 * slope * abs(both) + slope * slope * forward


@on_torch_threads
@njit(parallel=True, cache=True, error_model="numpy")
def find_ahead(kept, means, spreads, view, lens, near, far, size):  # pragma: no cover (compiled)
    """(K) bool: Gaussians in front of a camera, but for those that are certainly beside its image: a quick test, as most of them are."""
    found = np.zeros(len(kept), np.bool_)
    most = 2 * np.log(1 / MIN_ALPHA) * 1.01  # standard deviations, squared, that an alpha of 1/255 can be away
    height, width = size
    fx, fy, cx, cy = lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2]
    stretch_x, stretch_y = _stretch(view, 0, fx, cx, width), _stretch(view, 1, fy, cy, height)
    for k in prange(len(kept)):
        g = kept[k]
        x, y, z = _in_camera(means, g, view)
        if not (z > near and z < far):
            continue
        spread = _spread(spreads, g)
        scale_x, scale_y, trace = fx / z, fy / z, spread[0] + spread[3] + spread[5]
        u, v = scale_x * x + cx, scale_y * y + cy
        off_x, off_y = max(0.0, -u, u - width), max(0.0, -v, v - height)
        across, down = scale_x * scale_x * stretch_x * trace + BLUR, scale_y * scale_y * stretch_y * trace + BLUR
        found[k] = off_x * off_x <= most * across and off_y * off_y <= most * down
    return found


@on_torch_threads
@njit(parallel=True, cache=True, error_model="numpy")
def project(ahead, means, spreads, opacities, view, lens, size, side, places, starts):  # pragma: no cover (compiled)
    """Shapes (K, 7), depths (K) and tiles (K, 4: first and end column, first and end row) of Gaussians; no tiles for those out of sight."""
    number = means.dtype.type
    shapes, depths = np.empty((len(ahead), 7), means.dtype), np.empty(len(ahead), means.dtype)
    boxes = np.zeros((len(ahead), 4), np.int32)
    height, width = size
    columns, rows = (width + side - 1) // side, (height + side - 1) // side
    for k in prange(len(ahead)):
        g = ahead[k]
        x, y, z = _in_camera(means, g, view)
        end = max(np.log(np.float64(opacities[g]) / MIN_ALPHA), 0.0)
        xx, xy, yy, _, _ = _image(_spread(spreads, g), x, y, z, view, lens, size)
        u, v = lens[0, 0] * x / z + lens[0, 2], lens[1, 1] * y / z + lens[1, 2]
        reach = np.sqrt(2 * end) * 1.001 + 0.001  # a little more against rounding
        across, down = reach * np.sqrt(xx), reach * np.sqrt(yy)
        if not (u + across >= 0 and u - across <= width and v + down >= 0 and v - down <= height):
            continue
        det = _determinant(xx, xy, yy)
        p = np.sqrt(yy / (2 * det))
        shapes[k, 0], shapes[k, 1] = number(u), number(v)
        shapes[k, 2], shapes[k, 3], shapes[k, 4] = number(p), number(-xy / (2 * det * p)), number(np.sqrt(0.5 / yy))
        shapes[k, 5], shapes[k, 6] = opacities[g], number(end * 1.0001 + 0.0001)
        depths[k] = number(z)
        left, right = int(max(u - across, 0.0)) // side, min(int(min(u + across, width)) // side + 1, columns)
        top, bottom = int(max(v - down, 0.0)) // side, min(int(min(v + down, height)) // side + 1, rows)
        left, top = min(left, columns - 1), min(top, rows - 1)
        if _touches_any(shapes[k], left, right, top, bottom, columns, places, starts):
            boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = left, right, top, bottom
    return shapes, depths, boxes


_FEW = 8  # positions in a tile, up to which each is looked at before a Gaussian counts as touching the tile


@njit(cache=True, error_model="numpy")
def _touches(shape, t, places, starts):  # pragma: no cover (compiled)
    """Whether a Gaussian may be seen at a position of the tile."""
    if starts[t + 1] - starts[t] > _FEW:
        return True
    for i in range(starts[t], starts[t + 1]):  # noqa: SIM110 (numba has no any())
        if _sigma(shape, places[i, 0] - shape[0], places[i, 1] - shape[1]) <= shape[6]:
            return True
    return False


@njit(cache=True, error_model="numpy")
def _touches_any(shape, left, right, top, bottom, columns, places, starts):  # pragma: no cover (compiled)
    for row in range(top, bottom):
        for t in range(row * columns + left, row * columns + right):
            if _touches(shape, t, places, starts):
                return True
    return False


@njit(cache=True, error_model="numpy")
def bin_into_tiles(shapes, boxes, places, starts, columns):  # pragma: no cover (compiled)
    """Which Gaussians touch each tile that holds positions, in their order.

    Returns:
        firsts (T + 1): where the list of a tile starts; members (I): Gaussians, list after list; slots (I): where a pair stands if they
        are sorted by Gaussian; owners (M + 1): where the pairs of a Gaussian start then.
    """
    tiles = len(starts) - 1
    firsts, owners = np.zeros(tiles + 1, np.int64), np.zeros(len(boxes) + 1, np.int64)
    for m in range(len(boxes)):
        count = 0
        for row in range(boxes[m, 2], boxes[m, 3]):
            for t in range(row * columns + boxes[m, 0], row * columns + boxes[m, 1]):
                if _touches(shapes[m], t, places, starts):
                    firsts[t + 1] += 1
                    count += 1
        owners[m + 1] = owners[m] + count
    for t in range(tiles):
        firsts[t + 1] += firsts[t]
    members, slots = np.empty(owners[-1], np.int32), np.empty(owners[-1], np.int32)
    following = firsts[:-1].copy()
    for m in range(len(boxes)):
        slot = owners[m]
        for row in range(boxes[m, 2], boxes[m, 3]):
            for t in range(row * columns + boxes[m, 0], row * columns + boxes[m, 1]):
                if _touches(shapes[m], t, places, starts):
                    members[following[t]], slots[following[t]] = m, slot
                    following[t] += 1
                    slot += 1
    return firsts, members, slots, owners


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def composite(shapes, colours, places, limits, starts, firsts, members, seen, left, last):  # pragma: no cover (compiled)
    """Fill seen (P, C + L), what is left of the light (P), and where the list of the position's tile was left (P)."""
    number = shapes.dtype.type
    most, least, end = number(MAX_ALPHA), number(MIN_ALPHA), number(MIN_LEFT)
    tiles, channels = len(starts) - 1, colours.shape[1]
    stride = _stride(tiles)
    for job in prange(tiles):
        t = job * stride % tiles
        for i in range(starts[t], starts[t + 1]):
            x, y, light = places[i, 0], places[i, 1], number(1)
            stop = firsts[t]
            for k in range(firsts[t], firsts[t + 1]):
                m = members[k]
                alpha = min(_density(shapes[m], x - shapes[m, 0], y - shapes[m, 1]), most)
                if alpha < least:
                    continue
                remains = light * (number(1) - alpha)
                if remains <= end:
                    break
                weight, light, stop = light * alpha, remains, k + 1
                for c in range(channels):
                    seen[i, c] += weight * colours[m, c]
                for c in range(limits.shape[1]):
                    if colours[m, channels - 1] < limits[i, c]:
                        seen[i, channels + c] += weight
            left[i], last[i] = light, stop


@njit(cache=True, error_model="numpy")
def _stride(tiles):  # pragma: no cover (compiled)
    """A step through all tiles that mixes busy and empty ones, which lie together, among the threads."""
    stride = tiles * 5 // 8 + 1
    while tiles > 1:
        a, b = tiles, stride
        while b:
            a, b = b, a % b
        if a == 1:
            break
        stride += 1
    return stride


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def composite_backward(
    shapes, colours, places, limits, starts, firsts, members, slots, seen, left, last, above, above_alpha, sums
):  # pragma: no cover (compiled)
    """Add up, for each pair of tile and Gaussian, over the tile's positions, into sums (I, 6 + C).

    With v = alpha * dL/dalpha and d = position - centre: v, v dx, v dy, v dx^2, v dx dy, v dy^2; then the gradient of the colours.
    """
    number = shapes.dtype.type
    most, least = number(MAX_ALPHA), number(MIN_ALPHA)
    tiles, channels = len(starts) - 1, colours.shape[1]
    stride = _stride(tiles)
    for job in prange(tiles):
        t = job * stride % tiles
        for i in range(starts[t], starts[t + 1]):
            x, y, light = places[i, 0], places[i, 1], number(1)
            rest = number(0)  # what the Gaussians from here on add to the loss
            for c in range(seen.shape[1]):
                rest += seen[i, c] * above[i, c]
            at_end = above_alpha[i] * left[i]
            for k in range(firsts[t], last[i]):
                m = members[k]
                dx, dy = x - shapes[m, 0], y - shapes[m, 1]
                density = _density(shapes[m], dx, dy)
                alpha = min(density, most)
                if alpha < least:
                    continue
                row, weight, worth = sums[slots[k]], light * alpha, number(0)
                for c in range(channels):
                    worth += colours[m, c] * above[i, c]
                    row[6 + c] += weight * above[i, c]
                for c in range(limits.shape[1]):
                    if colours[m, channels - 1] < limits[i, c]:
                        worth += above[i, channels + c]
                rest -= weight * worth
                behind = (at_end - rest) / (number(1) - alpha)
                if density <= most:
                    v = alpha * (light * worth + behind)
                    row[0] += v
                    row[1] += v * dx
                    row[2] += v * dy
                    row[3] += v * dx * dx
                    row[4] += v * dx * dy
                    row[5] += v * dy * dy
                light *= number(1) - alpha


@on_torch_threads
@njit(parallel=True, cache=True, error_model="numpy")
def project_backward(
    ids, sums, owners, means, spreads, opacities, view, lens, size, grad_means, grad_spreads, grad_opacities, grad_features
):  # pragma: no cover (compiled)
    """Add what a camera's sums say to the gradients; one thread owns a Gaussian."""
    number = means.dtype.type
    channels = grad_features.shape[1]
    for m in prange(len(ids)):
        g = ids[m]
        if owners[m] == owners[m + 1]:
            continue
        total = sums[owners[m]]
        for k in range(owners[m] + 1, owners[m + 1]):
            total += sums[k]
        for c in range(channels):
            grad_features[g, c] += total[6 + c]
        grad_opacities[g] += total[0] / opacities[g]

        x, y, z = _in_camera(means, g, view)
        s = _spread(spreads, g)
        xx, xy, yy, u, v = _image(s, x, y, z, view, lens, size)
        det = _determinant(xx, xy, yy)
        a, b, c = yy / det, -xy / det, xx / det  # the inverse covariance
        vx, vy = np.float64(total[1]), np.float64(total[2])
        vxx, vxy, vyy = np.float64(total[3]), np.float64(total[4]), np.float64(total[5])
        grad_u, grad_v = a * vx + b * vy, b * vx + c * vy  # of the centre
        # of the covariance: half of inverse * [[vxx, vxy], [vxy, vyy]] * inverse
        axx, axy, ayx, ayy = a * vxx + b * vxy, a * vxy + b * vyy, b * vxx + c * vxy, b * vxy + c * vyy
        gxx, gxy, gyy = 0.5 * (axx * a + axy * b), 0.5 * (axx * b + axy * c), 0.5 * (ayx * b + ayy * c)

        for i in range(3):
            for j in range(i, 3):
                if i != j and spreads.shape[1] == 3:
                    continue
                both = gxx * u[i] * u[j] + gxy * (u[i] * v[j] + v[i] * u[j]) + gyy * v[i] * v[j]
                place = i if spreads.shape[1] == 3 else (0, 2, 3)[i] + j
                grad_spreads[g, place] += number(both if i == j else 2 * both)

        # of the rows u, v of the linear projection, and of what these are made from: the inverse depth and the slopes
        su, sv = _times(s, u), _times(s, v)
        fx, fy = lens[0, 0], lens[1, 1]
        _, moves_x = _clamped(x / z, fx, lens[0, 2], size[1])
        _, moves_y = _clamped(y / z, fy, lens[1, 2], size[0])
        grad_scale, grad_slope_x, grad_slope_y = 0.0, 0.0, 0.0
        for i in range(3):
            along, down = 2 * (gxx * su[i] + gxy * sv[i]), 2 * (gxy * su[i] + gyy * sv[i])
            grad_scale += along * u[i] + down * v[i]  # u and v are both proportional to 1 / z
            grad_slope_x -= along * fx / z * view[2, i]
            grad_slope_y -= down * fy / z * view[2, i]
        gx, gy, gz = grad_u * fx / z, grad_v * fy / z, np.float64(total[6 + channels]) - grad_scale / z
        gz -= (grad_u * fx * x + grad_v * fy * y) / (z * z)
        if moves_x:
            gx += grad_slope_x / z
            gz -= grad_slope_x * x / (z * z)
        if moves_y:
            gy += grad_slope_y / z
            gz -= grad_slope_y * y / (z * z)
        for i in range(3):
            grad_means[g, i] += number(view[0, i] * gx + view[1, i] * gy + view[2, i] * gz)
