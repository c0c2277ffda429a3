"""SCRAM-SHA-256 verifiers as PostgreSQL stores them."""

import pytest

from plan2_operator.provision import scram

# Made by `CREATE ROLE r PASSWORD 'pencil'` in PostgreSQL 15.
STORED = (
    "SCRAM-SHA-256$4096:cbc7ju2FFLlbQ6SPewWigQ==$"
    "XqgYh9Fq3svGGX7KFG0Jqaoyzw/uwmLUBSSUXPlvMz0=:"
    "d2Xtiue4iz1RQpiwsbQ/MEIrd1b7MVLgdIzeaOvc4Qo="
)
STORED_UNICODE = (
    "SCRAM-SHA-256$4096:G3NjugQMSfOiM8lX1/y9CA==$"
    "j7bSRq/+W5khezG2uh86//WlLkrO9lj6aSRHDaJWZK8=:"
    "qPth/kW9Tzzo+ndZdSnuIFBrLyP/eqxi0oH3pFx7btY="
)


def test_a_verifier_made_by_the_server_matches_its_password_alone() -> None:
    assert scram.matches(STORED, "pencil")
    assert not scram.matches(STORED, "Pencil")


def test_a_password_is_prepared_as_the_server_prepares_it() -> None:
    # The server folds the ligature and the no-break space, and drops the soft hyphen.
    assert scram.matches(STORED_UNICODE, "\ufb01ne\u00a0one\u00ad")
    assert scram.matches(STORED_UNICODE, "fine one")


def test_two_verifiers_of_one_password_differ_and_both_match() -> None:
    first, second = scram.new_verifier("pencil"), scram.new_verifier("pencil")

    assert first != second
    assert scram.matches(first, "pencil")
    assert scram.matches(second, "pencil")


@pytest.mark.parametrize("stored", [None, "", "md5d41d8cd98f00b204e9800998ecf8427e", "pencil"])
def test_what_is_no_verifier_matches_nothing(stored: str | None) -> None:
    assert not scram.matches(stored, "pencil")


def test_what_cannot_be_prepared_is_used_as_it_is() -> None:
    assert scram.matches(scram.new_verifier("bell \u0007 é"), "bell \u0007 é")
