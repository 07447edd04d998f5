"""A short form of faults/kills.py: killed trainings end as if nothing had happened."""

from kills import suffer


def test_killed_trainings_end_bit_identical() -> None:
    figures, good = suffer(3)
    assert good
    assert figures["resumed bit-identical"] == 3
    assert figures["kills"] >= 3
