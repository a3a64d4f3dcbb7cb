"""What is answered where a report is not: ``Status`` objects of Kubernetes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controller.report_api.material import GROUP

RESOURCE = "kdoctorreports"


@dataclass(eq=False, kw_only=True)
class Refusal(Exception):
    """An answer that is no report; ``reason`` is Kubernetes' word for it."""

    code: int
    reason: str
    message: str
    name: str = ""
    retry_after_s: int = 0

    def status(self) -> dict[str, Any]:
        """The ``Status`` object."""
        details: dict[str, Any] = {"group": GROUP, "kind": RESOURCE}
        if self.name:
            details["name"] = self.name
        if self.retry_after_s:
            details["retryAfterSeconds"] = self.retry_after_s
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def not_found(name: str, hint: str) -> Refusal:
    """No report of that name."""
    message = f'{RESOURCE}.{GROUP} "{name}" not found: {hint}'
    return Refusal(code=404, reason="NotFound", message=message, name=name)


def no_such_path(path: str) -> Refusal:
    """Nothing is served there."""
    return Refusal(code=404, reason="NotFound", message=f"the server could not find the requested resource: {path}")


def not_allowed(verb: str) -> Refusal:
    """Reports are read: they come from measurements."""
    message = f"{verb} is not supported on {RESOURCE}.{GROUP}: reports can be read (get, list), nothing else"
    return Refusal(code=405, reason="MethodNotAllowed", message=message)


def unauthorized(why: str) -> Refusal:
    """Nobody we know."""
    return Refusal(code=401, reason="Unauthorized", message=f"Unauthorized: {why}")


def forbidden(*, user: str, verb: str, namespace: str, name: str, why: str) -> Refusal:
    """Somebody who may not."""
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    what = f'{RESOURCE}.{GROUP} "{name}"' if name else f"{RESOURCE}.{GROUP}"
    message = (
        f'{what} is forbidden: User "{user}" cannot {verb} resource "{RESOURCE}" in API group "{GROUP}" {where}'
        + (f": {why}" if why else "")
    )
    return Refusal(code=403, reason="Forbidden", message=message, name=name)


def bad_request(message: str) -> Refusal:
    """A parameter that means nothing here."""
    return Refusal(code=400, reason="BadRequest", message=message)


def ambiguous(name: str, names: list[str]) -> Refusal:
    """A bare name that tasks of several kinds bear."""
    message = f'{RESOURCE}.{GROUP} "{name}" is the name of several tasks: ask for one of {", ".join(names)}'
    return Refusal(code=409, reason="Conflict", message=message, name=name)


def not_acceptable(accept: str) -> Refusal:
    """No form that the caller takes."""
    message = f"Accept: found {accept!r}, served are application/json, application/yaml and as=Table of them"
    return Refusal(code=406, reason="NotAcceptable", message=message)


def away(why: str) -> Refusal:
    """What holds the reports cannot be asked now."""
    return Refusal(code=503, reason="ServiceUnavailable", message=f"reports cannot be read now: {why}", retry_after_s=5)
