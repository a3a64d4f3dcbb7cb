"""What a check says, in English and in Chinese (LANG, LC_ALL, LC_MESSAGES). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "zh"]

WORDS: Mapping[str, tuple[str, str]] = {
    "good": ("good", "正常"),
    "bad": ("bad", "异常"),
    "unknown": ("not known", "未知"),
    "good_pairs": ("good pairs", "正常的节点对"),
    "bad_pairs": ("bad pairs", "异常的节点对"),
    "unknown_pairs": ("pairs not known", "未知的节点对"),
    "by_node": ("by node", "按节点汇总"),
    "nodes_apart": ("nodes without an agent", "没有探针的节点"),
    "findings": ("findings", "定位结果"),
    "changes": ("since the last run", "与上次相比"),
    "source": ("source", "源节点"),
    "destination": ("destination", "目标"),
    "address": ("address", "地址"),
    "protocol": ("protocol", "协议"),
    "result": ("result", "结果"),
    "reason": ("reason", "原因"),
    "detail": ("detail", "详情"),
    "answered": ("answered", "应答"),
    "loss": ("packet loss [95 %]", "丢包率 [95 %]"),
    "way": ("lost on the way", "丢包方向"),
    "there": ("there", "去程"),
    "back": ("back", "回程"),
    "both": ("there and back", "往返"),
    "delay": ("p50", "p50"),
    "node": ("node", "节点"),
    "standing": ("state", "状态"),
    "as_source": ("bad as source", "作为源异常"),
    "as_destination": ("bad as destination", "作为目标异常"),
    "waiting": ("not ready in time", "未及时就绪"),
    "absent": ("cannot start", "无法启动"),
    "left_out": ("left out", "已排除"),
    "timeout": ("no reply", "无应答"),
    "refused": ("refused", "连接被拒绝"),
    "reset": ("reset", "连接被重置"),
    "no_route": ("no route", "无路由"),
    "dns": ("name not resolved", "域名解析失败"),
    "tls": ("TLS", "TLS 错误"),
    "http": ("HTTP status", "HTTP 状态错误"),
    "bad_reply": ("bad reply", "应答错误"),
    "wrong_peer": ("somebody else answers", "应答者不符"),
    "target_gone": ("the target was replaced", "目标已被替换"),
    "mtu": ("MTU", "MTU 过小"),
    "loss_reason": ("packets lost", "丢包"),
    "not_heard": ("nothing heard of its agent", "未收到探针结果"),
    "not_sent": ("not sent", "未发送"),
    "not_fit": ("instrument not fit", "探针状态不佳"),
    "task": ("the task failed", "任务失败"),
    "fixed": ("fixed", "已恢复"),
    "still_bad": ("still bad", "仍异常"),
    "newly_bad": ("newly bad", "新异常"),
    "gone": ("no longer there", "已不存在"),
    "not_asked": ("not asked: its node takes no part", "未检测：节点未参与"),
    "summary": ("{good} good, {bad} bad, {unknown} not known", "正常 {good}，异常 {bad}，未知 {unknown}"),
    "apart": ("{count} nodes without an agent", "{count} 个节点没有探针"),
}


def language(env: Mapping[str, str]) -> Language:
    """By the first of LC_ALL, LC_MESSAGES, LANG that is set."""
    told = next((env[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if env.get(name)), "")
    return "zh" if told.lower().startswith("zh") else "en"


def say(key: str, lang: Language, **values: object) -> str:
    """The words for a key of WORDS."""
    return WORDS[key][lang == "zh"].format(**values)


def reason(key: str, lang: Language) -> str:
    """The words for a pair's reason; nothing for none."""
    return say("loss_reason" if key == "loss" else key, lang) if key else ""
