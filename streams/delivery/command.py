"""A command: started once for each transition, with the record as JSON on its standard input.

Exit code 0 is delivered, 75 (EX_TEMPFAIL) and a timeout are tried again, any other is not.
"""

import asyncio
import contextlib
import json
import os
from dataclasses import dataclass

from streams.delivery.base import Doors, TryAgain, Undeliverable, idempotency_key, plain, state
from topics.alarms import AlarmRecord

TEMPORARY = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Program and arguments; no shell."""

    name: str
    command: tuple[str, ...]

    async def deliver(self, record: AlarmRecord, doors: Doors) -> None:
        """Run it to its end, or to its timeout."""
        env = {**os.environ, "KPATROL_ALARM_STATE": state(record), "KPATROL_ALARM_KEY": idempotency_key(record)}
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command, stdin=pipe, stdout=asyncio.subprocess.DEVNULL, stderr=pipe, env=env
            )
        except OSError as error:
            raise Undeliverable(f"{self.command[0]}: {error.strerror}") from error
        try:
            async with asyncio.timeout(doors.timeout_s):
                _, said = await process.communicate(json.dumps(plain(record), ensure_ascii=False).encode())
        except TimeoutError as error:
            raise TryAgain(f"{self.command[0]}: no end within {doors.timeout_s:g} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            text = f"{self.command[0]}: exit code {process.returncode}: {said.decode(errors='replace').strip()[-300:]}"
            raise TryAgain(text) if process.returncode == TEMPORARY else Undeliverable(text)
