"""The 2-D heat equation on the unit square, as one function to sweep over.

    u_t = D (u_xx + u_yy),   u = 0 on the boundary

solved with the alternating-direction implicit scheme of Peaceman and Rachford (J. SIAM 3, 1955),
second order in space and time and stable for any step. The whole module travels with the function,
so everything it needs is imported here.
"""

import math
import platform
import time

import numpy as np


def _thomas(lower, diagonal, upper, right):
    """Solves one tridiagonal system with constant coefficients for all columns of `right` at once."""
    n = right.shape[0]
    ratio = np.empty(n)
    value = np.empty_like(right)
    ratio[0] = upper / diagonal
    value[0] = right[0] / diagonal
    for i in range(1, n):
        pivot = diagonal - lower * ratio[i - 1]
        ratio[i] = upper / pivot
        value[i] = (right[i] - lower * value[i - 1]) / pivot
    for i in range(n - 2, -1, -1):
        value[i] -= ratio[i] * value[i + 1]
    return value


def _explicit(u, r):
    """(1 + r d_xx) u along the first axis, u = 0 outside."""
    out = (1 - 2 * r) * u
    out[1:] += r * u[:-1]
    out[:-1] += r * u[1:]
    return out


def _boundary_flow(u, h):
    """Heat that leaves through the four sides per unit of time and of diffusivity."""
    return (u[0].sum() + u[-1].sum() + u[:, 0].sum() + u[:, -1].sum())


def solve(diffusivity, source_x=0.5, source_y=0.5, kind="gaussian", cells=96, steps=64, end=0.1):
    """One case: diffusivity D, a Gaussian of width 0.08 at (source_x, source_y), until time `end`.

    kind="eigenmode" starts from sin(pi x) sin(pi y) instead, for which the solution is known.
    Returns plain numbers and a coarse field (32 x 32, row = y) for the picture.
    """
    started = time.perf_counter()
    h = 1.0 / cells
    x = np.arange(1, cells) * h
    grid_x, grid_y = np.meshgrid(x, x, indexing="ij")
    if kind == "eigenmode":
        u = np.sin(math.pi * grid_x) * np.sin(math.pi * grid_y)
    else:
        u = np.exp(-((grid_x - source_x) ** 2 + (grid_y - source_y) ** 2) / (2 * 0.08**2))
    dt = end / steps
    r = diffusivity * dt / (2 * h * h)
    initial = float(u.sum() * h * h)
    lost = 0.0
    for _ in range(steps):
        # Half a step implicit in x, half a step implicit in y.
        half = _thomas(-r, 1 + 2 * r, -r, _explicit(u.T, r).T)
        new = _thomas(-r, 1 + 2 * r, -r, _explicit(half, r).T).T
        # The scheme's own flow: x with the half step, y with the mean of both ends.
        flow_x = half[0].sum() + half[-1].sum()
        flow_y = 0.5 * (u[:, 0].sum() + u[:, -1].sum() + new[:, 0].sum() + new[:, -1].sum())
        lost += diffusivity * dt * float(flow_x + flow_y)
        u = new
    final = float(u.sum() * h * h)
    result = {
        "diffusivity": diffusivity,
        "source_x": source_x,
        "source_y": source_y,
        "kind": kind,
        "peak": float(u.max()),
        "heat_initial": initial,
        "heat_final": final,
        "heat_lost": lost,
        "budget_residual": abs(initial - final - lost) / initial,
        "host": platform.node(),
        "seconds": time.perf_counter() - started,
    }
    if kind == "eigenmode":
        exact = math.exp(-2 * math.pi**2 * diffusivity * end) * np.sin(math.pi * grid_x) * np.sin(math.pi * grid_y)
        result["error_max"] = float(np.abs(u - exact).max())
    stride = max(1, cells // 32)
    result["field"] = [[round(float(value), 6) for value in row] for row in u.T[stride // 2 :: stride, stride // 2 :: stride]]
    return result
