"""The 2-D heat equation on the unit square, as one function to sweep over.

    u_t = D (u_xx + u_yy) + power * s(x, y),   u = 0 on the boundary,   u = s at the start

solved with the alternating-direction implicit scheme of Peaceman and Rachford (J. SIAM 3, 1955),
second order in space and time and stable for any step. The whole module travels with the function,
so everything it needs is imported here.
"""

import math
import platform
import time

import numpy as np

WIDTH = 0.08  # of the Gaussian source, in sides of the plate
FIELD = 32  # points per side of the coarse field in the result


class _Implicit:
    """Solves (1 - r d_xx) v = right along the first axis, v = 0 outside; factorised once."""

    def __init__(self, n, r):
        self.r = r
        self.pivot = np.empty(n)
        self.pivot[0] = 1 + 2 * r
        for i in range(1, n):
            self.pivot[i] = 1 + 2 * r - r * r / self.pivot[i - 1]

    def __call__(self, right):
        value = np.empty_like(right)
        value[0] = right[0] / self.pivot[0]
        for i in range(1, len(value)):
            value[i] = (right[i] + self.r * value[i - 1]) / self.pivot[i]
        for i in range(len(value) - 2, -1, -1):
            value[i] += self.r / self.pivot[i] * value[i + 1]
        return value


def _explicit(u, r):
    """(1 + r d_xx) u along the first axis, u = 0 outside."""
    out = (1 - 2 * r) * u
    out[1:] += r * u[:-1]
    out[:-1] += r * u[1:]
    return out


def _coarse(u, cells):
    """The field at the centres of FIELD x FIELD squares, linear between grid points; row = y."""
    weights = np.zeros((FIELD, cells + 1))
    at = (np.arange(FIELD) + 0.5) / FIELD * cells
    left = at.astype(int)
    weights[np.arange(FIELD), left] = 1 - (at - left)
    weights[np.arange(FIELD), left + 1] = at - left
    return (weights @ np.pad(u, 1) @ weights.T).T.round(6).tolist()


def _require(diffusivity, source_x, source_y, kind, power, cells, steps, end):
    if kind not in ("gaussian", "eigenmode"):
        raise ValueError(f"kind is {kind!r}, expected 'gaussian' or 'eigenmode'")
    for name, value in (("diffusivity", diffusivity), ("end", end)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}, expected a positive number")
    for name, value in (("source_x", source_x), ("source_y", source_y)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected a place on the plate, 0 to 1")
    if not 0 <= power < math.inf:
        raise ValueError(f"power is {power}, expected 0 or more")
    for name, value, least, most in (("cells", cells, 4, 4096), ("steps", steps, 1, 1000000)):
        if value != int(value) or not least <= value <= most:
            raise ValueError(f"{name} is {value}, expected a whole number from {least} to {most}")


def solve(diffusivity, source_x=0.5, source_y=0.5, kind="gaussian", power=0.0, cells=96, steps=64, end=0.1):
    """One case: diffusivity D, a Gaussian s at (source_x, source_y), until time `end`.

    kind="eigenmode" has s = sin(pi x) sin(pi y) instead, for which the solution is known.
    Returns plain numbers and a coarse field (FIELD x FIELD, row = y) for the picture.
    """
    started = time.perf_counter()
    _require(diffusivity, source_x, source_y, kind, power, cells, steps, end)
    cells, steps = int(cells), int(steps)
    h, dt = 1.0 / cells, end / steps
    x = np.arange(1, cells) * h
    if kind == "eigenmode":
        source = np.outer(np.sin(math.pi * x), np.sin(math.pi * x))
    else:
        source = np.outer(*(np.exp(-((x - at) ** 2) / (2 * WIDTH**2)) for at in (source_x, source_y)))
    r = diffusivity * dt / (2 * h * h)
    implicit = _Implicit(cells - 1, r)
    gain = 0.5 * dt * power * source
    u = source
    lost = 0.0
    for _ in range(steps):
        # Half a step implicit in x, half a step implicit in y.
        half = implicit(_explicit(u.T, r).T + gain)
        new = implicit((_explicit(half, r) + gain).T).T
        # The scheme's own flow: x with the half step, y with the mean of both ends.
        flow_x = half[0].sum() + half[-1].sum()
        flow_y = 0.5 * (u[:, 0].sum() + u[:, -1].sum() + new[:, 0].sum() + new[:, -1].sum())
        lost += diffusivity * dt * float(flow_x + flow_y)
        u = new
    initial, final = float(source.sum() * h * h), float(u.sum() * h * h)
    injected = power * end * initial
    result = {
        "diffusivity": diffusivity,
        "source_x": source_x,
        "source_y": source_y,
        "kind": kind,
        "power": power,
        "end": end,
        "peak": float(u.max()),
        "centre_x": float(x @ u.sum(axis=1)) * h * h / final,
        "centre_y": float(x @ u.sum(axis=0)) * h * h / final,
        "heat_initial": initial,
        "heat_injected": injected,
        "heat_lost": lost,
        "heat_final": final,
        "budget_residual": abs(initial + injected - lost - final) / (initial + injected),
    }
    if kind == "eigenmode":
        rate = 2 * math.pi**2 * diffusivity
        amplitude = math.exp(-rate * end) - power * math.expm1(-rate * end) / rate
        result["error_max"] = float(np.abs(u - amplitude * source).max())
    result["field"] = _coarse(u, cells)
    result["host"] = platform.node()
    result["seconds"] = time.perf_counter() - started
    return result
