"""Commands written out by hand are what hiredis would write."""

import hiredis
import pytest

from plan2_sidecar.cache import words


def test_reading_is_get_and_pttl() -> None:
    written = words.reading("p2:c:ü".encode())

    name = "p2:c:ü".encode()
    assert written == hiredis.pack_command(("GET", name)) + hiredis.pack_command(("PTTL", name))


@pytest.mark.parametrize("ttl_seconds", [None, 1, 31_536_000])
def test_setting_is_set(ttl_seconds: int | None) -> None:
    written = words.setting(b"p2:c:k", b'"v"\r\n', ttl_seconds)

    ends = () if ttl_seconds is None else ("EX", ttl_seconds)
    assert written == hiredis.pack_command(("SET", b"p2:c:k", b'"v"\r\n', *ends))
