"""Files of one frame, told by their names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl.domains.pairing import pair_names, shared_affixes, unlike

FRAMES = st.lists(st.from_regex(r"[0-9]{3}", fullmatch=True), min_size=2, max_size=6, unique=True)
AFFIX = st.sampled_from(["", "_pred", "_ids", "-mask", ".out", "_x1"])
START = st.sampled_from(["", "img_", "pred-", "a.b_"])


@pytest.mark.parametrize(
    ("names", "affixes"),
    [
        (["000_ids", "001_ids"], ("", "_ids")),
        (["img_000", "img_001"], ("img_", "")),
        (["img_000_L", "img_010_L"], ("img_", "_L")),
        (["2024-01", "2024-02"], ("", "")),  # digits belong to the name
        (["000_ids"], ("", "")),
        (["a", "b"], ("", "")),
        ([], ("", "")),
    ],
)
def test_what_all_names_share(names, affixes):
    assert shared_affixes(names) == affixes


@given(FRAMES, START, AFFIX, START, AFFIX, FRAMES)
def test_frames_are_paired_whatever_each_side_adds(frames, start, end, start2, end2, more):
    names = [f"{start}{frame}{end}" for frame in frames]
    others = [f"{start2}{frame}{end2}" for frame in dict.fromkeys([*frames, *more])]
    expected = {f"{start}{frame}{end}": f"{start2}{frame}{end2}" for frame in frames}
    assert pair_names(names, others) == expected


def test_a_single_file_and_names_without_separators():
    assert pair_names(["000"], ["000_pred"]) == {"000": "000_pred"}
    assert pair_names(["000pred"], ["000"]) == {"000pred": "000"}
    assert pair_names(["a1", "b2"], ["a1x", "b2x", "c3x"]) == {"a1": "a1x", "b2": "b2x"}
    assert pair_names(["a"], ["b"]) == {} and pair_names([], ["b"]) == {}


def test_two_files_that_would_do_are_none():
    assert pair_names(["000", "001"], ["000_a", "001_a", "000_b", "001_b"]) == {}


def test_names_without_a_partner_are_left_out():
    assert pair_names(["000", "001"], ["000_p", "002_p"]) == {"000": "000_p"}
    assert pair_names(["000", "001"], ["001", "002"]) == {"001": "001"}


@pytest.mark.parametrize(
    ("name", "other", "are_alike"),
    [
        ("000", "000_pred", True),
        ("img_000", "label_000", True),
        ("img000", "000-mask", True),
        ("aachen_000_leftImg8bit", "aachen_000_gtFine_labelTrainIds", True),
        ("Frame_7", "frame_7.Labels", True),
        ("000pred", "000", True),
        ("day_000", "night_000", False),
        ("frame_0_left", "frame_0_right", False),
        ("1", "10", False),
        ("a_000", "b_000", False),
        ("000", "000_x1", False),
        ("seqA/000", "seqB/000", False),
    ],
)
def test_names_that_only_look_alike(name, other, are_alike):
    assert (unlike([("5", "5_ids"), (name, other)]) is None) == are_alike
    assert (unlike([(other, name)]) is None) == are_alike


@given(FRAMES, START, st.sampled_from(["", "_pred", "_ids", "-mask"]))
def test_of_the_same_frames_nothing_is_said(frames, start, end):
    pairs = pair_names(frames, [f"{start.replace('a.b', 'gt')}{frame}{end}" for frame in frames])
    assert len(pairs) == len(frames) and unlike(pairs.items()) is None
