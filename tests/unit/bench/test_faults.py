from typing import Any

from bench.faults import FAULTS, Kept, decided, expected, is_done, last_word, page, sound, tried
from kpatrol.lab.faults import parse_fault

FAULT = "ingress node-1 loss=2%"
RIGHT = {"element": "node-1", "direction": "ingress", "sentence": "node-1 loses"}
WRONG = {"element": "node-2", "direction": "egress", "sentence": "node-2 loses"}


def round_(number: int, *found: dict[str, str], unfit: tuple[str, ...] = ()) -> dict[str, Any]:
    trust = "degraded" if unfit else "good"
    return {"round": number, "final": True, "findings": list(found), "unfit_nodes": list(unfit), "trust": trust}


def test_there_are_thirty_faults_and_each_is_one_that_the_lab_makes() -> None:
    nodes = [f"node-{n}" for n in range(1, 13)]
    assert len({parse_fault(text, nodes=nodes).text for text in FAULTS}) == len(FAULTS) >= 30
    assert expected("pair node-5>node-6 loss=20%") == "node-5>node-6 pair"


def test_a_fault_is_right_in_the_round_that_names_it_and_nothing_else() -> None:
    late = tried(FAULT, [round_(1), round_(2, RIGHT)])
    assert (late.exact_in, late.told, late.strangers) == (2, 2, ())
    beside = tried(FAULT, [round_(1, RIGHT, WRONG), round_(2, RIGHT)])
    assert (beside.exact_in, beside.strangers) == (2, ("node-2 loses",))
    assert not decided(tried(FAULT, [round_(1), round_(2, unfit=("node-1",))]))
    assert decided(tried(FAULT, [round_(1), round_(2)])), "nothing was named in two rounds that could tell"


def test_a_round_that_could_not_tell_is_played_again_and_the_first_that_could_counts() -> None:
    blind, good = tried(FAULT, [round_(1, unfit=("node-1",))]), tried(FAULT, [round_(1, RIGHT)])
    kept = Kept(faults={FAULT: [blind]})
    assert not is_done(kept, FAULT)
    kept.faults[FAULT].append(good)
    assert is_done(kept, FAULT)
    assert last_word(kept.faults[FAULT]) is good


def test_the_page_counts_what_was_seen() -> None:
    quiet = sound([round_(3), round_(6, WRONG, unfit=("node-5",))])
    kept = Kept(faults={FAULT: [tried(FAULT, [round_(1, RIGHT), round_(2, RIGHT)])]}, between=[quiet])
    text = page(kept)
    assert "**1 of 1**" in text
    assert "| between the faults | 2 | 1 | 1 |" in text
    assert "- sound: node-2 loses" in text
