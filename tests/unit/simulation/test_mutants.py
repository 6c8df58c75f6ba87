"""The simulator finds the mutants that ``docs/mutants.md`` says it finds, and nothing in what they are mutants of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.simulation import mutants, swarm

DOCS = Path(__file__).parents[3] / "docs" / "mutants.md"

#: Of a row: the mutant, the seeds until it was found, and what showed it.
ROW = re.compile(r"^\| `(\w+)` \|[^|]*\| ([\d,]+) \|[^|]*\| (\w+) \|$", re.MULTILINE)

FOUND = {name: (int(seeds.replace(",", "")), check) for name, seeds, check in ROW.findall(DOCS.read_text())}

#: So many seeds are cheap; the others are `mutants`' to look for.
CHEAP = 20

#: The family of each.
FAMILY = {mutant.__name__: family for family, (_, of) in mutants.FAMILIES.items() for mutant in of}


def test_every_mutant_is_in_the_tables_and_was_found_within_a_thousand_seeds() -> None:
    assert set(FOUND) == set(FAMILY)
    assert all(seeds <= 1000 for seeds, _ in FOUND.values())


@pytest.mark.parametrize("name", [name for name, (seeds, _) in FOUND.items() if seeds <= CHEAP])
def test_the_simulator_finds(name: str) -> None:
    seeds, check = FOUND[name]
    outcomes = (mutants.play((FAMILY[name], mutants.named(name), seed)) for seed in (seeds - 1, *range(100)))
    found = next(outcome for outcome in outcomes if outcome.valid is False)
    assert found.broken[0].startswith(f"{check}: ")


@pytest.mark.parametrize("name", FOUND)
def test_what_it_is_a_mutant_of_passes_where_it_fails(name: str) -> None:
    outcome = mutants.play((FAMILY[name], "", FOUND[name][0] - 1))
    assert outcome.valid is not False, outcome.broken


@pytest.mark.parametrize("seed", range(len(swarm.THEMES)), ids=swarm.theme)
def test_raft_breaks_no_promise(seed: int) -> None:
    outcome = mutants.play(("Raft", "", seed))
    assert outcome.valid is not False, outcome.broken


@pytest.mark.parametrize("seed", range(4))
def test_a_store_breaks_no_promise_whatever_its_clients_replace(seed: int) -> None:
    assert mutants.FAMILIES["Quorum"][0]("", seed).name == ("store", "siblings", "bare", "power cuts")[seed]
    outcome = mutants.play(("Quorum", "", seed))
    assert outcome.valid is not False, outcome.broken
