"""The guide's colours. Redness is the mouth's alone, so that it can be found again in the finished picture."""

from samples.kiosk.data.pictures.canvas import Colour

SKIN: Colour = (238, 196, 160)
SKIN_LIGHT: Colour = (248, 214, 182)
SKIN_SHADE: Colour = (216, 166, 130)
SKIN_DEEP: Colour = (180, 128, 98)
BLUSH: Colour = (236, 164, 138)
HAIR: Colour = (66, 48, 44)
HAIR_LIGHT: Colour = (112, 84, 70)
HAIR_DARK: Colour = (44, 33, 33)
EYE_WHITE: Colour = (250, 248, 244)
IRIS: Colour = (72, 122, 128)
IRIS_DARK: Colour = (38, 70, 80)
PUPIL: Colour = (22, 22, 28)
LASH: Colour = (54, 38, 38)

LIP: Colour = (206, 124, 112)
MOUTH: Colour = (96, 20, 32)
TONGUE: Colour = (178, 62, 70)
TEETH: Colour = (250, 246, 240)

JACKET: Colour = (44, 74, 104)
JACKET_DARK: Colour = (28, 50, 76)
JACKET_LIGHT: Colour = (62, 98, 130)
SHIRT: Colour = (244, 246, 248)
SHIRT_SHADE: Colour = (198, 208, 216)
TIE: Colour = (232, 178, 72)
TIE_DARK: Colour = (196, 140, 48)
BADGE: Colour = (246, 232, 190)
