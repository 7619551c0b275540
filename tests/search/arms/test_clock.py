"""Why evaluators are idle: what their arm does at that moment."""

from search.arms.clock import Clock


def test_an_interval_is_split_by_what_was_done_in_it() -> None:
    now = 100.0
    clock = Clock(lambda: now)
    now = 110.0
    with clock.doing("masks"):
        now = 114.0
        with clock.doing("record"):
            now = 115.0
        now = 117.0
    now = 120.0
    assert clock.split(100.0, 120.0) == {"arm": 13.0, "masks": 6.0, "record": 1.0}
    assert clock.split(112.0, 116.0) == {"masks": 3.0, "record": 1.0}
    assert clock.split(90.0, 105.0) == {"arm": 5.0}, "before it began nobody was idle"
    assert sum(clock.split(118.0, 118.0).values()) == 0
