"""Thirty-one faults in real packets, each named exactly within two rounds; as many rounds without (half an hour)."""

from pathlib import Path

import pytest

from bench.faults import FAULTS, IN_A_SLICE, Kept, go_on, last_word

pytestmark = pytest.mark.soak


def test_thirty_faults_are_named_exactly_and_nothing_else_is(tmp_path: Path) -> None:
    kept = Kept()
    go_on(kept, state=tmp_path / "state.json", slices=4 * len(FAULTS) // IN_A_SLICE)
    done = {fault: last_word(kept.faults[fault]) for fault in FAULTS}
    assert sum(t.exact_in > 0 for t in done.values()) >= len(FAULTS) - 1, done
    assert [s for t in done.values() for s in t.strangers] == []
    assert [name for part in (*kept.between, *kept.control) for name in part.named] == []
    assert sum(part.rounds for part in kept.control) == 3 * len(FAULTS)
