"""What things are made of: the class and the colours of each material."""

from dataclasses import dataclass

import numpy as np

CLASSES: dict[str, int] = {
    "road": 0,
    "sidewalk": 1,
    "building": 2,
    "fence": 4,
    "pole": 5,
    "traffic sign": 7,
    "vegetation": 8,
    "sky": 10,
    "person": 11,
    "car": 13,
    "bicycle": 18,
}


@dataclass(frozen=True)
class Material:
    """What a face is made of.

    `game` and `photo` list the sRGB colours that things pick from in the synthetic and in the real
    appearance. The rest are contrasts of the real texture: its fine `grain`, its large `mottle`,
    and its `slabs` of the given width and height in metres.
    """

    label: str
    game: str
    photo: str
    grain: float = 0.1
    mottle: float = 0.1
    slabs: float = 0.0
    slab_size: tuple[float, float] = (1.0, 1.0)


# Colours of different classes overlap in the real appearance: walls, paint and clothes above all.
_GAME_WALLS = "e8664a f0b440 4a9ae0 e88ab0 e8e0c8 8ad0c0 b0b0b8 c89878"
_WALLS = "8d8880 a39b8c 7a6253 9a9a98 c4bdb0 6d6a68 8b5f4e b3a58c 575656 a8926c"
_GAME_PAINT = "e01820 1850e8 f8f8f8 ffc800 18b048 20202c b8c0c8 e87820"
_PAINT = "15171a 2b2e33 8f9294 b9bbbb 5c6064 233a6a 7a1f1f 3d4a44 77705f d8d8d4"
_GAME_CLOTHES = "ff4040 ffd820 40e0d0 ff70ff f8f8f8 2838c8 303040 8a4ad0"
_CLOTHES = "1c1d22 2b3858 55565a 6b5a48 40302c 7d7f80 9e8672 34503a 7c2a2a b9b9b6"
MATERIALS: dict[str, Material] = {
    "sky": Material("sky", "5fb2ff", "b9c0c2"),
    "asphalt": Material("road", "50505c 5c5a60 484a52", "464645 565452 62605b 706e68", 0.16, 0.16),
    "marking": Material("road", "f4f4f4", "b8b6ae c8c5ba a8a59c", 0.2, 0.2),
    "pavement": Material(
        "sidewalk",
        "e8c8a0 d8b0b0 c8c0b0",
        "6d6b67 837e76 908878 605d5b",
        0.12,
        0.14,
        0.1,
        (0.9, 0.9),
    ),
    "kerb": Material("sidewalk", "f4e8d8", "7b7974 908c84 656360", 0.12, 0.1, 0.12, (0.2, 1.2)),
    "grass": Material("vegetation", "5fd04a 8ad850", "566038 66703f 4c5236 7a7250", 0.35, 0.25),
    "hedge": Material("vegetation", "2f9e38 3cae3a", "36452a 4b5230 2f3828 5d5a3c", 0.6, 0.25),
    "crown": Material(
        "vegetation", "36b83c 58c832 2f9e50 80c040", "3f5229 566034 34442a 6f6a38 7f6036", 0.65, 0.3
    ),
    "trunk": Material("vegetation", "8a5a2c 6a4828", "4a4238 5a5248 38332d", 0.4, 0.2),
    "facade": Material("building", _GAME_WALLS, _WALLS, 0.1, 0.16, 0.08, (0.5, 0.2)),
    "roof": Material("building", "b03a2a 7a4030 606878", "5a4a44 7a5048 4c4c4e", 0.15, 0.1, 0.2),
    "door": Material("building", "7a3ac0 2a5ac0 3a2a20", "3a322c 4c5048 5a4636 26282c"),
    "shop window": Material("building", "a8e8ff 78a8c8", "2a2d30 3c4042 5a5c5a", 0.05, 0.6),
    "fence": Material("fence", "c8842c f0e0b0 a86420 70757c", "5d5850 6e5c46 474c48 7d776c", 0.15),
    "pole": Material("pole", "9aa0b8 b0b0c0 707888", "6a6c6c 545858 7e7f7c 3d443f"),
    "lamp": Material("pole", "fff0a0", "9a9a92 b0afa6"),
    "sign rim": Material("traffic sign", "ff1818 e8e8f0", "9a3028 a83c34 84302a b0aea8"),
    "sign face": Material("traffic sign", "ffffff ffe000 1848ff", "b8b6ae b8a040 2c4c84 9c9a92"),
    "skin": Material("person", "ffc898 c88a58", "b08870 8a6450 c09880 583c2e"),
    "hair": Material("person", "6a3a14 201810 e8c060", "2c2622 4a3c30 1a1818 77716a"),
    "top": Material("person", _GAME_CLOTHES, _CLOTHES, 0.12, 0.15),
    "trousers": Material("person", "2838c8 303040 8a4ad0 706858", _CLOTHES, 0.12, 0.15),
    "paint": Material("car", _GAME_PAINT, _PAINT, 0.04, 0.12),
    "car glass": Material("car", "8ad8f8 506878", "1c2024 2c3034 3c4244", 0.04, 0.5),
    "tyre": Material("car", "181818", "1c1c1c 262524"),
    "hub": Material("car", "c8c8d0", "8c8d8c 5a5b5c"),
    "rear light": Material("car", "ff0000", "7c1c1a 922420"),
    "headlight": Material("car", "ffffc0", "b8b8b0 9c9e9c"),
    "bike tyre": Material("bicycle", "101018", "1c1c1c 2a2826"),
    "spokes": Material("bicycle", "b8b8d8 8888a0", "6a6a68 5a5856 7c7a76", 0.35, 0.2),
    "bike frame": Material("bicycle", "ff6a00 00c8ff d000d0 303038", "26282a 5a2a28 2c3a54 7a7c7c"),
}
# By the number of a material: its name's place above, and its class.
NUMBER = {name: number for number, name in enumerate(MATERIALS)}
LABELS = np.array([CLASSES[material.label] for material in MATERIALS.values()], np.uint8)
