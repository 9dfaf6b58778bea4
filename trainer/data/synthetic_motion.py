# SPDX-License-Identifier: Apache-2.0
"""What the drawn people do: postures as continuous functions of time.

An action is drawn once per person (``Action.random``) and asked for its posture at any time, so
that a still picture is one moment of a motion and a clip is all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .synthetic_body import Limbs, Posture

Rng = np.random.Generator


@dataclass(frozen=True)
class Action:
    """A motion: ``posture(t)`` with t in seconds, and the speed at which the person moves on."""

    name: str
    posture: Callable[[float], Posture]
    speed: float = 0.0  # metres per second along the heading
    seated: bool = False  # needs something to sit on

    @classmethod
    def random(cls, rng: Rng, names: tuple[str, ...] | None = None) -> Action:
        """An action out of ``names`` (default: all, by how common they are)."""
        known = names or tuple(WEIGHTS)
        weights = np.array([WEIGHTS[name] for name in known])
        name = known[int(rng.choice(len(known), p=weights / weights.sum()))]
        return ACTIONS[name](rng)


def _sway(rng: Rng) -> Callable[[float, float], float]:
    """Small slow movements, so that nobody stands like a statue: f(t, channel) in about -1..1."""
    phase, pace = rng.uniform(0, 6.28, 8), rng.uniform(0.5, 1.3, 8)

    def f(t: float, channel: float) -> float:
        i = int(channel) % 8
        return float(np.sin(pace[i] * t + phase[i]) * 0.7 + np.sin(2.3 * pace[i] * t) * 0.3)

    return f


def _loose_arm(rng: Rng) -> Limbs:
    """An arm that hangs somehow."""
    return Limbs(
        shoulder_flex=rng.normal(0.0, 0.15),
        shoulder_abduct=abs(rng.normal(0.1, 0.09)) + 0.04,
        shoulder_twist=rng.normal(-0.2, 0.3),
        elbow=abs(rng.normal(0.25, 0.25)),
    )


def _standing(rng: Rng) -> tuple[Limbs, Limbs]:
    stance = abs(rng.normal(0.06, 0.07))
    relaxed = rng.uniform(0, 0.35)
    left = replace(_loose_arm(rng), hip_abduct=stance, hip_twist=rng.normal(0.12, 0.12))
    right = replace(
        _loose_arm(rng),
        hip_abduct=stance,
        hip_twist=rng.normal(0.12, 0.12),
        hip_flex=relaxed * 0.6,
        knee=relaxed,
        ankle=relaxed * 0.35,
    )
    return (left, right) if rng.random() < 0.5 else (right, left)


def _breathe(rng: Rng, posture: Posture) -> Callable[[float], Posture]:
    """A held posture that is alive."""
    sway = _sway(rng)
    turn, nod, tilt = rng.normal(0, 0.35), rng.normal(0.05, 0.15), rng.normal(0, 0.08)

    def at(t: float) -> Posture:
        def arm(side: Limbs, i: int) -> Limbs:
            return replace(
                side,
                shoulder_flex=side.shoulder_flex + 0.03 * sway(t, i),
                elbow=side.elbow + 0.04 * (1 + sway(t, i + 1)),
            )

        return replace(
            posture,
            left=arm(posture.left, 0),
            right=arm(posture.right, 3),
            spine_bend=posture.spine_bend + 0.015 * sway(t, 5),
            spine_side=posture.spine_side + 0.02 * sway(t, 6),
            head_turn=posture.head_turn + turn + 0.2 * sway(t * 0.6, 7),
            head_nod=posture.head_nod + nod + 0.04 * sway(t, 2),
            head_tilt=posture.head_tilt + tilt,
        )

    return at


def stand(rng: Rng) -> Action:
    left, right = _standing(rng)
    posture = Posture(left, right, spine_bend=rng.normal(0, 0.05), spine_twist=rng.normal(0, 0.12))
    return Action("stand", _breathe(rng, posture))


def _gait(
    rng: Rng, name: str, speed: float, cadence: float, swing: float, knee: float, elbow: float
) -> Action:
    """Walking and running: legs in counter-phase, arms against the legs (t = 0: a random phase)."""
    phase0 = rng.uniform(0, 2 * np.pi)
    lean = (0.04 if name == "walk" else 0.16) + rng.normal(0, 0.03)
    turn, arm_swing = rng.normal(0, 0.25), swing * rng.uniform(0.6, 1.2)
    bounce = 0.0 if name == "walk" else 0.06
    sway = _sway(rng)

    def leg(phase: float) -> tuple[float, float, float]:
        hip = swing * np.sin(phase) + 0.08
        # The knee bends most while the leg swings forwards, a little when it takes the weight.
        bend = knee * max(0.0, np.cos(phase)) ** 2 + 0.14 * max(0.0, np.sin(phase - 0.5)) + 0.04
        toes = 0.35 * max(0.0, -np.sin(phase + 0.35)) - 0.12 * max(0.0, np.sin(phase))
        return hip, bend, toes

    def at(t: float) -> Posture:
        phase = phase0 + 2 * np.pi * cadence * t
        sides = []
        for offset in (0.0, np.pi):
            hip, bend, toes = leg(phase + offset)
            back = -np.sin(phase + offset)
            sides.append(
                Limbs(
                    shoulder_flex=arm_swing * back,
                    shoulder_abduct=0.1,
                    shoulder_twist=-0.25,
                    elbow=elbow + 0.25 * max(0.0, back),
                    hip_flex=hip,
                    hip_abduct=0.01,
                    hip_twist=0.06,
                    knee=bend,
                    ankle=toes,
                )
            )
        return Posture(
            sides[0],
            sides[1],
            spine_bend=lean,
            spine_twist=-0.16 * np.sin(phase),
            head_turn=turn + 0.12 * np.sin(phase) + 0.2 * sway(t, 1),
            head_nod=-lean * 0.5,
            lift=bounce * abs(np.sin(phase)),
        )

    return Action(name, at, speed)


def walk(rng: Rng) -> Action:
    speed = rng.uniform(0.9, 1.5)
    return _gait(rng, "walk", speed, 0.68 * speed**0.5, 0.44 * speed**0.4, 0.95, 0.25)


def run(rng: Rng) -> Action:
    speed = rng.uniform(2.2, 3.8)
    return _gait(rng, "run", speed, 1.3, 0.75, 1.75, 1.45)


def sit(rng: Rng) -> Action:
    def side() -> Limbs:
        return Limbs(
            shoulder_flex=rng.uniform(0.1, 0.8),
            shoulder_abduct=rng.uniform(0.05, 0.3),
            shoulder_twist=rng.uniform(-0.6, 0.1),
            elbow=rng.uniform(0.4, 1.5),
            hip_flex=rng.uniform(1.35, 1.7),
            hip_abduct=rng.uniform(0.0, 0.3),
            hip_twist=0.1,
            knee=rng.uniform(1.2, 1.8),
            ankle=rng.uniform(-0.1, 0.15),
        )

    left, right = side(), side()
    right = replace(right, hip_flex=left.hip_flex, knee=left.knee)
    posture = Posture(left, right, spine_bend=rng.uniform(-0.05, 0.4))
    return Action("sit", _breathe(rng, posture), seated=True)


def arms_up(rng: Rng) -> Action:
    left, right = _standing(rng)
    spread = rng.uniform(2.3, 3.0)

    def raised(side: Limbs) -> Limbs:
        twist = rng.uniform(0.6, 1.5)
        elbow = abs(rng.normal(0.3, 0.3))
        return replace(side, shoulder_abduct=spread, shoulder_twist=twist, elbow=elbow)

    return Action("arms_up", _breathe(rng, Posture(raised(left), raised(right))))


def spread_arms(rng: Rng) -> Action:
    left, right = _standing(rng)
    out = rng.uniform(1.2, 1.8)

    def side(limbs: Limbs) -> Limbs:
        return replace(limbs, shoulder_abduct=out + rng.normal(0, 0.1), elbow=rng.uniform(0, 0.4))

    return Action("spread_arms", _breathe(rng, Posture(side(left), side(right))))


def wave(rng: Rng) -> Action:
    left, right = _standing(rng)
    still = _breathe(rng, Posture(left, right))
    pace, phase = rng.uniform(1.2, 2.0), rng.uniform(0, 6.28)
    which = "left" if rng.random() < 0.5 else "right"
    high = rng.uniform(1.4, 2.3)

    def at(t: float) -> Posture:
        posture = still(t)
        arm = replace(
            getattr(posture, which),
            shoulder_abduct=high + 0.08 * np.sin(pace * 2 * np.pi * t + phase),
            shoulder_flex=0.1,
            shoulder_twist=1.35,
            elbow=max(0.1, 2.9 - high) + 0.42 * np.sin(pace * 2 * np.pi * t + phase + 0.4),
        )
        return replace(posture, left=arm) if which == "left" else replace(posture, right=arm)

    return Action("wave", at)


def jumping_jack(rng: Rng) -> Action:
    pace, phase = rng.uniform(0.7, 1.1), rng.uniform(0, 6.28)

    def at(t: float) -> Posture:
        open_ = 0.5 - 0.5 * np.cos(2 * np.pi * pace * t + phase)
        side = Limbs(
            shoulder_abduct=0.12 + 2.75 * open_,
            shoulder_twist=0.9 * open_,
            elbow=0.2,
            hip_abduct=0.04 + 0.4 * open_,
            knee=0.15 * (1 - open_),
        )
        return Posture(side, side, lift=0.12 * abs(np.sin(np.pi * pace * t + phase / 2)))

    return Action("jumping_jack", at)


def hands_on_hips(rng: Rng) -> Action:
    left, right = _standing(rng)

    def side(limbs: Limbs) -> Limbs:
        return replace(
            limbs, shoulder_abduct=0.85, shoulder_flex=-0.25, shoulder_twist=-1.25, elbow=1.6
        )

    both = rng.random() < 0.6
    return Action(
        "hands_on_hips", _breathe(rng, Posture(side(left), side(right) if both else right))
    )


def phone(rng: Rng) -> Action:
    left, right = _standing(rng)
    if rng.random() < 0.5:  # at the ear
        held = replace(
            right, shoulder_flex=0.7, shoulder_abduct=0.5, shoulder_twist=-0.2, elbow=2.45
        )
        return Action("phone", _breathe(rng, Posture(left, held, head_tilt=0.1)))
    held = replace(right, shoulder_flex=0.45, shoulder_abduct=0.1, shoulder_twist=-0.45, elbow=1.75)
    other = held if rng.random() < 0.5 else left
    return Action("phone", _breathe(rng, Posture(other, held, head_nod=0.5, spine_bend=0.08)))


def point(rng: Rng) -> Action:
    left, right = _standing(rng)
    arm = replace(
        right,
        shoulder_flex=rng.uniform(0.9, 2.4),
        shoulder_abduct=rng.uniform(0.0, 0.9),
        elbow=rng.uniform(0.0, 0.4),
    )
    posture = Posture(left, arm) if rng.random() < 0.5 else Posture(arm, left)
    return Action("point", _breathe(rng, posture))


def crossed_arms(rng: Rng) -> Action:
    left, right = _standing(rng)

    def side(limbs: Limbs, flex: float) -> Limbs:
        return replace(
            limbs, shoulder_flex=flex, shoulder_abduct=0.12, shoulder_twist=-1.05, elbow=1.75
        )

    return Action("crossed_arms", _breathe(rng, Posture(side(left, 0.5), side(right, 0.38))))


def bend_over(rng: Rng) -> Action:
    left, right = _standing(rng)
    bend = rng.uniform(0.6, 1.4)

    def side(limbs: Limbs) -> Limbs:
        return replace(
            limbs,
            shoulder_flex=bend * rng.uniform(0.6, 1.1),
            elbow=rng.uniform(0.1, 0.6),
            hip_flex=bend * 0.35,
            knee=rng.uniform(0.05, 0.5),
        )

    posture = Posture(side(left), side(right), pelvis_pitch=bend * 0.35, spine_bend=bend * 0.65)
    return Action("bend_over", _breathe(rng, posture))


def squat(rng: Rng) -> Action:
    deep = rng.uniform(0.8, 2.0)

    def side() -> Limbs:
        return Limbs(
            shoulder_flex=rng.uniform(0.3, 1.5),
            shoulder_abduct=rng.uniform(0.05, 0.5),
            elbow=rng.uniform(0.1, 1.4),
            hip_flex=deep,
            hip_abduct=rng.uniform(0.1, 0.4),
            knee=deep * 1.15,
            ankle=-0.3,
        )

    return Action("squat", _breathe(rng, Posture(side(), side(), spine_bend=deep * 0.25)))


def lunge(rng: Rng) -> Action:
    deep = rng.uniform(0.5, 1.3)
    left, right = _loose_arm(rng), _loose_arm(rng)
    front = replace(left, hip_flex=deep, knee=deep, ankle=-0.05)
    back = replace(right, hip_flex=-0.45, knee=0.25 + 0.5 * rng.random(), ankle=0.5)
    raised = replace(back, shoulder_flex=rng.uniform(0.0, 2.5), elbow=rng.uniform(0.0, 1.5))
    return Action("lunge", _breathe(rng, Posture(front, raised, spine_bend=rng.normal(0.1, 0.1))))


def kick(rng: Rng) -> Action:
    high = rng.uniform(0.5, 1.7)
    leg = replace(_loose_arm(rng), hip_flex=high, knee=rng.uniform(0.0, 0.9), ankle=0.3)
    other = replace(_loose_arm(rng), hip_flex=-0.1, knee=0.2, shoulder_flex=rng.uniform(0.0, 1.2))
    posture = Posture(leg, other, spine_bend=-0.15, pelvis_pitch=-0.15)
    return Action("kick", _breathe(rng, posture))


def lie(rng: Rng) -> Action:
    def side() -> Limbs:
        return Limbs(
            shoulder_flex=rng.uniform(-0.1, 0.4),
            shoulder_abduct=rng.uniform(0.1, 2.2),
            elbow=rng.uniform(0.1, 1.2),
            hip_abduct=rng.uniform(0.0, 0.35),
            knee=rng.uniform(0.0, 0.6),
        )

    pitch = -np.pi / 2 if rng.random() < 0.6 else np.pi / 2
    return Action("lie", _breathe(rng, Posture(side(), side(), pelvis_pitch=float(pitch))))


def tumble(rng: Rng) -> Action:
    """Any angles at all: what acrobats and dancers do, and what keeps a network from assuming."""

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def side() -> Limbs:
        return Limbs(
            shoulder_flex=u(-0.5, 2.8),
            shoulder_abduct=u(0.0, 2.6),
            shoulder_twist=u(-1.0, 1.2),
            elbow=u(0.0, 2.2),
            hip_flex=u(-0.4, 1.6),
            hip_abduct=u(0.0, 0.8),
            hip_twist=u(-0.3, 0.5),
            knee=u(0.0, 1.8),
            ankle=u(-0.2, 0.6),
        )

    posture = Posture(
        side(),
        side(),
        spine_bend=u(-0.3, 0.8),
        spine_side=u(-0.4, 0.4),
        spine_twist=u(-0.5, 0.5),
        pelvis_pitch=u(-0.5, 0.9) if rng.random() < 0.8 else u(-3.1, 3.1),
        pelvis_roll=u(-0.5, 0.5),
        lift=u(0.0, 0.4),
    )
    return Action("tumble", _breathe(rng, posture))


ACTIONS: Mapping[str, Callable[[Rng], Action]] = {
    action.__name__: action
    for action in (
        stand,
        walk,
        run,
        sit,
        arms_up,
        spread_arms,
        wave,
        jumping_jack,
        hands_on_hips,
        phone,
        point,
        crossed_arms,
        bend_over,
        squat,
        lunge,
        kick,
        lie,
        tumble,
    )
}
WEIGHTS: Mapping[str, float] = {
    **dict.fromkeys(ACTIONS, 2.0),
    "stand": 10.0,
    "walk": 10.0,
    "run": 5.0,
    "sit": 6.0,
    "wave": 3.0,
    "lie": 1.0,
    "tumble": 4.0,
}
