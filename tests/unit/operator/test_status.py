"""From facts to status: phases, kstatus conditions, times that move only when something flips."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plan2_contract.engines import SIX, Engine
from plan2_operator import status
from plan2_operator.errors import InvalidSpec
from plan2_operator.status import EngineFacts, Facts, Phase

NOW = datetime(2026, 11, 23, 5, 0, 0, tzinfo=UTC)
NOBODY = {"injected": 0, "outdated": 0, "missed": 0}


def body(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "demo", "generation": 7}, "spec": spec}


def facts(*others: EngineFacts, error: InvalidSpec | None = None, **more: Any) -> Facts:
    engines = {engine: EngineFacts(engine=engine, phase=Phase.READY) for engine in SIX}
    engines[Engine.REDIS] = EngineFacts(engine=Engine.REDIS, phase=Phase.DISABLED)
    engines |= {other.engine: other for other in others}
    sidecars = more.pop("sidecars", NOBODY)
    return Facts(engines=engines, sidecars=sidecars, error=error, **more)


def of(
    found: Facts,
    previous: dict[str, Any] | None = None,
    *,
    after: float = 0,
    **spec: Any,
) -> dict[str, Any]:
    return status.of(body(**spec), found, previous or {}, NOW + timedelta(seconds=after))


def condition(made: dict[str, Any], kind: str) -> tuple[str, str]:
    found = next(each for each in made["conditions"] if each["type"] == kind)
    return found["status"], found["reason"]


def message(made: dict[str, Any]) -> str:
    text: str = made["conditions"][0]["message"]
    return text


def failing(engine: Engine, **more: Any) -> EngineFacts:
    return EngineFacts(engine=engine, phase=Phase.FAILED, **more)


def starting(engine: Engine, phase: Phase = Phase.PROVISIONING) -> EngineFacts:
    return EngineFacts(engine=engine, phase=phase, reason="Starting", message="its pod is starting")


def test_every_enabled_engine_ready_is_ready() -> None:
    made = of(facts())

    assert (made["phase"], made["enginesReady"]) == ("Ready", "6/6")
    assert condition(made, "Ready") == ("True", "EnginesReady")
    assert condition(made, "Reconciling")[0] == "False"
    assert condition(made, "Stalled")[0] == "False"
    assert made["observedGeneration"] == 7
    assert {each["observedGeneration"] for each in made["conditions"]} == {7}
    assert made["connectionSecret"] == "demo-connection"


def test_an_external_engine_counts_as_ready_and_a_disabled_one_not_at_all() -> None:
    external = EngineFacts(engine=Engine.REDIS, phase=Phase.EXTERNAL, endpoint="old:6380")

    made = of(facts(external))

    assert (made["phase"], made["enginesReady"]) == ("Ready", "7/7")
    assert made["engines"]["redis"]["endpoint"] == "old:6380"


def test_an_engine_on_its_way_is_provisioning() -> None:
    made = of(facts(starting(Engine.MONGODB)))

    assert (made["phase"], made["enginesReady"]) == ("Provisioning", "5/6")
    assert condition(made, "Ready") == ("False", "Provisioning")
    assert condition(made, "Reconciling") == ("True", "Provisioning")
    assert message(made) == "not ready: mongodb (Provisioning: its pod is starting)"


def test_nothing_begun_is_pending() -> None:
    made = of(facts(*(starting(engine, Phase.PENDING) for engine in SIX)))

    assert (made["phase"], made["enginesReady"]) == ("Pending", "0/6")


def test_a_failed_engine_degrades_at_once_and_is_named() -> None:
    made = of(facts(failing(Engine.WEAVIATE, reason="ImagePullFailed", message="no such image")))

    assert (made["phase"], made["enginesReady"]) == ("Degraded", "5/6")
    assert condition(made, "Ready") == ("False", "EnginesNotReady")
    assert condition(made, "Reconciling")[0] == "True"
    assert condition(made, "Stalled")[0] == "False"
    assert message(made) == "not ready: weaviate (Failed: no such image)"


@pytest.mark.parametrize(("after", "phase"), [(599, "Provisioning"), (600, "Degraded")])
def test_ten_minutes_of_coming_up_are_too_long(after: float, phase: str) -> None:
    first = of(facts(starting(Engine.MONGODB, Phase.PENDING)))
    second = of(facts(starting(Engine.MONGODB)), first, after=300)

    made = of(facts(starting(Engine.MONGODB)), second, after=after)

    assert made["phase"] == phase


def test_ten_minutes_begin_anew_when_a_ready_engine_falls_over() -> None:
    ready = of(facts())
    later = of(facts(starting(Engine.MONGODB)), ready, after=3600)

    made = of(facts(starting(Engine.MONGODB)), later, after=3600 + 599)

    assert made["phase"] == "Provisioning"


def test_what_only_the_user_can_mend_is_stalled() -> None:
    lost = failing(Engine.MONGODB, reason="CredentialsLost", message="both gone", stalled=True)

    made = of(facts(lost))

    assert made["phase"] == "Degraded"
    assert condition(made, "Stalled") == ("True", "CredentialsLost")
    assert condition(made, "Reconciling")[0] == "False"


def test_an_unreadable_spec_is_stalled_and_keeps_what_was_known_of_the_engines() -> None:
    before = of(facts())
    error = InvalidSpec("spec.redis.port", "70000 is not between 1 and 65535")

    made = of(Facts(engines={}, sidecars=NOBODY, error=error), before)

    assert made["phase"] == "Degraded"
    assert condition(made, "Ready") == ("False", "InvalidSpec")
    assert condition(made, "Stalled") == ("True", "InvalidSpec")
    assert message(made).startswith("spec.redis.port: ")
    assert made["engines"] == before["engines"]
    assert made["enginesReady"] == "6/6"


@pytest.mark.parametrize(
    ("spec", "phase"), [({"paused": True}, "Paused"), ({"hibernate": True}, "Hibernated")]
)
def test_at_the_users_word_it_rests(spec: dict[str, bool], phase: str) -> None:
    made = of(facts(starting(Engine.MONGODB)), **spec)

    assert made["phase"] == phase
    assert condition(made, "Ready") == ("False", phase)
    assert condition(made, "Reconciling")[0] == "False"


def test_equal_facts_give_an_equal_status_whenever_they_are_seen() -> None:
    first = of(facts())

    assert of(facts(), first, after=86_400) == first


def test_a_time_moves_only_when_its_status_flips() -> None:
    first = of(facts(starting(Engine.MONGODB)))
    second = of(facts(failing(Engine.MONGODB, reason="CrashLoopBackOff")), first, after=60)
    third = of(facts(), second, after=120)

    ready = [made["conditions"][0]["lastTransitionTime"] for made in (first, second, third)]
    engine = [made["engines"]["mongodb"]["lastTransitionTime"] for made in (first, second, third)]
    assert ready == ["2026-11-23T05:00:00Z", "2026-11-23T05:00:00Z", "2026-11-23T05:02:00Z"]
    assert engine == ["2026-11-23T05:00:00Z", "2026-11-23T05:01:00Z", "2026-11-23T05:02:00Z"]


def test_missed_sidecars_and_short_connections_are_conditions() -> None:
    sidecars = {"injected": 93, "outdated": 0, "missed": 2}

    made = of(facts(sidecars=sidecars, low_budgets=(Engine.POSTGRESQL,)))

    assert made["sidecars"] == sidecars
    assert made["phase"] == "Ready"
    assert condition(made, "SidecarMissed") == ("True", "SidecarMissed")
    assert condition(made, "ConnectionBudgetLow") == ("True", "TooManySidecars")


def test_a_message_fits_the_definition() -> None:
    made = of(facts(failing(Engine.MONGODB, message="x" * 100_000)))

    assert all(len(each["message"]) <= 32_768 for each in made["conditions"])


def test_an_engine_that_wakes_up_has_its_ten_minutes_from_then_on() -> None:
    asleep = EngineFacts(engine=Engine.MONGODB, phase=Phase.PENDING, reason="Hibernated")
    hibernated = of(facts(asleep), hibernate=True)

    waking = of(facts(starting(Engine.MONGODB, Phase.PENDING)), hibernated, after=86_400)

    assert waking["phase"] == "Provisioning"
    late = of(facts(starting(Engine.MONGODB)), waking, after=86_400 + 601)
    assert late["phase"] == "Degraded"
