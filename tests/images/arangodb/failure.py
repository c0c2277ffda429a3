"""ArangoDB's errors: an HTTP status and an errorNum with its message."""

from typing import Any

MESSAGES = {
    10: (400, "bad parameter"),
    11: (403, "forbidden"),
    18: (409, "lock timeout"),
    400: (400, "bad parameter"),
    404: (404, "unknown path"),
    600: (400, "VPackError error: Expecting digit"),
    1004: (403, "read only"),
    1200: (409, "write-write conflict"),
    1202: (404, "document not found"),
    1203: (404, "collection or view not found"),
    1207: (409, "duplicate name"),
    1208: (400, "illegal name"),
    1210: (409, "unique constraint violated"),
    1212: (404, "index not found"),
    1218: (400, "unexpected type for collection"),
    1221: (400, "illegal document key"),
    1228: (404, "database not found"),
    1229: (403, "only usable in system database"),
    1233: (400, "edge attribute missing or invalid"),
    1500: (410, "query killed"),
    1501: (400, "syntax error"),
    1540: (400, "usage of unknown function"),
    1551: (400, "no value specified for declared bind parameter"),
    1552: (400, "bind parameter was not declared in the query"),
    1591: (404, "query not found"),
    1600: (404, "cursor not found"),
    1655: (404, "transaction not found"),
    1702: (409, "duplicate user"),
    1703: (404, "user not found"),
}


class Failure(Exception):
    """Refused; `number` is ArangoDB's errorNum."""

    def __init__(self, number: int, detail: str = "", status: int = 0) -> None:
        usual, message = MESSAGES[number]
        super().__init__(f"{message}: {detail}" if detail else message)
        self.number, self.status = number, status or usual

    def body(self) -> dict[str, Any]:
        """The JSON that the server sends."""
        return {
            "error": True,
            "code": self.status,
            "errorNum": self.number,
            "errorMessage": str(self),
        }


def unauthorised() -> Failure:
    """No login, a wrong one, or no right to the database at all."""
    failure = Failure(11, status=401)
    failure.args = ("not authorized to execute this request",)
    return failure
