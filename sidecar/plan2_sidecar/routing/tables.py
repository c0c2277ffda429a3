"""The tables a statement names: what the catalogue is asked about.

Names of common table expressions, aliases, subqueries and table functions are no tables, nor is
what a statement creates. A name that is missed weakens the evidence and nothing else.
"""

from dataclasses import dataclass
from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar.routing.reading import Reading
from plan2_sidecar.routing.tokens import Kind, keywords

_ENDS_LIST: Final = keywords(
    """
    EXCEPT FETCH FOR FORMAT GROUP HAVING INTERSECT LIMIT OFFSET ORDER PREWHERE QUALIFY RETURNING
    SELECT SET SETTINGS UNION VALUES WHERE WINDOW
    """
)
_QUERIES: Final = keywords("SELECT WITH VALUES FROM TABLE INSERT UPDATE DELETE")
# FROM is a word of these functions: `extract(day FROM at)`.
_FROM_FUNCTIONS: Final = keywords("EXTRACT OVERLAY POSITION SUBSTRING TRIM")
_TARGETS: Final = keywords("TABLE VIEW")
_NOT_NAMES: Final = keywords("SELECT VALUES WITH SET ALL DATABASE SCHEMA SEQUENCE FUNCTION")


@dataclass(frozen=True, slots=True)
class Name:
    """One or more parts; `quoted` says of each whether it stands as it is."""

    parts: tuple[str, ...]
    quoted: tuple[bool, ...]

    def on(self, engine: Engine) -> tuple[str, ...]:
        """The parts as the engine looks them up: PostgreSQL folds what is not quoted."""
        if engine is not Engine.POSTGRESQL:
            return self.parts
        pairs = zip(self.parts, self.quoted, strict=True)
        return tuple(part if quoted else part.lower() for part, quoted in pairs)

    def __str__(self) -> str:
        return ".".join(self.parts)


def tables(found: Reading) -> frozenset[Name]:
    """The tables that the statement reads, writes, changes or drops."""
    start = _start(found)
    collector = _Collector(found)
    match found.word(start):
        case "ALTER" | "DROP" | "TRUNCATE":
            collector.target(start)
        case "CREATE":
            collector.created(start)
        case "GRANT" | "REVOKE":
            collector.after_on(start)
        case "SHOW" | "COPY" | "SET" | "BEGIN" | "COMMIT":
            pass
        case "TABLE":
            collector.name(start + 1)
        case _:
            collector.scan(start)
    return frozenset(collector.names)


def _start(found: Reading) -> int:
    """Where the statement begins, behind EXPLAIN and its options."""
    if found.word(0) != "EXPLAIN":
        return 0
    places = (at for at, word in enumerate(found.words) if word in _QUERIES - {"TABLE", "FROM"})
    return next(places, len(found))


