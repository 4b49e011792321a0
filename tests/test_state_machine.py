"""Upstream beside ours under random calls; tests/benchmarks/random_calls.py makes 100,000."""

import pytest
import state_machine


@pytest.mark.parametrize("num_sessions", [30, pytest.param(80, marks=pytest.mark.slow)])
def test_whatever_is_called_in_whatever_order(num_sessions: int) -> None:
    kinds = {"track", "add_new_points_or_box", "add_new_mask"}
    if num_sessions >= 80:
        kinds |= {"remove_object", "by shape", "clear_all_prompts_in_frame", "crash_and_resume",
                  "rewind", "bank", "with snapshots", "with two open passes"}  # fmt: skip
    state_machine.COUNTS.clear()
    # Which calls a seed gives changes with hypothesis' version and with the machine, so a kind
    # that is rare may need another seed.
    for seed in range(4):
        state_machine.run(seed, max_examples=num_sessions)
        missing = {kind for kind in kinds if state_machine.COUNTS[kind] == 0}
        if not missing:
            break
    assert not missing, state_machine.COUNTS
    assert state_machine.COUNTS["calls"] >= 13 * num_sessions
    assert state_machine.COUNTS["exact"] >= 8 * num_sessions


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(state_machine.MACHINES.keys() - {"Calls"}))
def test_machines_that_look_at_one_thing_each(name: str) -> None:
    """What each found when it was written is in random_calls.json ("found_in_44bcd0b")."""
    state_machine.COUNTS.clear()
    state_machine.run(seed=0, max_examples=8, machine=state_machine.MACHINES[name])
    assert state_machine.COUNTS["exact"] >= 100
