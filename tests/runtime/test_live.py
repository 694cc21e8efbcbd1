"""What is done beside a training takes at most a hundredth of its time."""

from hypothesis import given
from hypothesis import strategies as st

from bdl.runtime.live import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.floats(0.001, 20),
    st.lists(st.floats(0.01, 5), min_size=1, max_size=5),
    st.floats(0.5, 50),
)
def test_looks_are_rare_and_cheap(first: float, costs: list[float], step: float) -> None:
    """Whatever a look takes and however long a step: never two within half a minute, none within
    ten seconds, and all of them together, with one more that takes as long as the longest, within
    a hundredth of the time."""
    clock = Clock()
    pace = Pace(first, clock)
    begun = ended = clock.now
    spent, expected, looks = 0.0, first, 0
    for _ in range(400):
        clock.now += step
        if not pace.is_due():
            continue
        assert clock.now - ended >= (30 if looks else 10)
        assert spent + expected <= 0.01 * (clock.now - begun) + 1e-9
        cost = costs[looks % len(costs)]
        with pace.spending():
            clock.now += cost
        expected = max(expected, cost)
        spent, looks, ended = spent + cost, looks + 1, clock.now


def test_more_work_is_waited_for_longer() -> None:
    clock = Clock()
    pace = Pace(0.2, clock)
    clock.now += 40
    assert pace.is_due() and pace.is_due(more=0.1) and not pace.is_due(more=1)
