"""People as the kiosk's camera sees them: how one looks, drawn from a seed, and the picture of one who moves.

A person's own coordinates: the ground is y = 0, up is negative, a grown-up's crown is near y = -68.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from samples.kiosk.data.pictures.canvas import Array, Box, Canvas, Colour, Field, Patch, Pose

SKINS: tuple[Colour, ...] = (
    (250, 218, 192),
    (238, 196, 160),
    (224, 176, 138),
    (198, 146, 108),
    (168, 116, 82),
    (136, 92, 66),
    (104, 70, 52),
    (80, 54, 44),
)
HAIRS: tuple[Colour, ...] = (
    (34, 28, 28),
    (58, 42, 36),
    (92, 64, 44),
    (140, 94, 54),
    (198, 156, 92),
    (150, 72, 42),
    (172, 170, 168),
)
HAIR_STYLES = ("short", "bob", "long", "bun", "curly", "bald", "cap", "headscarf")
TOPS = ("plain", "striped", "open jacket", "hooded", "shirt and tie")
DARK: Colour = (30, 26, 28)
WHITE: Colour = (246, 246, 246)
MOUTH: Colour = (92, 34, 38)


@dataclass(frozen=True)
class Look:
    """A person's looks. size: 1 is 1.7 m. build: width of the body."""

    size: float
    build: float
    skin: Colour
    hair: Colour
    hair_style: str
    beard: bool
    glasses: bool
    top: str
    top_colour: Colour
    second_colour: Colour
    trousers: Colour
    shoes: Colour
    scarf: bool
    strap: bool

    @classmethod
    def seeded(cls, rng: np.random.Generator) -> Look:
        """Anybody."""

        def cloth(brightest: float) -> Colour:
            red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.03, 0.65), rng.uniform(0.15, brightest))
            return red * 255, green * 255, blue * 255

        return cls(
            size=float(rng.uniform(0.88, 1.1)),
            build=float(rng.uniform(0.88, 1.22)),
            skin=SKINS[rng.integers(len(SKINS))],
            hair=HAIRS[rng.integers(len(HAIRS))],
            hair_style=HAIR_STYLES[rng.integers(len(HAIR_STYLES))],
            beard=bool(rng.random() < 0.2),
            glasses=bool(rng.random() < 0.3),
            top=TOPS[rng.integers(len(TOPS))],
            top_colour=cloth(0.88),
            second_colour=cloth(0.88),
            trousers=cloth(0.55),
            shoes=cloth(0.4),
            scarf=bool(rng.random() < 0.15),
            strap=bool(rng.random() < 0.3),
        )


@dataclass(frozen=True)
class Motion:
    """A person's movements; float32 [T] each. Left and right are the picture's."""

    facing: Array  # -1 to the left, 0 to the camera, 1 to the right
    stride: Array  # radians of the walk's cycle
    walking: Array  # 0 stands, 1 walks
    talk: Array  # opening of the mouth, 0 to 1
    blink: Array
    tilt: Array  # radians that the head leans
    left_hand: Array  # 0 hangs, 1 up before the chest
    right_hand: Array
    wave: Array  # 0 none, 1 the right hand is beside the head
    swing: Array  # -1 to 1, where a moving hand is


def shade(colour: Colour, by: float) -> Colour:
    """Darker (by < 1) or lighter."""
    red, green, blue = (min(255.0, channel * by) for channel in colour)
    return red, green, blue


def draw_person(canvas: Canvas, ground: Pose, look: Look, motion: Motion, face: bool = True) -> None:
    """Paint a person who stands at `ground`. face: whether features are drawn; far ones are smaller than a pixel."""
    bob = -0.7 * motion.walking * np.abs(np.sin(motion.stride))
    body = ground.at(0.0, bob)
    head = body.at(0.0, -55.5, motion.tilt).at(0.3 * motion.facing, -7.0)
    _draw_hair_behind(canvas, head, look)
    _draw_legs(canvas, ground, look, motion)
    _draw_torso(canvas, body, look)
    _draw_head(canvas, head, look, motion, face)
    _draw_arms(canvas, body, look, motion)


def _draw_legs(canvas: Canvas, ground: Pose, look: Look, motion: Motion) -> None:
    p = canvas.patch(ground, (-14, -38, 14, 2))
    for side in (-1, 1):
        step = side * np.sin(motion.stride) * motion.walking
        lift = np.maximum(0, side * np.cos(motion.stride)) * motion.walking
        foot = side * 3.2 * look.build + step * 4.5 * np.where(np.abs(motion.facing) > 0.2, 1.0, 0.15)
        hip = side * 3.0 * look.build
        knee = (foot + hip) * 0.5
        p.fill(
            p.capsule(foot - 0.6, -1.2 - lift * 2, 1.6, foot + 1.2 * motion.facing, -1.0 - lift * 2, 1.5), look.shoes
        )
        leg = np.minimum(
            p.capsule(hip, -34, 3.9, knee, -18, 2.9), p.capsule(knee, -18, 2.9, foot, -2.6 - lift * 2, 2.1)
        )
        p.fill(leg, look.trousers if side < 0 else shade(look.trousers, 0.85))


