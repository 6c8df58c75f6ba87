"""The checks can fail: each mutant is caught, by random schedules or by the script of the case it gets wrong.

That the core itself passes the same schedules and scripts is in ``test_chaos`` and ``test_classic_cases``.
"""

from __future__ import annotations

from typing import Any

import pytest

from apps import kv
from apps.raft import Raft
from tests.unit.raft import mutants, scripts
from tests.unit.raft.chaos import Chaos, load
from tests.unit.raft.test_chaos import SEEDS

#: Within how many schedules, from seed 0 on, the random search must find it.
FOUND_WITHIN = {
    mutants.AcksEarly: 10,
    mutants.ServesStaleReads: 20,
    mutants.ForgetsVote: 20,
    mutants.TruncatesWithoutConflict: 10,
    mutants.SpeaksBeforeItWrites: 20,
    mutants.VotesTwice: 10,
    mutants.VotesForAnyLog: 10,
    mutants.ReadsBeforeItsTermCommits: 20,
    mutants.CountsWhatWasSent: 10,
    mutants.AppliesRetriesAgain: 10,
    mutants.ReadsBeforeItApplies: 20,
}


@pytest.mark.parametrize("mutant", FOUND_WITHIN, ids=lambda mutant: mutant.__name__)
def test_random_schedules_find(mutant: type[Raft]) -> None:
    seeds = range(FOUND_WITHIN[mutant])
    assert set(seeds) <= set(SEEDS)
    assert any(Chaos(seed, mutant).play() for seed in seeds)


def test_committing_an_old_term_by_counting_breaks_figure_8() -> None:
    cluster = scripts.figure_8(mutants.CommitsOldTerms)
    assert {violation.property for violation in cluster.violations} >= {"LeaderCompleteness"}


def test_counting_an_old_heartbeat_answers_a_read_from_the_past() -> None:
    cluster, read = scripts.late_heartbeat_reply(mutants.CountsOldHeartbeats)
    assert read in cluster.replies


def test_a_forgotten_vote_elects_two_leaders_in_one_term() -> None:
    cluster = scripts.forgotten_vote(mutants.ForgetsVote)
    assert {violation.property for violation in cluster.violations} == {"ElectionSafety"}


def test_truncating_without_a_conflict_takes_back_what_was_acknowledged() -> None:
    cluster = scripts.overtaken_append(mutants.TruncatesWithoutConflict)
    assert {violation.property for violation in cluster.violations} >= {"LeaderCompleteness"}


def test_acknowledging_before_fsync_loses_what_was_answered_in_a_power_cut() -> None:
    cluster, read = scripts.power_cut(mutants.AcksBeforeFsync)
    assert cluster.replies[read] == kv.Done(None)


def test_without_sessions_a_retried_write_undoes_what_came_after_it() -> None:
    _, seen = scripts.answer_lost_with_the_leader(mutants.AppliesRetriesAgain)
    assert seen == ["first", "second", "first"]


@pytest.mark.parametrize(
    ("mutant", "script"),
    [
        (mutants.CountsLeaseFromTheAnswer, scripts.lease_and_late_answers),
        (mutants.KeepsLeaseInTransfer, scripts.lease_and_transfer),
        (mutants.ForgetsLeaseOnRestart, scripts.lease_and_restarted_voter),
        (mutants.NumbersReadsFromOne, scripts.answer_for_an_earlier_incarnation),
    ],
)
def test_a_read_is_answered_from_the_past_by(mutant: type[Raft], script: Any) -> None:
    cluster, read = script(mutant)
    assert cluster.core("n2").store.read("x") == "new" or mutant is mutants.NumbersReadsFromOne
    assert cluster.replies[read] == kv.Done("old")


def test_a_later_number_of_an_earlier_incarnation_answers_a_read_from_the_past() -> None:
    played = [scripts.answer_for_an_earlier_incarnation(mutants.BelievesLaterAnswers, seed) for seed in range(10)]
    assert any(cluster.replies.get(read) == kv.Done("old") for cluster, read in played)


def test_every_mutant_is_caught_by_some_test_and_has_a_class_path() -> None:
    scripted = {
        mutants.CommitsOldTerms,
        mutants.CountsOldHeartbeats,
        mutants.AcksBeforeFsync,
        mutants.CountsLeaseFromTheAnswer,
        mutants.KeepsLeaseInTransfer,
        mutants.ForgetsLeaseOnRestart,
        mutants.NumbersReadsFromOne,
        mutants.BelievesLaterAnswers,
        mutants.InstallsOverALongerLog,
        mutants.KeepsAConflictingLog,
        mutants.ChangesVotersAtOnce,
        mutants.ChangesBeforeItsTermCommits,
        mutants.CountsOneMajority,
    }
    assert set(mutants.MUTANTS) == set(FOUND_WITHIN) | scripted
    assert load("tests.unit.raft.mutants:AcksEarly") is mutants.AcksEarly
