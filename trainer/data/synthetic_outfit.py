# SPDX-License-Identifier: Apache-2.0
"""What the drawn people wear and look like."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]

_SKIN = np.array(
    (
        (255, 219, 190),
        (241, 194, 155),
        (224, 172, 125),
        (198, 134, 90),
        (141, 85, 50),
        (88, 52, 34),
    ),
    np.float64,
)
_HAIR = np.array(
    ((28, 22, 20), (56, 38, 26), (96, 62, 34), (150, 108, 58), (206, 170, 104), (150, 146, 142)),
    np.float64,
)
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "blocks", "print")


@dataclass(frozen=True)
class Cloth:
    """A coloured, patterned stuff. ``scale`` is the pattern's length in metres."""

    colour: Colour
    second: Colour
    pattern: str
    scale: float
    seed: int

    def at(self, along: Colour, angle: Colour) -> Colour:
        """Colours [R, n, 3] or [1, 1, 3] at ``along`` [R, 1] metres, ``angle`` [1, n] radians."""
        if self.pattern == "plain":
            return np.asarray(self.colour)[None, None]
        if self.pattern == "stripes":
            second = np.asarray((along / self.scale) % 1.0 < 0.45)
        elif self.pattern == "pinstripes":
            second = (angle * 2.6 / np.pi * 2) % 1.0 < 0.35
        elif self.pattern == "checks":
            second = ((along / self.scale) % 1.0 < 0.5) ^ ((angle * 4 / np.pi) % 1.0 < 0.5)
        elif self.pattern == "blocks":
            second = along > 0.27
        else:
            noise = np.sin(along * 57 + self.seed) * np.sin(angle * 5 + along * 31 + self.seed * 2)
            second = noise > 0.35
        return np.where(second[..., None], self.second, self.colour)


def random_colour(rng: np.random.Generator) -> Colour:
    """Clothes' colours: many dark, white and denim, some bright."""
    kind = rng.random()
    if kind < 0.22:
        value, tint = rng.uniform(18, 70), rng.normal(0, 6, 3)
        return np.clip(value + tint, 5, 255)
    if kind < 0.36:
        return np.clip(rng.uniform(195, 250) + rng.normal(0, 5, 3), 0, 255)
    if kind < 0.5:
        return np.clip(
            np.array((56, 76, 112)) * rng.uniform(0.5, 1.5) + rng.normal(0, 5, 3), 0, 255
        )
    hue, saturation, value = rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.3, 0.95)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255


def random_cloth(rng: np.random.Generator, plain: float) -> Cloth:
    """A cloth that is plain with the given probability."""
    pattern = "plain" if rng.random() < plain else PATTERNS[1 + int(rng.integers(5))]
    return Cloth(
        random_colour(rng),
        random_colour(rng),
        pattern,
        float(rng.uniform(0.05, 0.16)),
        int(rng.integers(1000)),
    )


@dataclass(frozen=True)
class Outfit:
    """Clothes, skin and hair. Sleeve and leg lengths count 0..1 over the upper and 1..2 over the
    lower bone."""

    top: Cloth
    sleeve: float
    hem: float  # where the top ends, as a fraction of the torso over the hips
    bottom: Cloth
    leg: float
    skirt: float  # length in metres, 0 for none
    shoe: Colour
    sole: Colour
    sock: Colour
    skin: Colour
    hair: Colour
    hair_style: str  # bald, short, medium, long, bun, cap
    cap: Colour
    beard: float
    loose: float  # metres of air between body and cloth
    folds: float
    seed: int

    @classmethod
    def random(cls, rng: np.random.Generator) -> Outfit:
        tone = rng.uniform(0, len(_SKIN) - 1.001)
        low = int(tone)
        skin = _SKIN[low] + (_SKIN[low + 1] - _SKIN[low]) * (tone - low) + rng.normal(0, 4, 3)
        hair = _HAIR[int(rng.choice(6, p=(0.32, 0.26, 0.17, 0.1, 0.08, 0.07)))]
        style = str(
            rng.choice(
                ("bald", "short", "medium", "long", "bun", "cap"),
                p=(0.06, 0.42, 0.14, 0.2, 0.06, 0.12),
            )
        )
        top = random_cloth(rng, 0.6)
        skirt = float(rng.uniform(0.3, 0.75)) if rng.random() < 0.1 else 0.0
        dress = skirt > 0 and rng.random() < 0.5
        masculine = style in ("bald", "short", "cap") and skirt == 0
        return cls(
            top=top,
            sleeve=float(rng.choice((0.12, 0.5, 0.62, 1.4, 1.95), p=(0.1, 0.25, 0.2, 0.1, 0.35))),
            hem=float(rng.uniform(-0.08, 0.1)),
            bottom=top if dress else random_cloth(rng, 0.93),
            leg=float(rng.choice((0.45, 0.85, 1.45, 1.93), p=(0.1, 0.14, 0.06, 0.7)))
            if skirt == 0
            else float(rng.choice((0.1, 1.97), p=(0.8, 0.2))),
            skirt=skirt,
            shoe=random_colour(rng),
            sole=np.full(3, rng.uniform(190, 245) if rng.random() < 0.6 else 35.0),
            sock=random_colour(rng),
            skin=np.clip(skin, 20, 255),
            hair=np.clip(hair * rng.uniform(0.8, 1.2) + rng.normal(0, 4, 3), 5, 255),
            hair_style=style,
            cap=random_colour(rng),
            beard=float(rng.uniform(0.3, 0.9)) if masculine and rng.random() < 0.3 else 0.0,
            loose=float(rng.uniform(0.003, 0.022)),
            folds=float(rng.uniform(0.02, 0.09)),
            seed=int(rng.integers(1 << 30)),
        )
