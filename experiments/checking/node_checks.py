"""What nodes recorded, judged: the properties of the protocol that they spoke, and who led when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from experiments.checking import quorum_properties
from experiments.checking.detector_properties import HeartbeatProperties, SwimProperties
from experiments.checking.failover_properties import FailoverProperties
from experiments.checking.fault_record import FaultRecord
from experiments.checking.quorum_properties import QuorumProperties
from experiments.checking.raft_properties import PROPERTIES, RaftProperties, Violation
from experiments.checking.results import Check, Leader
from experiments.checking.trace import Role, TraceError, Witness, in_order, read_traces
from experiments.phrases import count
from experiments.scenario import Failover, Heartbeat, Phi, Quorum, Raft, Swim, System

Properties: TypeAlias = RaftProperties | QuorumProperties | SwimProperties | HeartbeatProperties | FailoverProperties

_HELD: dict[str, str] = {
    "ElectionSafety": "no term had two leaders; {terms} had one",
    "LeaderAppendOnly": "no leader removed or replaced an entry in {terms}",
    "LogMatching": "{logs} agree up to every entry they have in common",
    "LeaderCompleteness": "every leader held what was committed before its term; {entries} in all",
    "StateMachineSafety": "{logs} were applied alike",
    "OneVoteATerm": "no node voted for two candidates in a term",
    "VotesAreKept": "every node came up with the last vote that it had cast",
    "ElectedByQuorum": "every leader of {terms} had the votes of a majority of its voters",
    "OnlyConflictsRemove": "no node removed an entry but for one of another term",
    "CommittedByQuorum": "every leader committed what a majority of its voters had, and up to an entry of its own term",
    "CommittedIsOnDisk": "no node came up without what it was counted for when {entries} were committed",
    "OneChangeAtATime": "{steps} of changes of members, each by the rules",
    "DotsAreUnique": "no two of {writes} have the same name",
    "ContextsAreHonest": "no node kept a version without the same actor's earlier ones, or what replaced them",
    "NothingGoesBack": "no replica let go of a version but for one that replaces it",
    "AcknowledgedIsOnDisk": "every node came up with what it had said it has",
    "QuorumsAreMet": "{reads} and {acknowledged} were answered on the word of as many nodes as promised",
    "NothingLost": "{acknowledged} are there at the end, or what replaced them",
    "IncarnationsAreOwn": "nobody believed in an incarnation that its member never had; {refutations} in all",
    "BeliefsGoForward": "none of {beliefs} went back to older news",
    "RaisedToRefute": "nobody raised its incarnation but to refute what was said of it",
    "SuspectedFirst": "nobody was given up before a suspicion had run its course",
    "AskedOthers": "nobody was alone with a silence while it took others for alive",
    "BeliefsAlternate": "each of {beliefs} was a change",
    "SilenceHasLasted": "nobody was given up before its silence had lasted as long as the rule demands",
    "ServedIsGranted": "every one of {leases} was as the coordinator had granted it",
    "GrantsGoForward": "nobody went back to an earlier one of {grants}",
    "LeasesAreShort": "no lease was longer than agreed",
    "WeightsRise": "nobody who was eased in was thrown back, unless it had failed or came up anew",
}


def properties_of(system: System) -> Properties | None:
    """What is promised of every execution of ``system``, to be fed its nodes' events; None where that is nothing that
    its nodes' traces could tell: of a binary nobody knows but what it says.
    """
    match system:
        case Raft():
            return RaftProperties()
        case Quorum(config=config):
            return QuorumProperties(system.names, config)
        case Swim(config=config):
            return SwimProperties(system.names, config)
        case Heartbeat(config=config) | Phi(config=config):
            return HeartbeatProperties(config)
        case Failover(config=config):
            return FailoverProperties(config)
    return None


def trace_checks(run: Path, system: System) -> tuple[list[Witness], list[Check]]:
    """The events of all traces in order, and what is promised of them; of shards' owners, see `takeover`."""
    properties = properties_of(system)
    names = _names(properties)
    try:
        traces = read_traces(run)
    except TraceError as error:
        return [], [Check(name, "unknown", str(error)) for name in names]
    if not any(traces):
        return [], [Check(name, "unknown", "no node left a trace") for name in names]
    events = list(in_order(traces))
    if properties is None:
        return events, []
    violations: dict[str, list[Violation]] = {}
    broken_off = ""
    try:
        for witness in events:
            for violation in properties.feed(witness):
                violations.setdefault(violation.property, []).append(violation)
        for violation in properties.finish() if isinstance(properties, QuorumProperties) else ():
            violations.setdefault(violation.property, []).append(violation)
    except TraceError as error:
        broken_off = str(error)
    facts = _facts(properties, events)
    if isinstance(properties, RaftProperties):
        names = properties.judged
    checks: list[Check] = []
    for name in names:
        if found := violations.get(name):
            more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
            checks.append(Check(name, False, found[0].message + more, found[0].as_data()))
        elif broken_off:
            checks.append(Check(name, "unknown", broken_off))
        else:
            checks.append(Check(name, True, _HELD[name].format(**facts)))
    if isinstance(properties, QuorumProperties) and not broken_off:
        checks.append(_convergence(properties))
    return events, checks