def _draw_torso(canvas: Canvas, body: Pose, look: Look) -> None:
    wide = look.build
    p = canvas.patch(body, (-13 * wide, -63, 13 * wide, -30))
    right = ((7.4 * wide, -54.5), (8.6 * wide, -46.0), (7.0 * wide, -32.0))
    trunk = p.polygon(*right, *((-x, y) for x, y in reversed(right)))
    trunk = np.minimum(trunk, p.capsule(-6.4 * wide, -52.3, 3.3, 6.4 * wide, -52.3, 3.3))
    trunk = np.minimum(trunk, p.polygon((-2.4, -57), (2.4, -57), (6.5 * wide, -54.5), (-6.5 * wide, -54.5)))
    p.fill(trunk, look.top_colour)
    if look.top == "striped":
        p.fill(np.abs(np.mod(p.v, np.float32(4)) - 2) - 1, look.second_colour, within=trunk)
    elif look.top == "open jacket":
        p.fill(p.polygon((-2.8, -57), (2.8, -57), (2.4, -30), (-2.4, -30)), look.second_colour, within=trunk)
    elif look.top == "hooded":
        p.fill(p.ellipse(0, -55.5, 5.6, 3.4), shade(look.top_colour, 0.75), within=trunk)
        p.fill(p.rectangle(0, -39, 4.5, 3, 1), shade(look.top_colour, 0.85))
    elif look.top == "shirt and tie":
        p.fill(p.polygon((-3, -57), (3, -57), (0, -45)), WHITE, within=trunk)
        p.fill(p.polygon((-0.8, -55.5), (0.8, -55.5), (1.1, -47), (0, -44), (-1.1, -47)), look.second_colour)
    p.fill(p.u + 4.5, shade(look.top_colour, 0.6), 0.4, soft=6, within=trunk)
    if look.strap:
        p.fill(p.capsule(-5.5 * wide, -56, 0.8, 6 * wide, -34, 0.8), shade(look.second_colour, 0.6), within=trunk)
    p.fill(p.capsule(0, -60, 2.2, 0, -55.8, 2.4), shade(look.skin, 0.82))
    if look.scarf:
        p.fill(np.minimum(p.ellipse(0, -55.6, 4.2, 1.9), p.rectangle(2.2, -51, 1.2, 4.5, 0.8)), look.second_colour)


def _draw_arms(canvas: Canvas, body: Pose, look: Look, motion: Motion) -> None:
    for side, gesture, wave in (
        (-1, motion.left_hand, np.zeros_like(motion.wave)),
        (1, motion.right_hand, motion.wave),
    ):
        wide = look.build
        rest = np.clip(1 - gesture - wave, 0, 1)
        swing = np.sin(motion.stride) * motion.walking * 2.2
        elbow_x = side * (9.6 * wide * rest + 10.5 * wide * gesture + 12.5 * wide * wave)
        elbow_y = -43.0 * rest - 43.5 * gesture - 46.5 * wave
        hand_x = side * (9.9 * wide * rest + 6.5 * gesture + 13.0 * wide * wave) + swing * rest * np.abs(motion.facing)
        hand_y = -32.5 * rest - 46.5 * gesture - 60.0 * wave
        hand_x = hand_x + motion.swing * (2.0 * wave + 1.6 * gesture)
        hand_y = hand_y + motion.swing * 1.6 * gesture * side
        p = canvas.patch(body, _arm_box(side, wide))
        sleeve = shade(look.top_colour, 0.9)
        # A thin dark line sets the sleeve off from a body of the same colour.
        upper = p.capsule(side * 7.4 * wide, -52.2, 2.5, elbow_x, elbow_y, 2.1)
        limb = np.minimum(upper, p.capsule(elbow_x, elbow_y, 2.1, hand_x, hand_y, 1.5))
        p.fill(limb - 0.3, shade(look.top_colour, 0.65), 0.8)
        p.fill(limb, sleeve)
        p.fill(p.ellipse(hand_x, hand_y, 1.5, 1.8), look.skin)


def _arm_box(side: int, wide: float) -> Box:
    box = (2.0, -65.0, 13 * wide + 6, -28.0)
    return box if side > 0 else (-box[2], box[1], -box[0], box[3])


