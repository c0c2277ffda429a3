"""Which bootstrap statements are still to run."""

import pytest

from plan2_operator.provision.statements import fingerprints, first_pending


def journal(statements: list[str], ran: int | None = None) -> dict[int, str]:
    """What an engine has noted once the first `ran` of them have run."""
    return dict(enumerate(fingerprints(statements)[:ran]))


@pytest.mark.parametrize(
    ("before", "ran", "now", "expected"),
    [
        pytest.param([], 0, ["a", "b"], 0, id="nothing ran yet"),
        pytest.param(["a", "b"], 2, ["a", "b"], 2, id="all ran"),
        pytest.param(["a", "b"], 1, ["a", "b"], 1, id="the second failed"),
        pytest.param(["a", "b"], 1, ["a", "B"], 1, id="the second was mended"),
        pytest.param(["a", "b"], 2, ["a", "b", "c"], 2, id="one was appended"),
        pytest.param(["a", "b"], 2, ["x", "b"], 0, id="the first changed"),
        pytest.param(["a", "b"], 2, ["x", "a", "b"], 0, id="one was put in front"),
        pytest.param(["a", "b", "c"], 3, ["a"], 1, id="the list was cut"),
        pytest.param(["a"], 1, [" a\n"], 1, id="only white space changed"),
        pytest.param(["ab"], 1, ["a", "b"], 0, id="one was split"),
    ],
)
def test_a_run_begins_where_the_list_differs_from_what_ran(
    before: list[str], ran: int, now: list[str], expected: int
) -> None:
    assert first_pending(fingerprints(now), journal(before, ran)) == expected
