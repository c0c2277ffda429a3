"""AQL's words and expressions: parsed to closures over a row's variables."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import aql_values as values
from aql_run import Env, Expression, Run
from failure import Failure

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<number>\d+(?:\.(?!\.)\d+)?(?:[eE][+-]?\d+)?)
    |(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<quoted>`[^`]+`)
    |(?P<bind>@@?[A-Za-z0-9_]+)
    |(?P<word>[A-Za-z_$][A-Za-z0-9_]*)
    |(?P<mark>==|!=|<=|>=|=~|!~|&&|\|\||\?\?|\.\.|::|[-+*/%<>=!?:,.()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = """
    FOR IN FILTER SORT LIMIT LET COLLECT INSERT UPDATE REPLACE REMOVE UPSERT RETURN
    DISTINCT INTO WITH ASC DESC AND OR NOT NULL TRUE FALSE OUTBOUND INBOUND ANY GRAPH
    AGGREGATE LIKE
"""
KEYWORDS = frozenset(_WORDS.split())


def tokens(text: str) -> list[tuple[str, str, int]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise syntax(text[at : at + 10], at)
        if match.lastgroup != "space":
            found.append((str(match.lastgroup), match.group(), at))
        at = match.end()
    return found


def syntax(near: str, at: int) -> Failure:
    return Failure(1501, f"unexpected input near '{near}' at position 1:{at + 1}")


class Expressions:
    """Recursive descent; each method returns what runs, not a tree. `query` is the subclass's."""

    def __init__(self, words: list[tuple[str, str, int]], run: Run) -> None:
        self._tokens = words
        self._at = 0
        self._run = run
        # Set while IN names a collection (`REMOVE d IN c`) and is no operator.
        self._in_names_collection = False

    def query(self) -> Callable[[Env], Iterator[Any]]:
        """Operations up to their RETURN: a subquery, here."""
        raise self._unexpected()

    # -- words ---------------------------------------------------------------------------------

    def _peek(self, offset: int = 0) -> str:
        if self._at + offset >= len(self._tokens):
            return ""
        kind, word, _ = self._tokens[self._at + offset]
        return word.upper() if kind == "word" and word.upper() in KEYWORDS else word

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        word = self._peek()
        self._at += 1
        return word

    def _skip(self, *words: str) -> bool:
        if [self._peek(i) for i in range(len(words))] != list(words):
            return False
        self._at += len(words)
        return True

    def _expect(self, word: str) -> None:
        if not self._skip(word):
            raise self._unexpected()

    def _unexpected(self) -> Failure:
        if self._at >= len(self._tokens):
            return Failure(1501, "unexpected end of query string")
        _, word, at = self._tokens[self._at]
        return syntax(word, at)

    def _name(self) -> str:
        if self._kind() not in ("word", "quoted") or self._peek() in KEYWORDS:
            raise self._unexpected()
        return self._take().strip("`")

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._unexpected()

    def _bound(self, word: str) -> Any:
        name = word[1:]
        if name not in self._run.bind:
            raise Failure(1551, f"'{name}'")
        self._run.used.add(name)
        return self._run.bind[name]

    # -- expressions ---------------------------------------------------------------------------

    def expression(self) -> Expression:
        condition = self._binary(0)
        if self._skip("?"):
            if self._skip(":"):
                other = self.expression()
                return lambda env: v if values.truth(v := condition(env)) else other(env)
            then = self.expression()
            self._expect(":")
            other = self.expression()
            return lambda env: then(env) if values.truth(condition(env)) else other(env)
        return condition

    def _binary(self, level: int) -> Expression:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while True:
            negated = self._peek() == "NOT" and self._peek(1) in ("IN", "LIKE")
            word = self._peek(1) if negated else self._peek()
            operator = _LEVELS[level].get(word)
            if operator is None or (word == "IN" and self._in_names_collection):
                return left
            self._at += 2 if negated else 1
            left = _applied(operator, left, self._binary(level + 1), negated)

    def _unary(self) -> Expression:
        if self._skip("!") or self._skip("NOT"):
            operand = self._unary()
            return lambda env: not values.truth(operand(env))
        if self._skip("-"):
            operand = self._unary()
            return lambda env: -values.number(operand(env))
        self._skip("+")
        return self._postfix(self._primary())

    def _postfix(self, value: Expression) -> Expression:
        while True:
            if self._skip("."):
                if self._kind() == "bind":
                    name = str(self._bound(self._take()))
                else:
                    name = self._tokens[self._at][1].strip("`") if self._kind() else ""
                    if self._kind() not in ("word", "quoted"):
                        raise self._unexpected()
                    self._at += 1
                value = _attribute(value, name)
            elif self._skip("[", "*", "]"):
                rest = self._postfix(lambda env: env["$each"])
                return _each(value, rest)
            elif self._skip("["):
                index = self.expression()
                self._expect("]")
                value = _element(value, index)
            else:
                return value

    def _primary(self) -> Expression:
        outer, self._in_names_collection = self._in_names_collection, False
        try:
            return self._simple()
        finally:
            self._in_names_collection = outer

    def _simple(self) -> Expression:
        kind, word = self._kind(), self._peek()
        if kind in ("number", "string", "bind"):
            self._at += 1
            return self._literal(kind, word)
        if self._skip("("):
            return self._parenthesis()
        if self._skip("["):
            return self._array()
        if self._skip("{"):
            return self._object()
        if word in ("NULL", "TRUE", "FALSE"):
            self._at += 1
            constant = {"NULL": None, "TRUE": True, "FALSE": False}[word]
            return lambda env: constant
        return self._called_or_named()

    def _literal(self, kind: str, word: str) -> Expression:
        if kind == "bind" and word.startswith("@@"):
            return self._variable_or_collection(str(self._bound(word)[:]), bound="@")
        if kind == "bind":
            value = self._bound(word)
        elif kind == "string":
            value = re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), word[1:-1])
        else:
            value = float(word) if set(word) & set(".eE") else int(word)
        return lambda env: value

    def _parenthesis(self) -> Expression:
        if self._peek() in ("FOR", "RETURN", "LET"):
            inner = self.query()
            self._expect(")")
            return lambda env: list(inner(env))
        value = self.expression()
        self._expect(")")
        return value

    def _array(self) -> Expression:
        items: list[Expression] = []
        while not self._skip("]"):
            items.append(self.expression())
            if not self._skip(","):
                self._expect("]")
                break
        return lambda env: [item(env) for item in items]

    def _object(self) -> Expression:
        pairs: list[tuple[Expression, Expression]] = []
        while not self._skip("}"):
            pairs.append(self._pair())
            if not self._skip(","):
                self._expect("}")
                break
        return lambda env: {values.text(key(env)): value(env) for key, value in pairs}

    def _pair(self) -> tuple[Expression, Expression]:
        kind = self._kind()
        if kind == "string" or kind == "bind":
            word = self._take()
            key = self._literal(kind, word)
        elif self._skip("["):
            key = self.expression()
            self._expect("]")
        else:
            name = self._tokens[self._at][1].strip("`") if kind in ("word", "quoted") else ""
            if not name:
                raise self._unexpected()
            self._at += 1
            if self._peek() != ":":
                return (lambda env: name), self._variable_or_collection(name)
            key = lambda env: name  # noqa: E731 - a closure like its siblings
        self._expect(":")
        return key, self.expression()

    def _called_or_named(self) -> Expression:
        name = self._name()
        if not self._skip("("):
            return self._variable_or_collection(name)
        arguments: list[Expression] = []
        while not self._skip(")"):
            arguments.append(self._argument())
            if not self._skip(","):
                self._expect(")")
                break
        if name.upper() == "DOCUMENT":
            return lambda env: self._document([argument(env) for argument in arguments])
        if name.upper() not in values.FUNCTIONS:
            raise Failure(1540, f"'{name}()'")
        if name.upper() == "SLEEP":
            return self._sleep(arguments[0])
        return lambda env: values.call(name, [argument(env) for argument in arguments])

    def _argument(self) -> Expression:
        if self._peek() not in ("FOR", "RETURN", "LET"):
            return self.expression()
        inner = self.query()
        return lambda env: list(inner(env))

    def _sleep(self, seconds: Expression) -> Expression:
        run = self._run

        def nap(env: Env) -> None:
            end = time.monotonic() + float(values.number(seconds(env)))
            while (left := end - time.monotonic()) > 0:
                run.tick()
                time.sleep(min(left, 0.02))

        return nap

    def _document(self, arguments: list[Any]) -> Any:
        identity = "/".join(arguments) if len(arguments) == 2 else arguments[0]
        if isinstance(identity, list):
            found = [self._document([item]) for item in identity]
            return [document for document in found if document is not None]
        collection, _, key = str(identity).partition("/")
        self._run.may_read(collection)
        return self._run.session.find(self._run.db, collection, key)

    def _variable_or_collection(self, name: str, bound: str = "") -> Expression:
        run = self._run
        run.read.add(name)

        def value(env: Env) -> Any:
            if not bound and name in env:
                return env[name]
            run.may_read(name)
            return list(run.session.documents(run.db, name))

        return value


