"""What `kpatrol topics apply` decides: create, grow, align, keep, refuse."""

from topics.apply import Existing, Wanted, plan, wanted


def topic(**changes: object) -> Wanted:
    values = {"name": "t-v1", "partitions": 4, "may_grow": True, "config": {"retention.ms": "1000"}} | changes
    return Wanted(**values)  # type: ignore[arg-type]


def verb(desired: Wanted, existing: Existing | None) -> str:
    (step,) = plan(desired=[desired], observed={} if existing is None else {desired.name: existing})
    return step.verb


def test_each_situation_has_its_verb() -> None:
    config = {"retention.ms": "1000", "other": "x"}
    assert verb(topic(), None) == "create"
    assert verb(topic(), Existing(partitions=4, config=config)) == "keep"
    assert verb(topic(), Existing(partitions=2, config=config)) == "grow"
    assert verb(topic(), Existing(partitions=6, config=config)) == "keep"
    assert verb(topic(), Existing(partitions=4, config={"retention.ms": "1"})) == "align"
    assert verb(topic(may_grow=False), Existing(partitions=2, config=config)) == "refuse"
    assert verb(topic(may_grow=False), Existing(partitions=6, config=config)) == "refuse"


def test_a_replication_factor_that_is_asked_for_is_compared() -> None:
    live = {"t-v1": Existing(partitions=4, config={"retention.ms": "1000"}, replication=1)}
    (step,) = plan(desired=[topic()], observed=live, replication=3)
    assert step.verb == "refuse"
    assert "replicated 1 times, asked for 3" in step.reason
    for asked in (None, 1):
        (step,) = plan(desired=[topic()], observed=live, replication=asked)
        assert (step.verb, step.replication) == ("keep", 1)


def test_dead_letters_and_changelogs_are_derived() -> None:
    names = {t.name: t for t in wanted(partitions={"round-progress-v1": 2})}
    assert "probe-results-v1-dlq" in names
    assert names["kpatrol-judge-rounds-changelog"].partitions == names["round-progress-v1"].partitions == 2
