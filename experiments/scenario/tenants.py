"""``[[tenant]]``: networks of their own over the fabric, in which the system may live (`topologies.tenants`)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from experiments.scenario.reading import Table, texts, whole
from experiments.scenario.reading import text as name_text
from topologies import cidr
from topologies.plan import FabricPlan, PlanError, Tenant
from topologies.tenants import tenant, with_tenants
from topologies.units import UnitError


def read_tenants(tables: Sequence[Table], plan: FabricPlan | None) -> FabricPlan | None:
    """The plan with the tenants of these tables, or as it is; what is wrong is noted in the tables."""
    read = [_read(table, plan) for table in tables]
    tenants = [one for one in read if one is not None]
    if not tenants or plan is None or len(tenants) < len(tables):
        return plan
    try:
        return with_tenants(plan, tenants)
    except PlanError as error:
        tables[0].problems.append(("tenant", str(error)))
        return plan


def _read(table: Table, plan: FabricPlan | None) -> Tenant | None:
    before = len(table.problems)
    name = table.take("name", name_text, default="", required=True)
    vni = table.take("vni", whole(1), default=0, required=True)
    prefix = table.take("prefix", _prefix, default="", required=True)
    patterns: tuple[str, ...] = table.take("members", texts, default=("*",))
    mss = table.take("mss", whole(1), default=0)
    table.finish()
    if plan is None or len(table.problems) > before:
        return None
    try:
        return tenant(name, vni, prefix, hosts(plan, patterns), mss=mss)
    except PlanError as error:
        table.problems.append((table.path, str(error)))
        return None


def hosts(plan: FabricPlan, names: Sequence[str]) -> list[str]:
    """The hosts that names and patterns such as ``h1*`` stand for, in their order. Raises `PlanError`."""
    found: dict[str, None] = {}
    for name in names:
        matching = [host.name for host in plan.hosts if fnmatchcase(host.name, name)]
        found.update(dict.fromkeys(matching or [plan.host(name).name]))
    return list(found)


def _prefix(value: object) -> str:
    if not isinstance(value, str):
        raise UnitError(f'{value!r} is no block of addresses: write "192.168.0.0/24"')
    try:
        return str(cidr.unicast(cidr.block(value)))
    except PlanError as error:
        raise UnitError(str(error)) from None