def _draw_hair_behind(canvas: Canvas, head: Pose, look: Look) -> None:
    if look.hair_style == "long":
        p = canvas.patch(head, (-7, -8, 7, 14))
        p.fill(np.minimum(p.ellipse(0, -0.5, 5.4, 6.2), p.rectangle(0, 5, 5.2, 6.5, 2.5)), shade(look.hair, 0.8))
    elif look.hair_style == "bob":
        p = canvas.patch(head, (-7, -8, 7, 9))
        p.fill(np.minimum(p.ellipse(0, -0.5, 5.4, 6.2), p.rectangle(0, 2, 5.4, 4, 2)), shade(look.hair, 0.8))
    elif look.hair_style == "curly":
        p = canvas.patch(head, (-8, -10, 8, 7))
        p.fill(p.ellipse(0, -1.8, 6.6, 6.6), shade(look.hair, 0.85))
    elif look.hair_style == "bun":
        p = canvas.patch(head, (-4, -12, 4, -3))
        p.fill(p.ellipse(0, -7.2, 2.4, 2.2), look.hair)


def _draw_head(canvas: Canvas, head: Pose, look: Look, motion: Motion, face: bool) -> None:
    p = canvas.patch(head, (-8, -10, 8, 9))
    jaw = 0.9 * motion.talk
    skin = np.minimum(
        p.ellipse(0, -0.8, 4.1, 4.8), p.ellipse(0.3 * motion.facing, 1.6 + jaw * 0.6, 3.3, 3.7 + jaw * 0.5)
    )
    if look.hair_style != "headscarf":
        ears = np.minimum(*(p.ellipse(side * 4.1 - 0.4 * motion.facing, 0, 0.8, 1.2) for side in (-1, 1)))
        p.fill(ears, shade(look.skin, 0.85))
    p.fill(skin, look.skin)
    p.fill(p.u + 1.2, shade(look.skin, 0.72), 0.45, soft=4, within=skin)
    if face:
        _draw_features(p, look, motion, skin)
    _draw_hair(p, look, motion, skin)


def _draw_features(p: Patch, look: Look, motion: Motion, skin: Field) -> None:
    middle = 1.7 * motion.facing
    if look.beard:
        p.fill(-p.ellipse(middle * 0.6, -1.2, 3.9, 4.9), look.hair, 0.85, soft=0.6, within=skin)
        p.fill(p.arc(middle, 2.2, 1.9, -0.4, 0.9), look.hair, 0.85)
    for side in (-1, 1):
        x = middle + side * 1.65 * (1 - 0.25 * np.abs(motion.facing))
        eye = p.lens(x, -0.5, 0.9, -0.62 * (1 - motion.blink) + 0.2 * motion.blink, np.float32(0.5))
        p.fill(eye, WHITE)
        p.fill(p.ellipse(x + 0.25 * motion.facing, -0.5, 0.5, 0.55), DARK, within=eye)
        p.fill(p.arc(x, -0.5, 0.95, -0.62 * (1 - motion.blink) + 0.35 * motion.blink, 0.3), DARK, 0.8)
        p.fill(p.arc(x, -1.7, 1.15, -0.35, 0.5), shade(look.hair, 0.8), 0.9)
        if look.glasses:
            ring = np.abs(p.ellipse(x, -0.4, 1.35, 1.2)) - 0.14
            p.fill(ring, DARK, 0.85)
    if look.glasses:
        p.fill(p.capsule(middle - 0.4, -0.6, 0.12, middle + 0.4, -0.6, 0.12), DARK, 0.85)
    p.fill(p.arc(middle * 1.15, 1.1, 0.7, 0.35, 0.4), shade(look.skin, 0.65))
    p.fill(p.lens(middle, 2.5, 1.6, 0.0, 0.75 + 1.5 * motion.talk), shade(look.skin, 0.7), 0.9)
    p.fill(p.lens(middle, 2.5, 1.45, 0.3, 0.5 + 1.4 * motion.talk), MOUTH)


def _draw_hair(p: Patch, look: Look, motion: Motion, skin: Field) -> None:
    turn = 0.8 * motion.facing
    crown = p.ellipse(-0.3 * motion.facing, -1.2, 4.6, 5.2)
    match look.hair_style:
        case "bald":
            p.fill(p.ellipse(1.4, -4.2, 1.6, 0.9), shade(look.skin, 1.12), 0.7, soft=1, within=skin)
        case "cap":
            p.fill(np.maximum(crown, p.v + 2.2), look.second_colour)
            p.fill(p.ellipse(turn * 1.6, -2.3, 3.9, 0.8), shade(look.second_colour, 0.7))
        case "headscarf":
            hole = p.ellipse(turn, 0.3, 3.3, 4.3)
            wrap = np.minimum(p.ellipse(0, -0.4, 5.1, 6.0), p.rectangle(0, 5.4, 4.6, 3.2, 2.4))
            p.fill(np.maximum(wrap, -hole), look.second_colour)
        case "curly":
            p.fill(
                np.maximum(np.minimum(crown, p.ellipse(0, -4, 5.6, 3.6)), -p.ellipse(turn, 1.4, 3.9, 4.4)), look.hair
            )
        case _:
            depth = 2.4 if look.hair_style in ("long", "bob") else -0.6
            p.fill(np.maximum(np.maximum(crown, -p.ellipse(turn + 0.5, 1.6, 3.8, 4.6)), p.v - depth), look.hair)
