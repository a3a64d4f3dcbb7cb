"""The pure half of the secrets made in a cluster; the calls are in tests/cluster/test_chart_release.py."""

import datetime

import pytest
from cryptography import x509

from controller.bootstrap import certificate, named, parse, passwords


def test_passwords_differ() -> None:
    made = passwords(["writer", "reader"])
    assert set(made) == {"writer", "reader"}
    assert len({made["writer"], made["reader"], passwords(["writer"])["writer"]}) == 3


def test_a_certificate_is_signed_by_its_authority_for_its_names() -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = certificate(["a.svc", "b.svc"], days=10, now=now)
    ca, server = x509.load_pem_x509_certificate(made["ca.crt"]), x509.load_pem_x509_certificate(made["tls.crt"])
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.svc", "b.svc"]
    assert server.not_valid_before_utc < now < server.not_valid_after_utc == now + datetime.timedelta(days=10)


def test_arguments_name_a_secret_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert named("s:a,b").words == ("a", "b")
    for bad in ("s", ":a", "s:"):
        with pytest.raises(SystemExit):
            parse([f"--passwords={bad}"])
        assert "expected NAME:word" in capsys.readouterr().err