def _attribute(value: Expression, name: str) -> Expression:
    return lambda env: values.attribute(value(env), name)


def _element(value: Expression, index: Expression) -> Expression:
    return lambda env: values.element(value(env), index(env))


def _each(value: Expression, rest: Expression) -> Expression:
    return lambda env: [rest(env | {"$each": item}) for item in value(env) or []]


def _applied(
    operator: Callable[[Any, Any], Any], left: Expression, right: Expression, negated: bool
) -> Expression:
    if operator is _and:
        return lambda env: right(env) if values.truth(v := left(env)) else v
    if operator is _or:
        return lambda env: v if values.truth(v := left(env)) else right(env)
    if negated:
        return lambda env: not operator(left(env), right(env))
    return lambda env: operator(left(env), right(env))


def _and(left: Any, right: Any) -> Any:
    return right if values.truth(left) else left


def _or(left: Any, right: Any) -> Any:
    return left if values.truth(left) else right


def _like(value: Any, pattern: Any) -> bool:
    parts = [re.escape(part) for part in re.split(r"([%_])", values.text(pattern))]
    regex = "".join({"%": ".*", "_": "."}.get(part, part) for part in parts)
    return re.fullmatch(regex, values.text(value), re.DOTALL) is not None


_LEVELS: list[dict[str, Callable[[Any, Any], Any]]] = [
    {"||": _or, "OR": _or},
    {"&&": _and, "AND": _and},
    {"??": lambda a, b: b if a is None else a},
    {
        "==": lambda a, b: values.order(a) == values.order(b),
        "!=": lambda a, b: values.order(a) != values.order(b),
        "=~": lambda a, b: re.search(values.text(b), values.text(a)) is not None,
        "!~": lambda a, b: re.search(values.text(b), values.text(a)) is None,
        "LIKE": _like,
    },
    {
        "<": lambda a, b: values.order(a) < values.order(b),
        "<=": lambda a, b: values.order(a) <= values.order(b),
        ">": lambda a, b: values.order(a) > values.order(b),
        ">=": lambda a, b: values.order(a) >= values.order(b),
        "IN": lambda a, b: any(values.order(a) == values.order(item) for item in b or []),
    },
    {"..": lambda a, b: list(range(int(a), int(b) + 1))},
    {
        "+": lambda a, b: values.number(a) + values.number(b),
        "-": lambda a, b: values.number(a) - values.number(b),
    },
    {
        "*": lambda a, b: values.number(a) * values.number(b),
        "/": values.divide,
        "%": lambda a, b: values.number(a) % values.number(b) if values.number(b) else None,
    },
]