class _Collector:
    """Walks over one reading and keeps the names it finds in `names`."""

    def __init__(self, found: Reading) -> None:
        self.names: set[Name] = set()
        self._found = found
        self._own = _common_names(found)

    def name(self, at: int, *, callable_too: bool = True) -> int:
        """Keep the dotted name at `at`; the place behind it, `at` when there is none.

        Without `callable_too` one that is called, `numbers(10)`, is a table function and left out.
        """
        found = self._found
        at_end, parts, quoted = at, [], []
        while found.is_name(at_end):
            token = found.tokens[at_end]
            is_quoted = token.kind is Kind.QUOTED
            parts.append(token.text[1:-1].replace('""', '"') if is_quoted else token.text)
            quoted.append(is_quoted)
            at_end += 1
            if found.word(at_end) != "." or not found.is_name(at_end + 1):
                break
            at_end += 1
        following = found.word(at_end)
        if not parts or following == "." or (following == "(" and not callable_too):
            return at_end
        if len(parts) > 1 or parts[0].lower() not in self._own:
            self.names.add(Name(tuple(parts), tuple(quoted)))
        return at_end

    def target(self, start: int) -> None:
        """`DROP TABLE IF EXISTS a, b`, and what follows FROM further on."""
        found = self._found
        at = start + 1
        kinds = {"TEMPORARY", "FOREIGN", "MATERIALIZED"}
        while found.word(at) in kinds:
            at += 1
        listed = found.word(at) in _TARGETS
        if not listed and found.word(start) == "TRUNCATE" and found.word(at) not in _NOT_NAMES:
            listed, at = True, at - 1
        if not listed:
            self.after_on(start)
            return
        at += 1
        at = at + 2 if (found.word(at), found.word(at + 1)) == ("IF", "EXISTS") else at
        at = at + 1 if found.word(at) == "ONLY" else at
        at = self.name(at)
        while found.word(at) == "," and found.word(start) != "ALTER":
            at = self.name(at + 1)
        self.scan(at)

    def created(self, start: int) -> None:
        """What a definition reads; the name it gives is none of ours."""
        found = self._found
        opening = found.words[start : start + 4]
        if {"INDEX", "TRIGGER", "POLICY"} & set(opening):
            self.after_on(start)
            return
        at = next((at for at in found.places("AS") if not found.depth[at]), len(found))
        if found.is_name(at + 1) and found.word(at + 1) not in _QUERIES:
            self.name(at + 1)  # ClickHouse: CREATE TABLE a AS b
        self.scan(at)

    def after_on(self, start: int) -> None:
        """`GRANT … ON t`, `CREATE INDEX … ON t`."""
        found = self._found
        at = next((at for at in found.places("ON") if at > start), len(found)) + 1
        while found.word(at) in {"TABLE", "ONLY"}:
            at += 1
        if found.word(at) in _NOT_NAMES or found.word(at) == "CLUSTER":
            return
        at = self.name(at)
        while found.word(at) == ",":
            at = self.name(at + 1)

    def scan(self, start: int) -> None:
        """Whatever stands behind FROM, JOIN, INTO, UPDATE and USING from `start` on."""
        found = self._found
        lists: list[bool] = [False] * (max(found.depth, default=0) + 2)
        at = start
        while at < len(found):
            word, depth = found.word(at), found.depth[at]
            if self._introduces(at):
                lists[depth] = word != "INTO"
                at = self._item(at + 1, lists)
            elif word == "," and lists[depth]:
                at = self._item(at + 1, lists)
            else:
                if word == "(":
                    lists[depth + 1] = False
                elif word in _ENDS_LIST or (word == "ARRAY" and found.word(at + 1) == "JOIN"):
                    lists[depth] = False
                at += 1

    def _introduces(self, at: int) -> bool:
        """Whether the keyword there has a table behind it."""
        found = self._found
        word, ahead = found.word(at), found.word(at - 1)
        if found.kind(at) is not Kind.WORD or ahead == ".":
            return False
        match word:
            case "FROM":
                return not self._is_no_clause(at)
            case "JOIN":
                return ahead != "ARRAY"
            case "INTO":
                # SELECT … INTO makes its table; OUTFILE is no table.
                return ahead in {"INSERT", "MERGE", "OVERWRITE"}
            case "INSERT":
                return found.word(at + 1) != "INTO" and ahead in {"", "("} and found.is_name(at + 1)
            case "UPDATE":
                return ahead in {"", "("} or at == 0
            case "USING":
                return found.word(0) in {"DELETE", "MERGE"} and found.word(at + 1) != "("
            case _:
                return False

    def _is_no_clause(self, at: int) -> bool:
        """`IS DISTINCT FROM x`, `extract(day FROM x)`."""
        found = self._found
        if found.word(at - 1) == "DISTINCT" and found.word(at - 2) in {"IS", "NOT"}:
            return True
        opening = found.opening[at]
        return opening > 0 and found.word(opening - 1) in _FROM_FUNCTIONS

    def _item(self, at: int, lists: list[bool]) -> int:
        """One table of a list, kept; the place to go on from."""
        found = self._found
        into = found.word(at - 1) in {"INTO", "INSERT"}
        while True:
            following = found.word(at + 1)
            if found.word(at) in {"ONLY", "LATERAL"} or (into and found.word(at) == "TABLE"):
                at += 1
            elif found.word(at) == "(" and (
                following == "(" or (found.is_name(at + 1) and following not in _QUERIES)
            ):
                lists[found.depth[at] + 1] = True  # joins in brackets
                at += 1
            else:
                break
        if not found.is_name(at) or found.word(at) in _NOT_NAMES:
            return at
        return self.name(at, callable_too=into)


def _common_names(found: Reading) -> frozenset[str]:
    """The names that WITH gives, in small letters: they hide tables everywhere below."""
    names = set()
    for at in found.places("WITH"):
        place = at + 2 if found.word(at + 1) == "RECURSIVE" else at + 1
        while found.is_name(place):
            name = found.tokens[place].text.strip('"`').lower()
            place += 1
            if found.word(place) == "(":
                place = found.behind(place)
            if found.word(place) != "AS":
                break
            place += 1
            while found.word(place) in {"NOT", "MATERIALIZED"}:
                place += 1
            if found.word(place) != "(":
                break
            names.add(name)
            place = found.behind(place)
            if found.word(place) != ",":
                break
            place += 1
    return frozenset(names)
