"""A short form of faults/kills.py: killed trainings end as if nothing had happened."""

from kills import kill_all


def test_killed_trainings_end_bit_identical() -> None:
    figures = kill_all(3)
    assert figures["trainings, resumed bit-identical"] == 3
    assert figures["wrong"] == 0
    assert figures["kills"] >= 3
