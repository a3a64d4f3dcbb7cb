"""The committed definitions are those that the models make, and say what Python says."""

import re
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from controller.crds.__main__ import main, manifests
from controller.crds.structural import schema_of
from controller.tasks import KINDS, scheduleform
from controller.tasks.hostnames import is_ip, is_url, matches
from controller.tasks.netreach import NetReachSpec

FOLDER = Path(__file__).parents[3] / "deploy" / "crds"


def test_the_committed_definitions_are_current() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    assert written == manifests(), "run: python -m controller.crds deploy/crds"


def test_there_is_one_for_each_kind_and_the_ceilings(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    expected = {f"{model.PLURAL}.{model.API_VERSION.partition('/')[0]}.yaml" for model in KINDS.values()}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"kpatrol-ceilings.yaml"}


def test_an_absent_object_is_filled_in_whole() -> None:
    request = schema_of(NetReachSpec)["properties"]["request"]
    assert request["default"] == {"durationInSecond": 2, "qps": 10, "perRequestTimeoutInMS": 500}
    assert request["properties"]["qps"]["default"] == 5


ADDRESSES = st.ip_addresses(v=6).map(str) | st.from_regex(r"[0-9a-f:.]{2,20}", fullmatch=True)


@given(ADDRESSES)
def test_the_expression_of_an_ipv6_address_is_pythons(text: str) -> None:
    assert is_url(f"http://[{text}]/") == (is_ip(text) and ":" in text)


FIELD = st.sampled_from(
    ["*", "?", "*/5", "1-3", "5-1", "7", "30", "31", "2", "FEB", "4,6", "30,31", "1-12/3", "L", "61"]
)


@given(st.lists(FIELD, min_size=5, max_size=5).map(" ".join))
@example("* * 30 2 */5")
def test_the_expressions_of_cron_leave_no_case_to_python(text: str) -> None:
    matched = matches(scheduleform.PATTERN)(text)
    refused = [part.split("'")[1].replace("\\\\", "\\") for part in scheduleform.CEL.split(" && ")]
    falls = [re.search(pattern, text.upper()) for pattern in refused]
    assert (matched and not any(falls)) == (scheduleform.parse(text) is not None)
