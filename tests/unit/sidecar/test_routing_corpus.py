"""Routing against a labelled corpus: no write goes astray, and few reads do.

`routing_corpus.jsonl` has one statement a line: the engine it is for or "ambiguous", whether it
reads or writes, the statement. The labels are what the languages and the catalogue below say,
not what the code does.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from plan2_contract.engines import Engine
from plan2_sidecar import routing
from plan2_sidecar.errors import AmbiguousRoute
from plan2_sidecar.query import Text
from plan2_sidecar.routing import Catalog, Tables

AMBIGUOUS = "ambiguous"
CORPUS = Path(__file__).with_name("routing_corpus.jsonl")


def tables(here: str, elsewhere: str = "", home: str = "public") -> Tables:
    names = {(name,) for name in here.split()} | {(home, name) for name in here.split()}
    return Tables(frozenset(names | {tuple(name.split(".")) for name in elsewhere.split()}))


# Both have `events`; nobody has `nowhere`.
CATALOG = Catalog(
    MappingProxyType(
        {
            Engine.POSTGRESQL: tables(
                "accounts users orders order_items payments settings events",
                "billing.invoices pg_catalog.pg_class information_schema.tables",
            ),
            Engine.CLICKHOUSE: tables(
                "trades ticks metrics logs api_requests events",
                "analytics.page_views system.tables system.columns information_schema.tables",
                home="default",
            ),
        }
    )
)


@dataclass(frozen=True)
class Labelled:
    """A statement, where it belongs and what it does; and what routing made of it."""

    to: str
    write: bool
    query: Text
    routed: str
    called_write: bool

    @property
    def is_right(self) -> bool:
        return self.to == self.routed

    @property
    def is_astray(self) -> bool:
        """At an engine it is not for; a question back is no harm."""
        return self.routed not in (self.to, AMBIGUOUS)


def judged(to: str, kind: str, query: Text, catalog: Catalog) -> Labelled:
    try:
        route = routing.choose(query, None, None, catalog)
    except AmbiguousRoute as ambiguous:
        engines = [Engine(name) for name in ambiguous.members["candidates"]]
        called_write = any(routing.writes(engine, query) for engine in engines)
        return Labelled(to, kind == "write", query, AMBIGUOUS, called_write)
    return Labelled(to, kind == "write", query, route.engine.value, route.write)


def corpus(catalog: Catalog = CATALOG) -> list[Labelled]:
    lines = CORPUS.read_text().splitlines()
    return [judged(*json.loads(line), catalog=catalog) for line in lines]


@pytest.fixture(scope="module")
def statements() -> list[Labelled]:
    return corpus()


def test_the_corpus_is_large_and_of_every_kind(statements: list[Labelled]) -> None:
    kinds = Counter((one.to, one.write) for one in statements)
    engines = {engine.value for engine in Engine if engine is not Engine.REDIS} | {AMBIGUOUS}

    assert len(statements) >= 300
    assert len({json.dumps(one.query) for one in statements}) == len(statements)
    assert set(kinds) == {(to, write) for to in engines for write in (True, False)}


def test_no_write_goes_astray_and_the_rest_is_right(statements: list[Labelled]) -> None:
    reads = [one for one in statements if not one.write]
    writes = [one for one in statements if one.write]
    right_reads = sum(one.is_right for one in reads)
    right_writes = sum(one.is_right for one in writes)
    print(f"{len(statements)} statements; reads {right_reads} of {len(reads)} right; writes ")
    print(f"{right_writes} of {len(writes)} right, {sum(one.is_astray for one in writes)} astray")
    print("\n".join(str(one) for one in statements if not one.is_right))

    assert [one for one in writes if one.is_astray] == []
    assert right_reads >= 0.98 * len(reads)
    assert right_writes >= 0.98 * len(writes)


def test_no_write_is_called_a_read(statements: list[Labelled]) -> None:
    reads = [one for one in statements if not one.write]

    assert [one for one in statements if one.write and not one.called_write] == []
    assert sum(one.called_write for one in reads) <= 0.02 * len(reads)


@pytest.mark.parametrize(
    "known", [(), (Engine.POSTGRESQL,), (Engine.CLICKHOUSE,)], ids=["none", "one", "the-other"]
)
def test_no_write_goes_astray_while_tables_are_not_known(known: tuple[Engine, ...]) -> None:
    catalog = Catalog(
        MappingProxyType(
            {
                engine: CATALOG.tables[engine] if engine in known else None
                for engine in CATALOG.tables
            }
        )
    )

    meant = [one for one in corpus(catalog) if one.write and one.to != AMBIGUOUS]
    assert [one for one in meant if one.is_astray] == []


DRESSED = {
    "a comment ahead": lambda text: f"/* FOR u IN users RETURN $1 */ {text}",
    "a line comment ahead": lambda text: f"-- INSERT INTO trades FORMAT CSV\n{text}",
    "a comment behind": lambda text: f"{text}\n/* PREWHERE {{a:UInt8}} RETURNING FROM accounts */",
    "line feeds": lambda text: text.replace(" FROM ", "\n\tFROM\n").replace(" INTO ", "\nINTO\n"),
    "a semicolon": lambda text: f"{text} ;",
}


@pytest.mark.parametrize("dress", DRESSED.values(), ids=DRESSED.keys())
def test_what_is_no_part_of_a_statement_changes_no_route(
    statements: list[Labelled], dress: Callable[[str], str]
) -> None:
    languages = {Engine.POSTGRESQL, Engine.CLICKHOUSE, Engine.ARANGODB}
    if dress("").startswith("--"):
        languages.remove(Engine.ARANGODB)  # a minus, twice
    plain = [one for one in statements if one.to in languages and isinstance(one.query, str)]
    kinds = {True: "write", False: "read"}

    dressed = [judged(one.to, kinds[one.write], dress(str(one.query)), CATALOG) for one in plain]

    astray = [one for one in dressed if one.is_astray]
    lost = [
        after for before, after in zip(plain, dressed, strict=True) if before.routed != after.routed
    ]
    print(len(lost), *lost, sep="\n")
    assert [one for one in astray if one.write] == []
    assert len(lost) <= 0.02 * len(plain)
    assert [one for one in dressed if one.write and not one.called_write] == []
