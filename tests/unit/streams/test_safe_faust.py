"""Faust only in the way that was proven to lose nothing: the unsafe calls are refused by their names in the source.

Why each: `take` and `take_events` acknowledge in a `finally`; a stream without `noack` acknowledges what failed;
several actors acknowledge out of order, and a commit passes what is unfinished; exactly_once swallows fencing; windowed
tables never expire after a restart; the rest is broken or unfenced in the pinned version.
"""

import ast
from pathlib import Path

import pytest

import streams

FOLDER = Path(streams.__file__ or "").parent
CALLS = {
    "take": "acknowledges what failed",
    "take_events": "acknowledges what failed",
    "take_with_timestamp": "acknowledges what failed",
    "events": "acknowledges by itself",
    "tumbling": "windowed table",
    "hopping": "windowed table",
    "relative_to_now": "windowed table",
    "relative_to_field": "windowed table",
    "group_by": "repartitions outside the commit",
    "through": "repartitions outside the commit",
    "GlobalTable": "reads every partition",
    "SetGlobalTable": "reads every partition",
    "ask": "RPC",
    "inner_join": "joins keep state outside the changelog",
    "outer_join": "joins keep state outside the changelog",
    "left_join": "joins keep state outside the changelog",
    "declare": "topics are made by `kpatrol topics apply` alone",
    "LiveCheck": "unsafe",
}
KEYWORDS = {
    "concurrency": lambda value: value != 1,
    "processing_guarantee": lambda value: value != "at_least_once",
    "producer_threaded": bool,
    "on_window_close": lambda value: True,
    "standby_buffer_size": lambda value: True,
    "table_standby_replicas": bool,
    "topic_allow_declare": bool,
    "web_enabled": bool,
    "autodiscover": bool,
    "stream_ack_exceptions": bool,
    "stream_ack_cancelled_tasks": bool,
    "stream_publish_on_commit": bool,
}
REQUIRED = {
    "processing_guarantee": "at_least_once",
    "agent_supervisor": "mode.supervisors.CrashingSupervisor",
    "stream_wait_empty": True,
    "table_standby_replicas": 0,
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "web_enabled": False,
    "consumer_auto_offset_reset": "earliest",
    "autodiscover": False,
}


def faults(source: str) -> list[str]:
    """What is unsafe in a module's source, with line numbers."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [f"{node.lineno}: {text}" for text in _call_faults(node)]
        if isinstance(node, ast.AsyncFor):
            found += [f"{node.lineno}: {text}" for text in _loop_faults(node)]
        if isinstance(node, ast.Attribute) and node.attr == "exactly_once":
            found.append(f"{node.lineno}: exactly_once")
    return found


def _call_faults(call: ast.Call) -> list[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    # Arrow's `take(indexes)` has one argument, a stream's has two.
    arrow = name == "take" and len(call.args) + len(call.keywords) == 1
    found = [f"{name}: {CALLS[name]}"] if name in CALLS and not arrow else []
    for keyword in call.keywords:
        unsafe = KEYWORDS.get(keyword.arg or "")
        if unsafe is None:
            continue
        if not isinstance(keyword.value, ast.Constant) or unsafe(keyword.value.value):
            found.append(f"{keyword.arg}={ast.unparse(keyword.value)}")
    return found


def _loop_faults(loop: ast.AsyncFor) -> list[str]:
    """A loop over a stream must be over `….noack().noack_take(…)`."""
    text = ast.unparse(loop.iter)
    over_stream = "stream" in text
    return (
        [f"async for over {text}: not noack().noack_take()"]
        if over_stream and ".noack().noack_take(" not in text
        else []
    )


def app_settings(source: str) -> dict[str, object]:
    """Constant keyword arguments of the one place that makes an App."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "App"]
    assert len(calls) == 1
    return {k.arg: k.value.value for k in calls[0].keywords if k.arg and isinstance(k.value, ast.Constant)}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_no_module_uses_what_is_unsafe(path: Path) -> None:
    assert faults(path.read_text()) == []


def test_the_app_is_made_in_one_place_with_the_safe_settings() -> None:
    settings = app_settings((FOLDER / "app.py").read_text())
    assert {name: settings.get(name) for name in REQUIRED} == REQUIRED
    makers = [p.name for p in FOLDER.rglob("*.py") if "faust.App(" in p.read_text()]
    assert makers == []


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_every_agent_that_reads_a_stream_acknowledges_by_hand(path: Path) -> None:
    source = path.read_text()
    if ".noack_take(" in source:
        assert "stream.ack(" in source


@pytest.mark.parametrize(
    "sample",
    [
        "async def a(stream):\n    async for v in stream.take(10, within=1): pass",
        "async def f(s):\n    batches = s.take(10, 1)",
        "async def a(stream):\n    async for v in stream.take_events(10, within=1): pass",
        "async def a(stream):\n    async for v in stream.events(): pass",
        "async def a(stream):\n    async for v in stream: pass",
        "async def a(stream):\n    async for v in stream.noack(): pass",
        "async def a(stream):\n    async for v in stream.noack_take(10, within=1): pass",
        "async def a(stream):\n    async for v in stream.group_by(key): pass",
        "app.agent(topic, concurrency=2)(f)",
        "app.agent(topic, concurrency=workers)(f)",
        "faust.App('x', processing_guarantee='exactly_once')",
        "faust.App('x', processing_guarantee=faust.ProcessingGuarantee.exactly_once)",
        "app.Table('t').tumbling(10)",
        "app.Table('t').hopping(10, 5)",
        "app.Table('t', on_window_close=f)",
        "app.GlobalTable('t')",
        "async def f(): await agent.ask(1)",
        "faust.App('x', table_standby_replicas=1)",
        "faust.App('x', web_enabled=True)",
        "async def f(): await topic.declare()",
    ],
)
def test_the_check_itself_refuses(sample: str) -> None:
    assert faults(sample)


def test_the_check_itself_allows_the_pattern() -> None:
    sample = (
        "async def a(stream):\n"
        "    async for events in stream.noack().noack_take(10, within=0.2):\n"
        "        await write(events)\n"
        "        for event in events: await stream.ack(event)\n"
        "app.agent(topic, concurrency=1)(a)\n"
    )
    assert faults(sample) == []
