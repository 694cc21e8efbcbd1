"""The rules of `check --fit`: no plan asks for more memory or hours than there are."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl.domains.fitting import (
    MEMORY_USED,
    Line,
    Machine,
    Planned,
    Work,
    overrides,
    plan_batch,
    plan_crop,
    plan_length,
    plan_precision,
    plan_sampling,
    plan_statistics,
)

SIDES = st.integers(32, 2000)
SIZES = st.tuples(SIDES, SIDES)
LINES = st.builds(Line, st.floats(0, 1e9), st.floats(1, 1e5))
MACHINES = st.builds(
    Machine, st.integers(10**9, 10**11), st.booleans(), st.booleans(), st.integers(1, 6)
)


@given(LINES, st.integers(1, 10**7), st.integers(1, 10**7))
def test_a_line_goes_through_what_was_measured(line, first, second):
    found = Line.through((first, line.at(first)), (second, line.at(second)))
    for pixels in (first, second):
        assert found.at(pixels) == pytest.approx(line.at(max(first, second)), rel=1e-6) or (
            first != second and found.at(pixels) == pytest.approx(line.at(pixels), rel=1e-6)
        )


@given(st.tuples(*[st.floats(1, 1e9)] * 2), st.tuples(*[st.floats(1, 1e9)] * 2))
def test_whatever_was_measured_the_line_neither_falls_nor_is_negative(first, second):
    line = Line.through(first, second)
    assert line.base >= 0 and line.slope >= 0
    assert line.at(max(first[0], second[0])) >= 0


@given(SIZES, SIZES, st.integers(1, 8), LINES, MACHINES)
def test_crop_and_batch_fit_into_memory_and_images(crop, largest, each, memory, machine):
    batch = each * machine.processes
    crop = tuple(map(min, crop, largest))
    planned = plan_crop("crop", crop, largest, batch, memory, machine)
    assert all(new <= most for new, most in zip(planned.value, largest, strict=True))
    if not machine.grows:
        assert prod(planned.value) <= prod(crop)
    images = plan_batch("batch", batch, planned.value, memory, machine).value
    assert images >= 1 and images % machine.processes == 0  # else no run takes it
    limit = MEMORY_USED * machine.memory
    at_the_least = images == machine.processes or all(
        new == min(32, old) for new, old in zip(planned.value, crop, strict=True)
    )
    # To within rounding: the allowed pixels come from the same line.
    assert memory.at(images * prod(planned.value)) <= limit * (1 + 1e-9) or at_the_least


@given(st.integers(1, 8), SIZES, LINES)
def test_a_machine_that_does_not_tell_its_memory_changes_nothing(batch, crop, memory):
    machine = Machine(None, False, False, 1)
    assert plan_crop("crop", crop, crop, batch, memory, machine).value == crop
    assert plan_batch("batch", batch, crop, memory, machine).value == batch


@given(
    st.floats(0, 1e5),
    st.floats(1, 1e6),
    st.integers(1, 10_000),
    st.integers(200, 50_000),
    st.integers(20, 3000),
    st.floats(0.1, 100),
)
def test_the_hours_that_are_planned_are_those_asked_for(
    images, trained, count, steps, epoch, hours
):
    """Unless even the least steps take longer, or more passes over the source bring nothing."""
    lengths = {"segmentation.steps": steps, "translation.steps_per_epoch": epoch}
    planned, needed = plan_length(Work(images, trained, count), lengths, hours)
    values = {item.key: item.value for item in planned}
    assert values["segmentation.steps"] >= 100 and values["translation.steps_per_epoch"] >= 10
    if all("allow" in item.rule for item in planned):
        assert needed <= hours + 1e-6
        shares = [values[key] / length for key, length in lengths.items()]
        assert abs(shares[0] - shares[1]) <= 1 / min(lengths.values())


def test_without_hours_the_steps_stay():
    planned, needed = plan_length(Work(360, 3240, 40), {"segmentation.steps": 800}, None)
    assert [item.value for item in planned] == [800] and needed == 1.0


def test_rare_classes_are_mixed():
    shares = {"soil": 0.93, "crop": 0.01, "weed": 0.06}
    images = {"soil": 40, "crop": 30, "weed": 40}
    planned = plan_sampling(shares, images, mixes=False)
    assert planned.value is True and "crop 1.0 % in 30 images" in planned.reason
    assert plan_sampling({"a": 0.5, "b": 0.5}, {"a": 3, "b": 3}, mixes=False).value is False


@pytest.mark.parametrize(("batch", "frozen"), [(1, True), (3, True), (4, False), (8, False)])
def test_statistics_of_few_images_are_left_alone(batch, frozen):
    assert plan_statistics(batch, flat=False).value is frozen
    assert plan_statistics(batch, flat=True).value is False


def test_a_precision_chosen_by_hand_stays():
    machine = Machine(None, True, True, 1)
    assert plan_precision("32-true", machine).value == "auto"
    assert plan_precision("16-mixed", machine).value == "16-mixed"


def test_only_what_differs_is_to_be_added():
    planned = [
        Planned("a.crop", (32, 64), "", ""),
        Planned("b", True, "", ""),
        Planned("c", 3, "", ""),
    ]
    configured = {"a.crop": (16, 16), "b": None, "c": 3}
    assert overrides(planned, configured) == ["a.crop=[32,64]", "b=true"]
