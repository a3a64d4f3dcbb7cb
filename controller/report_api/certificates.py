"""TLS of the report API: its own certificate from files, callers' by the aggregation layer's authority.

Both may change while it runs: each new connection takes the context that holds then.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Certificates:
    """The files of certificate and key, and the authority (PEM) that callers' certificates must be of."""

    certificate_file: Path
    key_file: Path
    ca_pem: str
    _seen: object = None
    _current: ssl.SSLContext | None = None

    def listening(self) -> ssl.SSLContext:
        """The context to listen with; every connection is handed to the present one. Raises OSError, ssl.SSLError."""
        self.refresh()
        outer = _context(self.certificate_file, self.key_file, self.ca_pem)

        def hand_over(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _outer: ssl.SSLContext) -> None:
            assert self._current is not None
            connection.context = self._current

        outer.sni_callback = hand_over
        return outer

    def refresh(self, ca_pem: str = "") -> bool:
        """Reads what changed; true when something did. With files that do not fit the old ones stay.

        Raises OSError, ssl.SSLError.
        """
        ca_pem = ca_pem or self.ca_pem
        seen = (ca_pem, _stamp(self.certificate_file), _stamp(self.key_file))
        if seen == self._seen:
            return False
        self._current = _context(self.certificate_file, self.key_file, ca_pem)
        self.ca_pem, self._seen = ca_pem, seen
        return True


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _context(certificate_file: Path, key_file: Path, ca_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate_file, key_file)
    context.load_verify_locations(cadata=ca_pem)
    # Asked for, and checked when shown. Without one there is an answer: 401, in words.
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context
