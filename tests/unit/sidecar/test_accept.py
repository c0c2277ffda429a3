"""The Accept header: what the caller likes best of what is offered."""

import pytest

from plan2_sidecar.api.accept import acceptable
from plan2_sidecar.query import Form

OFFERED = (Form.JSON, Form.NDJSON, Form.ARROW)


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        ("", [Form.JSON, Form.NDJSON, Form.ARROW]),
        ("*/*", [Form.JSON, Form.NDJSON, Form.ARROW]),
        ("application/*", [Form.JSON, Form.NDJSON, Form.ARROW]),
        ("application/json", [Form.JSON]),
        ("Application/X-NDJSON; charset=utf-8", [Form.NDJSON]),
        ("application/x-ndjson, application/json;q=0.5", [Form.NDJSON, Form.JSON]),
        ("application/json;q=0.4, application/x-ndjson ; q = 0.9", [Form.NDJSON, Form.JSON]),
        ("*/*;q=0.1, application/vnd.apache.arrow.stream", [Form.ARROW, Form.JSON, Form.NDJSON]),
        ("*/*, application/json;q=0", [Form.NDJSON, Form.ARROW]),
        ("application/json;q=much", [Form.JSON]),
        ("text/html", []),
        ("application/json;q=0", []),
        (",,;", []),
    ],
)
def test_forms_come_in_the_order_the_caller_likes_them(accept: str, taken: list[Form]) -> None:
    assert acceptable(accept, OFFERED) == taken


def test_what_is_not_offered_is_not_taken() -> None:
    assert acceptable("application/x-ndjson", (Form.JSON,)) == []
