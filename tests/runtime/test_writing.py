"""runtime/writing.py: everything is written, errors arrive, and what waits is bounded."""

import threading

import pytest

from bdl.runtime import writing
from bdl.runtime.errors import UserError
from bdl.runtime.writing import Writer, read_ahead


def fail() -> None:
    raise UserError("disk full")


def test_everything_handed_over_is_done_at_the_end():
    done = []
    with Writer() as writer:
        for number in range(100):
            writer.submit(done.append, number)
    assert sorted(done) == list(range(100))


def test_an_error_reaches_the_caller_at_the_latest_at_the_end():
    with pytest.raises(UserError, match="disk full"), Writer() as writer:
        writer.submit(fail)


def test_an_error_ends_a_long_row_of_files_early():
    handed_over = 0
    with pytest.raises(UserError, match="disk full"), Writer() as writer:
        for _ in range(1000):
            writer.submit(fail)
            handed_over += 1
    assert handed_over <= writing.WAITING


def test_the_callers_own_error_is_not_replaced():
    with pytest.raises(KeyError), Writer() as writer:
        writer.submit(fail)
        raise KeyError


def test_who_hands_over_waits_when_too_much_is_waiting():
    """Memory does not grow with a slow disk: only as many wait as the bound allows."""
    go_on, handed_over = threading.Event(), []

    def hand_over() -> None:
        with Writer() as writer:
            for number in range(2 * writing.WAITING):
                writer.submit(go_on.wait)
                handed_over.append(number)

    thread = threading.Thread(target=hand_over)
    thread.start()
    thread.join(0.3)
    assert len(handed_over) <= writing.WAITING
    go_on.set()
    thread.join()
    assert len(handed_over) == 2 * writing.WAITING


def test_what_is_read_ahead_comes_in_order_and_is_bounded():
    begun = []

    def read(number: int) -> int:
        begun.append(number)
        return number**2

    for turn, (number, square) in enumerate(read_ahead(read, range(20), ahead=3)):
        assert (number, square) == (turn, turn**2)
        assert max(begun) <= turn + 3
    assert sorted(begun) == list(range(20))


def test_an_error_of_reading_comes_at_its_turn():
    seen = []
    with pytest.raises(ZeroDivisionError):
        for number, _ in read_ahead(lambda number: 1 // (number - 3), range(20)):
            seen.append(number)
    assert seen == [0, 1, 2]


def test_reading_ends_with_who_stops_to_listen():
    begun = []
    for number, _ in read_ahead(begun.append, range(20)):
        if number == 4:
            break
    assert len(begun) <= 4 + 1 + 2
    assert not any(thread.name.startswith("reader") for thread in threading.enumerate())
