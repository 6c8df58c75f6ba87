"""What traces of detectors and of failing over must show, in scripts that break one rule each; and of real runs."""

from __future__ import annotations

from typing import Any

import pytest

from apps.detectors import HeartbeatConfig, PhiConfig, SwimConfig
from apps.detectors.phi import phi
from apps.failover import FailoverConfig
from experiments.checking.detector_properties import HeartbeatProperties, SwimProperties
from experiments.checking.failover_properties import FailoverProperties
from experiments.checking.trace import Ask, Believe, Grant, Header, Incarnation, Lease, Weigh, Witness

S = 1_000_000_000
SHORTEST = 4 * S
MEMBERS = ("n1", "n2", "n3")


class Script:
    """Events a second apart, of processes that have just come up."""

    def __init__(self, properties: Any) -> None:
        self.properties = properties
        self.t = 0
        self.found: list[tuple[str, list[int]]] = []

    def say(self, node: str, kind: Any, *rest: Any) -> Script:
        self.t += S
        witness = Witness(node, 0, self.t // S, kind(self.t, *rest))
        found = self.properties.feed(witness)
        self.found += [(violation.property, [event.t // S for event in violation.events]) for violation in found]
        return self

    def starts(self, *nodes: str) -> Script:
        for node in nodes:
            self.say(node, Header, 1, node, 0, "swim").say(node, Incarnation, 0)
        return self


def swim() -> Script:
    return Script(SwimProperties(MEMBERS, SwimConfig(interval=S))).starts(*MEMBERS)  # by second 6


def test_a_suspicion_that_runs_its_course_a_refutation_and_a_new_life_are_by_the_rules() -> None:
    script = swim()
    script.say("n1", Believe, "n2", "suspect", 0).say("n1", Believe, "n2", "failed", 0, SHORTEST)
    script.say("n3", Believe, "n2", "failed", 0)  # told
    script.say("n2", Incarnation, 1, 0).say("n1", Believe, "n2", "alive", 1).say("n3", Believe, "n2", "alive", 1)
    script.starts("n2").say("n1", Believe, "n2", "suspect", 1).say("n2", Incarnation, 2, 1)
    script.starts("n1").say("n1", Believe, "n2", "suspect", 0)  # a life knows nothing of the one before
    assert script.found == []


def test_a_belief_never_goes_back() -> None:
    script = swim().say("n1", Believe, "n2", "suspect", 0).say("n1", Believe, "n2", "alive", 0)
    assert script.found == [("BeliefsGoForward", [7, 8])]
    script = swim().say("n1", Believe, "n2", "suspect", 0).say("n1", Believe, "n2", "suspect", 0)
    assert script.found == [("BeliefsGoForward", [7, 8])]


def test_nobody_believes_in_an_incarnation_that_its_member_never_had() -> None:
    assert swim().say("n1", Believe, "n2", "alive", 1).found == [("IncarnationsAreOwn", [4, 7])]


@pytest.mark.parametrize(("incarnation", "accused"), [(1, 0), (2, 0), (1, 1)])
def test_an_incarnation_begins_where_the_one_before_was_doubted(incarnation: int, accused: int) -> None:
    assert [name for name, _ in swim().say("n2", Incarnation, incarnation, accused).found] == ["RaisedToRefute"]


@pytest.mark.parametrize("told", [(), (None,), (SHORTEST - 1,)])
def test_who_is_given_up_was_suspected_first_and_long_enough(told: tuple[Any, ...]) -> None:
    assert [name for name, _ in swim().say("n1", Believe, "n2", "failed", 0, *told).found] == ["SuspectedFirst"]
    if told and told[0]:
        script = swim().say("n1", Believe, "n2", "suspect", 0).say("n1", Believe, "n2", "failed", 0, *told)
        assert script.found == [("SuspectedFirst", [7, 8])]


def test_who_gets_no_answer_asks_whomever_it_takes_for_alive() -> None:
    assert swim().say("n1", Ask, "n2", ["n3"]).found == []
    assert swim().say("n1", Ask, "n2", []).found == [("AskedOthers", [7])]
    suspects = swim().say("n1", Believe, "n3", "suspect", 0)
    assert suspects.say("n1", Ask, "n2", []).found == []


def test_traces_that_do_not_tell_of_incarnations_or_of_how_long_are_not_held_to_it() -> None:
    script = Script(SwimProperties(MEMBERS, SwimConfig(interval=S)))
    script.say("n1", Header, 1, "n1", 0, "swim").say("n1", Believe, "n2", "suspect", 5)
    assert script.say("n1", Believe, "n2", "failed", 5).found == []


def test_a_silence_must_have_lasted_and_each_belief_be_a_change() -> None:
    script = Script(HeartbeatProperties(HeartbeatConfig(timeout=S)))
    script.say("n1", Believe, "n2", "failed", 0, S).say("n1", Believe, "n2", "alive", 0)
    assert script.found == []
    script.say("n1", Believe, "n2", "failed", 0, S - 1).say("n1", Believe, "n2", "failed", 0, S)
    assert script.found == [("SilenceHasLasted", [3]), ("BeliefsAlternate", [3, 4])]
    assert script.say("n1", Header, 1, "n1", 1, "heartbeat").say("n1", Believe, "n2", "failed", 0, S).found[2:] == []


@pytest.mark.parametrize("threshold", [0.5, 1.0, 8.0, 12.0])
def test_the_shortest_silence_of_phi_accrual_is_where_the_narrowest_distribution_reaches_the_threshold(
    threshold: float,
) -> None:
    config = PhiConfig(threshold=threshold)
    assert phi(config.least_limit / config.least_deviation) == pytest.approx(threshold, rel=1e-6)


FAILOVER = FailoverConfig(shards=4, lease=S)


def failover() -> Script:
    return Script(FailoverProperties(FAILOVER)).say("n1", Grant, "n2", [0, 1], (0, 1))


def test_leases_by_grants_in_their_order_are_by_the_rules() -> None:
    script = failover().say("n2", Lease, [0, 1], S, (0, 1)).say("n1", Grant, "n3", [2], (0, 2))
    script.say("n1", Grant, "n2", [0], (0, 3)).say("n2", Lease, [0], S, (0, 3)).say("n2", Lease, [], 0, (0, 3))
    script.say("n1", Weigh, "n2", 0.1).say("n1", Weigh, "n2", 0.5).say("n1", Weigh, "n2", 0.0)
    script.say("n1", Weigh, "n2", 0.1).say("n2", Header, 1, "n2", 1, "failover").say("n1", Weigh, "n2", 0.05)
    assert script.found == []


@pytest.mark.parametrize(
    ("lease", "broken"),
    [
        (("n2", [0, 1, 2], S, (0, 1)), ("ServedIsGranted", [1, 2])),
        (("n3", [0, 1], S, (0, 1)), ("ServedIsGranted", [1, 2])),
        (("n2", [0, 1], S, (0, 9)), ("ServedIsGranted", [2])),
        (("n2", [0, 1], S + 1, (0, 1)), ("LeasesAreShort", [2])),
    ],
)
def test_a_worker_serves_what_it_was_granted_and_no_longer(lease: Any, broken: Any) -> None:
    node, *rest = lease
    assert failover().say(node, Lease, *rest).found == [broken]


def test_nobody_goes_back_to_an_earlier_grant_and_nobody_serves_what_another_does() -> None:
    script = failover().say("n2", Lease, [0, 1], S, (0, 1)).say("n1", Grant, "n2", [1], (0, 2))
    script.say("n2", Lease, [1], S, (0, 2)).say("n2", Lease, [0, 1], 5 * S // 5, (0, 1))
    assert script.found == [("GrantsGoForward", [4, 5])]
    script = failover().say("n2", Lease, [0], S, (0, 1))
    script.t -= S // 2
    assert script.say("n1", Grant, "n3", [0], (0, 1 + 1)).found == []
    script.t -= S
    assert [name for name, _ in script.say("n3", Lease, [0], S, (0, 2)).found] == ["OneOwner"]


def test_who_is_eased_in_is_not_thrown_back() -> None:
    script = failover().say("n1", Weigh, "n2", 0.5).say("n1", Weigh, "n2", 0.4)
    assert script.found == [("WeightsRise", [2, 3])]
    assert [name for name, _ in failover().say("n1", Weigh, "n2", 1.5).found] == ["WeightsRise"]
