"""A subset of AQL: parsed to closures, run over a store session.

FOR … IN (array, collection, subquery, `1..3 OUTBOUND start edges`), FILTER, SORT, LIMIT, LET,
COLLECT [a = …] [WITH COUNT INTO n | INTO group | AGGREGATE …], INSERT, UPDATE, REPLACE, REMOVE,
UPSERT with OPTIONS, OLD and NEW, RETURN [DISTINCT]; expressions with the usual operators, `?:`,
`??`, arrays, objects, `[*]`, subqueries, bind parameters. Everything else is errorNum 1501.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import aql_values as values
from aql_expressions import KEYWORDS, Expressions, tokens
from aql_run import Env, Expression, Run, Write
from aql_run import walk as walk_edges
from failure import Failure
from store import EDGE

_WRITES = frozenset(("INSERT", "UPDATE", "REPLACE", "REMOVE", "UPSERT"))
Step = Callable[[Iterable[Env]], Iterable[Env]]


@dataclass(frozen=True)
class Query:
    """Parsed; `rows` runs it."""

    rows: Callable[[], list[Any]]
    writes: bool


def writes(text: str) -> bool:
    """Whether it changes documents, by its words."""
    return any(kind == "word" and word.upper() in _WRITES for kind, word, _ in tokens(text))


def parse(text: str, run: Run) -> Query:
    """1501 for what is not in the subset, 1551 and 1552 for bind parameters."""
    words = tokens(text)
    parser = Parser(words, run)
    pipeline = parser.query()
    parser.end()
    unused = [name for name in run.bind if name not in run.used]
    if unused:
        raise Failure(1552, f"'{unused[0]}'")
    return Query(
        rows=lambda: list(pipeline({})),
        writes=any(kind == "word" and word.upper() in _WRITES for kind, word, _ in words),
    )


class Parser(Expressions):
    """A query's operations, in the order they stand."""

    def query(self) -> Callable[[Env], Iterator[Any]]:
        """Operations up to RETURN, or to a writing operation that returns nothing."""
        steps: list[Step] = []
        wrote = False
        while True:
            match self._peek():
                case "FOR":
                    steps.append(self._for())
                case "FILTER":
                    steps.append(self._filter())
                case "LET":
                    steps.append(self._let())
                case "SORT":
                    steps.append(self._sort())
                case "LIMIT":
                    steps.append(self._limit())
                case "COLLECT":
                    steps.append(self._collect())
                case "INSERT" | "UPDATE" | "REPLACE" | "REMOVE" | "UPSERT":
                    steps.append(self._write())
                    wrote = True
                case "RETURN":
                    return self._return(steps)
                case _ if wrote:
                    return lambda env: iter([row for row in _flow(steps, env) if False])
                case _:
                    raise self._unexpected()

    def _return(self, steps: list[Step]) -> Callable[[Env], Iterator[Any]]:
        self._expect("RETURN")
        distinct = self._skip("DISTINCT")
        expression = self.expression()

        def rows(env: Env) -> Iterator[Any]:
            seen: list[Any] = []
            for row in _flow(steps, env):
                value = expression(row)
                if distinct and value in seen:
                    continue
                if distinct:
                    seen.append(value)
                yield value

        return rows

    def _for(self) -> Step:
        self._expect("FOR")
        names = [self._name()]
        while self._skip(","):
            names.append(self._name())
        self._expect("IN")
        source = self._traversal() if self._is_traversal() else self._source(len(names))
        run = self._run

        def step(envs: Iterable[Env]) -> Iterator[Env]:
            for env in envs:
                for row in source(env):
                    run.tick()
                    yield env | dict(zip(names, row, strict=False))

        return step

    def _source(self, variables: int) -> Callable[[Env], Iterable[tuple[Any, ...]]]:
        if variables != 1:
            raise self._unexpected()
        expression = self.expression()
        return lambda env: ((item,) for item in expression(env) or [])

    def _is_traversal(self) -> bool:
        words = ("OUTBOUND", "INBOUND", "ANY")
        return self._peek() in words or (
            self._kind() == "number"
            and (self._peek(1) in words or (self._peek(1) == ".." and self._peek(3) in words))
        )

    def _traversal(self) -> Callable[[Env], Iterable[tuple[Any, ...]]]:
        low = high = 1
        if self._kind() == "number":
            low = high = int(self._take())
            if self._skip(".."):
                high = int(self._take())
        direction = self._take()
        start = self.expression()
        edges = [self._collection()]
        while self._skip(","):
            edges.append(self._collection())
        run = self._run

        def walk(env: Env) -> Iterator[tuple[Any, ...]]:
            begin = start(env)
            first = begin.get("_id") if isinstance(begin, dict) else begin
            names = [edge(env) for edge in edges]
            for name in names:
                run.may_read(name)
                if run.session.collection(run.db, name)["type"] != EDGE:
                    raise Failure(1218)
            yield from walk_edges(run, str(first), names, direction, low, high)

        return walk

    def _filter(self) -> Step:
        self._expect("FILTER")
        condition = self.expression()
        return lambda envs: (env for env in envs if values.truth(condition(env)))

    def _let(self) -> Step:
        self._expect("LET")
        name = self._name()
        self._expect("=")
        expression = self.expression()
        return lambda envs: (env | {name: expression(env)} for env in envs)

    def _sort(self) -> Step:
        self._expect("SORT")
        keys: list[tuple[Expression, bool]] = []
        while not keys or self._skip(","):
            expression = self.expression()
            descending = self._skip("DESC")
            keys.append((expression, descending or (self._skip("ASC") and False)))

        def step(envs: Iterable[Env]) -> list[Env]:
            rows = list(envs)
            for expression, descending in reversed(keys):
                rows.sort(key=lambda env: values.order(expression(env)), reverse=descending)
            return rows

        return step

    def _limit(self) -> Step:
        self._expect("LIMIT")
        first = self.expression()
        second = self.expression() if self._skip(",") else None
        offset = int(values.number(first({}))) if second else 0
        asked = (second or first)({})
        # LIMIT n, null is the idiom for no limit.
        count = sys.maxsize if asked is None else int(values.number(asked))
        return lambda envs: _slice(envs, offset, count)

    def _collect(self) -> Step:
        self._expect("COLLECT")
        groups: list[tuple[str, Expression]] = []
        while self._kind() == "word" and self._peek() not in KEYWORDS:
            name = self._name()
            self._expect("=")
            groups.append((name, self.expression()))
            self._skip(",")
        aggregates = self._aggregates()
        counted = into = ""
        if self._skip("WITH"):
            if self._name().upper() != "COUNT":
                raise self._unexpected()
            self._expect("INTO")
            counted = self._name()
        elif self._skip("INTO"):
            into = self._name()

        def step(envs: Iterable[Env]) -> Iterator[Env]:
            found: dict[str, tuple[list[Any], list[Env]]] = {}
            for env in envs:
                key = [expression(env) for _, expression in groups]
                found.setdefault(values.text(key), (key, []))[1].append(env)
            if not groups and not found:
                found[""] = ([], [])
            for key, rows in sorted(found.values(), key=lambda item: values.order(item[0])):
                env = dict(zip((name for name, _ in groups), key, strict=True))
                for name, function, expression in aggregates:
                    env[name] = values.call(function, [[expression(row) for row in rows]])
                yield (
                    env | ({counted: len(rows)} if counted else {}) | ({into: rows} if into else {})
                )

        return step

    def _aggregates(self) -> list[tuple[str, str, Expression]]:
        found: list[tuple[str, str, Expression]] = []
        if self._skip("AGGREGATE"):
            while not found or self._skip(","):
                name = self._name()
                self._expect("=")
                function = self._name()
                self._expect("(")
                argument: Expression = (lambda env: 1) if self._peek() == ")" else self.expression()
                self._expect(")")
                found.append((name, function, argument))
        return found

    # -- writing -------------------------------------------------------------------------------

    def _write(self) -> Step:
        verb = self._take()
        self._in_names_collection = True
        first = self.expression()
        second: Expression | None = None
        third: Expression | None = None
        replaces = verb == "REPLACE"
        if verb == "UPSERT":
            self._expect("INSERT")
            second = self.expression()
            replaces = self._peek() == "REPLACE"
            if not (self._skip("UPDATE") or self._skip("REPLACE")):
                raise self._unexpected()
            third = self.expression()
        elif verb in ("UPDATE", "REPLACE") and self._skip("WITH"):
            second = self.expression()
        self._in_names_collection = False
        if not (self._skip("INTO") or self._skip("IN")):
            raise self._unexpected()
        collection = self._collection()
        self._run.read.discard(written := collection({}))
        self._run.written.add(written)
        options = self._options()
        write = Write(self._run, verb, replaces, first, second, third, options)

        def step(envs: Iterable[Env]) -> list[Env]:
            rows = list(envs)
            return [env | write.one(env, collection(env)) for env in rows]

        return step

    def _options(self) -> Expression:
        if self._kind() == "word" and self._peek().upper() == "OPTIONS":
            self._take()
            return self.expression()
        return lambda env: {}

    def _collection(self) -> Callable[[Env], str]:
        """A collection by name or by `@@bind`."""
        name = str(self._bound(self._take())) if self._kind() == "bind" else self._name()
        self._run.session.collection(self._run.db, name)
        self._run.read.add(name)
        return lambda env: name


def _flow(steps: list[Step], env: Env) -> Iterable[Env]:
    rows: Iterable[Env] = [env]
    for step in steps:
        rows = step(rows)
    return rows


def _slice(envs: Iterable[Env], offset: int, count: int) -> Iterator[Env]:
    for place, env in enumerate(envs):
        if place >= offset + count:
            return
        if place >= offset:
            yield env
