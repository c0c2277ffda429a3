"""Members of a group: who still lives, and whose last word counts."""

from plan2_sidecar.registry.members import Member, aged, merged


def member(name: str, left_ms: int, ttl_ms: int = 30_000, body: bytes | None = b"{}") -> Member:
    return Member(name, body, left_ms, ttl_ms)


def names(members: list[Member]) -> list[str]:
    return [one.name for one in members]


def test_a_member_lives_until_its_ttl_is_over() -> None:
    members = [member("long", 20_000), member("short", 5000)]

    assert names(aged(members, 4999)) == ["long", "short"]
    assert names(aged(members, 5000)) == ["long"]
    assert aged(members, 4000)[0].left_ms == 16_000


def test_for_want_of_anything_newer_a_member_lives_ten_times_its_ttl() -> None:
    members = [member("a", 30_000)]

    assert names(aged(members, 299_999, 10)) == ["a"]
    assert aged(members, 300_000, 10) == []


def test_of_two_words_the_last_one_counts_whatever_its_ttl() -> None:
    # Heard 29 s ago, and 1 s ago with a shorter ttl.
    older = member("a", 1000, 30_000, b"old")
    newer = member("a", 4000, 5000, b"new")

    assert [one.body for one in merged([older], [newer])] == [b"new"]
    assert [one.body for one in merged([newer], [older])] == [b"new"]


def test_a_member_that_was_dropped_stays_away_until_it_is_heard_again() -> None:
    heard = member("a", 20_000)
    dropped = member("a", 599_000, 600_000, None)
    again = member("a", 29_900)

    assert merged([heard], [dropped]) == []
    assert merged([heard], [dropped], [again]) == [again]


def test_members_are_sorted_by_name() -> None:
    assert names(merged([member("b", 1)], [member("a", 1)])) == ["a", "b"]
