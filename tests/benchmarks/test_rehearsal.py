"""benchmarks/rehearsal.py: what is measured in few steps is extrapolated to a whole recipe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl.runtime.config import DomainConfig
from bdl.runtime.errors import UserError
from benchmarks import made_data
from benchmarks.rehearsal import Cost, described, extrapolate, rehearse, steady_seconds

# As published, but of networks and images that take no time.
TINY = [
    "device=cpu",
    "data.workers=0",
    "data.source.size=[64,40]",
    "data.target.size=[64,32]",
    "data.validation.size=[64,32]",
    "translation.load_width=64",
    "translation.crop=[32,32]",
    "translation.batch_size=2",
    "translation.generator.width=4",
    "translation.generator.blocks=1",
    "translation.discriminator_width=4",
    "segmentation.network=compact",
    "segmentation.options.width=4",
    "segmentation.evaluation.size=[64,32]",
]


@given(
    start=st.floats(0, 1e6),
    slow=st.lists(st.floats(1, 50), min_size=1, max_size=5),
    each=st.floats(0.01, 10),
)
def test_steps_count_once_a_training_goes_evenly(start, slow, each):
    """Whatever the first steps took, as long as they are the lesser half."""
    seconds = [*slow, *[each] * (len(slow) + 1)]
    times = [start + sum(seconds[: n + 1]) for n in range(len(seconds))]
    assert steady_seconds(times, whole=1e9) == pytest.approx(each, rel=1e-4)


def test_a_single_step_is_all_of_a_training():
    assert steady_seconds([17.0], whole=5.0) == 5.0


def test_hours_are_those_of_the_whole_work():
    """By hand: 1,000 steps of 36 s are 10 hours, 500 images of 72 s as many; for 5 hours in all
    each may take a quarter."""
    costs = {"a": Cost(36.0, 7, None), "b": Cost(72.0, 3, 5), "not in the recipe": Cost(1, 1, 1)}
    parts = extrapolate(costs, {"a": (1000, "steps"), "b": (500, "images")}, aim=5.0)
    assert [(part.stage, part.hours, part.allowed_seconds) for part in parts] == [
        ("a", 10.0, 9.0),
        ("b", 10.0, 18.0),
    ]
    last = described(parts, 5.0).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")[1:6]] == ["all", "", "", "20.00", "0.0"]


def test_a_data_set_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(UserError, match=r"'folder' \(train\) is none of the data sets"):
        made_data.make_data(DomainConfig(layout="folder"), tmp_path, 1)


@pytest.mark.long
@pytest.mark.parametrize("source", ["gta5", "synthia"])
def test_a_rehearsal_runs_every_stage_and_counts_the_true_work(tmp_path, monkeypatch, source):
    tiny = {layout: (size[0] // 20, size[1] // 20) for layout, size in made_data.SIZES.items()}
    monkeypatch.setattr(made_data, "SIZES", tiny)
    recipe = f"{source}_cityscapes_deeplab"
    costs, work = rehearse(recipe, TINY, tmp_path, steps=3, images=2)
    images = {"gta5": 24_966, "synthia": 9_400}[source]
    assert costs.keys() == work.keys() and len(work) == 24  # K = 2, N = 2
    assert work["source-only"] == (80_000, "steps")
    assert work["k2/segmentation-2"] == (120_000, "steps")
    assert work["k1/translator"] == (19 * (images // 2), "steps")
    assert work["k2/translated"] == (images, "images")
    assert work["k2/translated/measures"] == (400, "images")
    assert work["k1/pseudo-labels-2"] == (2_975, "images")
    assert work["k2/segmentation-2/evaluation"] == (500, "images")
    assert all(cost.seconds > 0 and cost.memory for cost in costs.values())
    # The same command goes on where it was: everything is there.
    again, _ = rehearse(recipe, TINY, tmp_path, steps=3, images=2)
    assert again == costs
