"""The label spaces that come with the project, against the data sets' own definitions; own ones."""

import numpy as np
import pytest

from bdl.domains.label_space import is_by_color, load_label_space
from bdl.runtime.errors import UserError

# Label id, colour as Cityscapes and the benchmark's tools have them, in the order of train ids.
CITYSCAPES = {
    "road": (7, "804080"),
    "sidewalk": (8, "f423e8"),
    "building": (11, "464646"),
    "wall": (12, "66669c"),
    "fence": (13, "be9999"),
    "pole": (17, "999999"),
    "traffic light": (19, "faaa1e"),
    "traffic sign": (20, "dcdc00"),
    "vegetation": (21, "6b8e23"),
    "terrain": (22, "98fb98"),
    "sky": (23, "4682b4"),
    "person": (24, "dc143c"),
    "rider": (25, "ff0000"),
    "car": (26, "00008e"),
    "truck": (27, "000046"),
    "bus": (28, "003c64"),
    "train": (31, "005064"),
    "motorcycle": (32, "0000e6"),
    "bicycle": (33, "770b20"),
}
SYNTHIA = [3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11]


def test_cityscapes_names_ids_and_colours():
    space = load_label_space("cityscapes19")
    assert list(space.names) == list(CITYSCAPES)
    assert ["{:02x}{:02x}{:02x}".format(*color) for color in space.colors] == [
        color for _, color in CITYSCAPES.values()
    ]
    table = space.table("label_id")
    expected = np.full(65_536, 255)
    for train_id, (label_id, _) in enumerate(CITYSCAPES.values()):
        expected[label_id] = train_id
    assert table.tolist() == expected.tolist()


def test_cityscapes_train_ids_stand_for_themselves():
    table = load_label_space("cityscapes19").table("train_id")
    assert table[:19].tolist() == list(range(19)) and (table[19:] == 255).all()


def test_synthia_ids():
    table = load_label_space("cityscapes19").table("synthia")
    assert table[SYNTHIA].tolist() == list(range(19))
    assert (np.delete(table, SYNTHIA) == 255).all()


def test_the_subsets_on_which_synthia_is_compared():
    subsets = load_label_space("cityscapes19").subsets
    assert list(subsets["miou16"]) == [*range(9), *range(10, 14), 15, 17, 18]
    assert list(subsets["miou13"]) == [0, 1, 2, 6, 7, 8, *range(10, 14), 15, 17, 18]


def test_camvid_is_cut_out_of_cityscapes():
    space, whole = load_label_space("camvid11"), load_label_space("cityscapes19")
    assert space.num_classes == 11
    for encoding in ("train_id", "label_id"):
        table, whole_table = space.table(encoding), whole.table(encoding)
        stored = np.flatnonzero(table != 255)
        names = {whole.names[whole_table[i]]: space.names[table[i]] for i in stored}
        assert names == {name: name for name in space.names}
    colors = dict(zip(whole.names, whole.colors, strict=True))
    assert list(space.colors) == [colors[name] for name in space.names]


def own(tmp_path, text):
    file = tmp_path / "rooms.yaml"
    file.write_text(text)
    return load_label_space(str(file))


CLASSES = """
classes:
  - {name: floor, color: [10, 20, 30]}
  - {name: wall, color: [200, 0, 0]}
"""


def test_own_classes_need_no_more_than_names_and_colours(tmp_path):
    space = own(tmp_path, CLASSES)
    assert (space.name, space.names, space.subsets) == ("rooms", ("floor", "wall"), {})
    assert space.table("train_id")[:3].tolist() == [0, 1, 255]
    assert space.palette()[3:6] == [200, 0, 0] and space.palette()[-3:] == [0, 0, 0]


def test_colours_may_be_written_as_in_encodings(tmp_path):
    written = own(tmp_path, CLASSES.replace("[10, 20, 30]", '"#0a141E"'))
    assert written == own(tmp_path, CLASSES)


def test_own_encodings_may_merge_ids(tmp_path):
    space = own(tmp_path, CLASSES + "encodings:\n  scanner: {4: floor, 9: floor, 1000: wall}\n")
    table = space.table("scanner")
    assert table[[4, 9, 1000, 0]].tolist() == [0, 0, 1, 255]


def test_encodings_by_colour(tmp_path):
    """Of the classes' own colours one is always there, unless two classes share one."""
    more = 'encodings:\n  painted: {"#FFffFF": floor, "#010203": floor, "#000001": wall}\n'
    space = own(tmp_path, CLASSES + more)
    assert space.by_color == {"color", "painted"}
    for encoding, expected in (
        ("color", {0x0A141E: 0, 0xC80000: 1}),
        ("painted", {0xFFFFFF: 0, 0x010203: 0, 0x000001: 1}),
    ):
        table = space.table(encoding)
        assert is_by_color(table) and not is_by_color(space.table("train_id"))
        assert {i: int(table[i]) for i in np.flatnonzero(table != 255)} == expected
    assert load_label_space("cityscapes19").by_color == {"color"}
    assert own(tmp_path, CLASSES.replace("[200, 0, 0]", "[10, 20, 30]")).by_color == set()


