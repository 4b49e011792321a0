"""Upstream beside ours under random calls; tests/benchmarks/random_calls.py makes 100,000."""

import pytest
import state_machine


@pytest.mark.parametrize("num_sessions", [30, pytest.param(80, marks=pytest.mark.slow)])
def test_whatever_is_called_in_whatever_order(num_sessions: int) -> None:
    state_machine.COUNTS.clear()
    state_machine.run(seed=0, max_examples=num_sessions)
    counts = state_machine.COUNTS
    # How many there are in so few sessions changes with what hypothesis draws.
    kinds = {"track", "add_new_points_or_box", "add_new_mask"}
    least_calls, least_exact = 400, 250
    if num_sessions >= 80:
        least_calls, least_exact = 2000, 1500
        kinds |= {"remove_object", "by shape", "clear_all_prompts_in_frame", "crash_and_resume",
                  "rewind", "bank", "with snapshots", "with two open passes"}  # fmt: skip
    assert counts["calls"] >= least_calls
    assert counts["exact"] >= least_exact
    for kind in kinds:
        assert counts[kind] > 0, counts


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(state_machine.MACHINES.keys() - {"Calls"}))
def test_machines_that_look_at_one_thing_each(name: str) -> None:
    """What each found when it was written is in random_calls.json ("found_in_44bcd0b")."""
    state_machine.COUNTS.clear()
    state_machine.run(seed=0, max_examples=8, machine=state_machine.MACHINES[name])
    assert state_machine.COUNTS["exact"] >= 100
