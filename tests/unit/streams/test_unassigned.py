import logging
import threading

from streams.unassigned import ASSIGNORS, WithoutMetadata


def test_an_assignment_without_metadata_ends_the_process_once_and_other_words_do_not() -> None:
    ended = threading.Event()
    calls = []
    handler = WithoutMetadata(end=lambda: (calls.append(1), ended.set()), wait_s=0.0)  # type: ignore[func-returns-value]
    logger = logging.getLogger(ASSIGNORS)
    logger.addHandler(handler)
    try:
        logger.warning("something else")
        assert not handler._told
        logger.warning("No partition metadata for topic %s", "probe-results-v1")
        logger.warning("No partition metadata for topic %s", "alarms-v1")
        assert ended.wait(5)
    finally:
        logger.removeHandler(handler)
    assert calls == [1]