def test_what_is_left_out_on_purpose(tmp_path):
    space = own(tmp_path, CLASSES + "encodings: {mask: {0: floor, 255: wall, 7: null}}\n")
    assert space.table("mask")[[0, 255, 7, 8]].tolist() == [0, 1, 255, 255]
    assert space.left_out["mask"] == {7}
    whole = load_label_space("cityscapes19")
    for name in ("label_id", "synthia"):  # of the data sets' ids none is forgotten
        listed = whole.encodings[name].keys() | whole.left_out[name]
        assert listed == set(range(35 if name == "label_id" else 23))


def test_names_are_text_as_it_is_written(tmp_path):
    """YAML has no, yes, 007, 1.0 and dates for other things than text."""
    names = ("no", "yes", "007", "1.0", "2024-11-02", "~/x")
    classes = "".join(f"  - {{name: {name}, color: [1, 2, 3]}}\n" for name in names)
    rest = "encodings:\n  on: {1: no, 2: yes, 3: 007}\nsubsets:\n  off: [yes, 1.0]\n"
    space = own(tmp_path, f"classes:\n{classes}{rest}")
    assert space.names == names
    assert space.encodings["on"] == {1: 0, 2: 1, 3: 2} and space.subsets == {"off": (1, 3)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("labels: []", "it has no list 'classes'"),
        ("- a", "it has no list 'classes'"),
        (
            "classes:\n  - {name: a, color: [1, 2, 3]}\nsubsets: {stage: [a]}",
            "'stage' is no name for a subset",
        ),
        ("classes:\n  - road", "class 0 must be {name"),
        ("classes:\n  - {name: road}", "class 0 must be {name"),
        ("classes:\n  - {name: null, color: [1, 2, 3]}", "class 0 has no name"),
        (CLASSES + "encodings:\n  a: {1: floor, 1: wall}", "'1' is given again in line 6"),
        ("classes:\n  - {name: road, color: [1, 2]}", "class 'road': color [1, 2] is neither"),
        ("classes:\n  - {name: road, color: blue}", "class 'road': color blue is neither"),
        ("classes:\n  - {name: road, color: [1, 2, 3, x]}", "class 'road': color ["),
        ("classes:\n  - {name: road, color: [1, 2, 300]}", "three numbers from 0 to 255"),
        (CLASSES + "subset: {}", "unknown key 'subset'"),
        (CLASSES + "subsets:\n  few: [roof]", "subsets.few: 'roof' is not among its classes"),
        (CLASSES + "subsets: {few: floor}", "subsets.few: must be a list of classes"),
        (CLASSES + "subsets: {few: []}", "subsets.few: must be a list of classes"),
        (CLASSES + "subsets: {few: [[floor]]}", "subsets.few: must be a list of classes"),
        (CLASSES + "encodings: {a: {1: roof}}", "encodings.a: 'roof' is not among its classes"),
        (CLASSES + "encodings: {a: {1: [floor]}}", "encodings.a: 1 must be the name of one class"),
        (CLASSES + "encodings: {a: {0x0: floor}}", "encodings.a: '0x0' is neither an id"),
        (CLASSES + "encodings: {a: {0-5: floor}}", "encodings.a: '0-5' is neither an id"),
        (CLASSES + "encodings: {a: {1_1: floor}}", "encodings.a: '1_1' is neither an id"),
        (CLASSES + "encodings: {a: {wall: 1}}", "encodings.a: 'wall' is neither an id"),
        (CLASSES + "encodings:\n  a: {70000: floor}", "id 70000 is not in 0..65534"),
        (CLASSES + "encodings: [", "is not valid YAML"),
        (CLASSES + "encodings: {a: [1]}", "a: must be a mapping from ids, or colours"),
        (CLASSES + 'encodings: {a: {"#000000": floor, 1: wall}}', "holds ids beside colours"),
        (CLASSES + 'encodings: {a: {"#0000ff": floor, "#0000FF": wall}}', "given again"),
        (CLASSES + 'encodings: {a: {"#0000": floor}}', "encodings.a: '#0000' is neither an id"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, text, reason):
    with pytest.raises(UserError) as caught:
        own(tmp_path, text)
    message = str(caught.value)
    assert "rooms.yaml" in message and reason in message and "\n" not in message


def test_an_encoding_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no encoding 'label_id'; it has: train_id"):
        own(tmp_path, CLASSES).table("label_id")