def _names(properties: Properties | None) -> Sequence[str]:
    match properties:
        case None:
            return ()
        case RaftProperties():
            return PROPERTIES
        case QuorumProperties():
            return quorum_properties.PROPERTIES
    return properties.judged


def _convergence(properties: QuorumProperties) -> Check:
    """Told, and no promise: how soon replicas agree depends on when the network lets them."""
    over = count(len(properties.keys), "key")
    if differ := properties.differing():
        first, kept = next(iter(differ.items()))
        versions = ", ".join(f"{node} {len(dots)}" for node, dots in kept.items())
        summary = f"the replicas of {len(differ):,} of {over} differ at the end, first {first}; versions: {versions}"
        return Check("convergence", True, f"{summary}; not promised so soon")
    return Check("convergence", True, f"the replicas of all {over} agree at the end")


def _facts(properties: Properties, events: Sequence[Witness]) -> dict[str, str]:
    if isinstance(properties, SwimProperties):
        return {
            "beliefs": count(properties.beliefs, "change of mind", "changes of mind"),
            "refutations": count(properties.refutations, "refutation"),
        }
    if isinstance(properties, HeartbeatProperties):
        return {"beliefs": count(properties.beliefs, "change of mind", "changes of mind")}
    if isinstance(properties, FailoverProperties):
        return {"leases": count(properties.leases, "lease"), "grants": count(properties.grants, "grant")}
    if isinstance(properties, QuorumProperties):
        return {
            "writes": count(properties.writes, "write"),
            "reads": count(properties.reads, "read"),
            "acknowledged": count(properties.acknowledged, "acknowledged write"),
        }
    return {
        "terms": count(properties.terms, "term"),
        "logs": count(len({witness.node for witness in events}), "log"),
        "entries": count(properties.committed, "entry", "entries"),
        "steps": count(properties.steps, "step"),
    }


def who_led(events: Iterable[Witness], faults: Sequence[FaultRecord], epoch: int) -> list[Leader]:
    """Who led, from the nodes' own traces. A node's lead ends with its role, or with its life."""
    leaders: list[Leader] = []
    leading: dict[str, Leader] = {}
    last_seen: dict[str, int] = {}

    def end(node: str, moment: int) -> None:
        if (led := leading.pop(node, None)) is not None:
            leaders.append(msgspec.structs.replace(led, end=moment))

    for witness in events:
        node, moment = witness.node, witness.t - epoch
        if witness.line == 1:
            end(node, _killed(node, faults, last_seen.get(node, moment), moment) or last_seen.get(node, moment))
        last_seen[node] = moment
        match witness.event:
            case Role(role="leader", term=term):
                if node not in leading or leading[node].term != term:
                    end(node, moment)
                    leading[node] = Leader(node, term, moment, None)
            case Role():
                end(node, moment)
    for node in list(leading):
        killed = _killed(node, faults, last_seen[node], None)
        if killed is not None:
            end(node, killed)
    return sorted([*leaders, *leading.values()], key=lambda led: (led.start, led.term))


def _killed(node: str, faults: Sequence[FaultRecord], after: int, before: int | None) -> int | None:
    """When a fault killed ``node``, last heard of at ``after`` and heard of again at ``before``."""
    for fault in faults:
        if fault.kind == "kill" and fault.applied and node in fault.applied.resolved.get("nodes", ()):
            moment = fault.applied.t
            if after <= moment and (before is None or moment <= before):
                return moment
    return None
