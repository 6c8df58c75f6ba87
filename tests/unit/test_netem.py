"""The commands that netem is given, and what is read from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.impair import ImpairError
from topologies.impairment import Impairment, from_samples
from topologies.netem import (
    detour_commands,
    distribution_table,
    ifb_name,
    netem_command,
    netem_limit,
    parse_counters,
    takes_seed,
)
from topologies.plan import LONGEST_INTERFACE_NAME

MS = 1_000_000


@pytest.mark.parametrize(
    ("impairment", "words"),
    [
        (Impairment(delay=20 * MS), "delay 20000us"),
        (Impairment(delay=1_500), "delay 1.5us"),
        (Impairment(delay=20 * MS, jitter=5 * MS), "delay 20000us 5000us"),
        (Impairment(delay=20 * MS, jitter=5 * MS, distribution="normal"), "delay 20000us 5000us distribution normal"),
        (from_samples([8 * MS, 12 * MS]), "delay 10000us 2000us distribution samples"),
        (Impairment(loss=0.1), "loss random 10%"),
        (Impairment(loss=0.00001), "loss random 0.001%"),
        (Impairment(loss=0.2, burst=4.0), "loss gemodel 6.25% 25%"),
        (Impairment(delay=MS, reorder=0.25), "delay 1000us reorder 25%"),
        (Impairment(reorder=0.25), ""),
        (Impairment(duplicate=0.01, corrupt=0.02), "duplicate 1% corrupt 2%"),
    ],
)
def test_an_impairment_becomes_one_command(impairment: Impairment, words: str) -> None:
    command = ["tc", "qdisc", "replace", "dev", "leaf1-eth5", "root", "netem", "limit", "1000000", *words.split()]
    assert list(netem_command("leaf1-eth5", impairment)) == command


def test_a_table_of_samples_is_the_one_that_tc_reads() -> None:
    table = [int(line) for line in distribution_table(from_samples([8 * MS] * 3 + [16 * MS])).split()]
    assert len(table) == 4096
    assert -32768 <= min(table) < max(table) <= 32767
    assert sum(table) / 4096 == pytest.approx(0, abs=1)
    assert sum(draw * draw for draw in table) / 4096 == pytest.approx(8192**2, rel=0.001)


def test_a_rate_is_netems_own_and_its_queue_has_room_for_what_is_in_flight() -> None:
    impairment = Impairment(rate=10_000_000, queue=100, delay=48 * MS)
    command = " ".join(netem_command("s1", impairment))
    assert command.endswith("rate 10000000bit")
    assert "htb" not in command
    assert netem_limit(impairment) == 100 + 1000  # 10 Mbit/s times 48 ms is 1,000 frames of 60 bytes


@given(st.integers(0, 10**12), st.integers(0, 10**10), st.integers(1, 10**6))
def test_the_limit_always_has_room_for_the_queue(rate: int, delay: int, queue: int) -> None:
    assert queue <= netem_limit(Impairment(rate=rate, delay=delay, queue=queue)) <= 1_000_000


def test_a_seed_is_given_only_where_it_is_understood() -> None:
    assert "seed" not in netem_command("s1", Impairment(loss=0.1))
    assert netem_command("s1", Impairment(loss=0.1), seed=7)[-2:] == ("seed", "7")
    assert takes_seed("6.8.0-45-generic", "tc utility, iproute2-6.8.0, libbpf 1.1.2")
    assert not takes_seed("6.1.0-18-amd64", "tc utility, iproute2-6.8.0")
    assert not takes_seed("6.18.44", "tc utility, iproute2-6.1.0, libbpf 1.1.2")
    assert not takes_seed("6.18.44", "tc utility, iproute2-ss200127")


def test_a_hosts_direction_takes_a_detour_behind_the_switchs_end() -> None:
    ifb = ifb_name("leaf1-eth1")
    commands = [" ".join(command) for command in detour_commands("leaf1-eth1", ifb)]
    assert commands[0] == f"ip link add {ifb} type ifb"
    assert "ingress" in commands[-1]
    assert commands[-1].endswith(f"mirred egress redirect dev {ifb}")
    assert ifb != ifb_name("leaf1-eth2")
    assert len(ifb) <= LONGEST_INTERFACE_NAME


def test_counters_are_those_of_the_netem_qdisc() -> None:
    shown = (
        '[{"kind":"netem","handle":"8001:","root":true,"options":{"limit":1000},"bytes":4100,"packets":40,'
        '"drops":5,"overlimits":0,"requeues":0,"backlog":210,"qlen":2}]'
    )
    counters = parse_counters(shown)
    assert (counters.packets, counters.dropped, counters.held) == (47, {"netem": 5}, 2)
    assert counters.delay_mean is None


@pytest.mark.parametrize("shown", ['[{"kind":"noqueue"}]', "[]", "Cannot find device"])
def test_a_netem_that_is_gone_is_noticed(shown: str) -> None:
    with pytest.raises(ImpairError):
        parse_counters(shown)
