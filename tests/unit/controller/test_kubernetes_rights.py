"""The chart gives the controller every right of the table."""

import re
from pathlib import Path

from controller.kubernetes.rights import RIGHTS

RBAC = Path(__file__).parents[3] / "deploy" / "chart" / "templates" / "rbac.yaml"


def given() -> set[tuple[str, str, str]]:
    rule = re.compile(r"- apiGroups: \[(.*)\]\n\s+resources: \[(.*)\]\n(?:\s+resourceNames: .*\n)?\s+verbs: \[(.*)\]")
    return {
        (group.strip(' "'), resource.strip(), verb.strip())
        for groups, resources, verbs in rule.findall(RBAC.read_text())
        for group in groups.split(",")
        for resource in resources.split(",")
        for verb in verbs.split(",")
    }


def test_the_chart_gives_every_right_that_is_used() -> None:
    assert sorted(right for right in RIGHTS if tuple(right) not in given()) == []
