"""A plan as a picture of its own: one SVG file that needs no page around it. Pure.

What stands where is `fabric`'s matter, as in the report; here it gets its own style, light and dark, and addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from textwrap import wrap

from experiments.report import fabric
from topologies.plan import FabricPlan

_MARGIN = 10

#: Of the small text: from line to line, and what a character takes at most on average.
_LINE, _CHARACTER = 16, 6

_STYLE = """\
  svg { --paper: #fffefa; --ink: #1b1b1b; --muted: #67635a; --line: #b9b3a5; --hair: #dcd7ca; --hot: #c24e00;
    font-family: "Helvetica Neue", "Segoe UI", Roboto, system-ui, sans-serif; background: var(--paper); }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #16181b; --ink: #e9e6df; --muted: #a19d94; --line: #55585e; --hair: #383b40; --hot: #ff8d4d; }
  }
  .paper { stroke: none; }
  text { fill: var(--ink); font-size: 13px; text-anchor: middle; }
  rect { fill: var(--paper); stroke: var(--ink); stroke-width: 1.25; }
  line { stroke: var(--line); stroke-width: 1.25; }
  .host rect { stroke: var(--hair); }
  .process rect { stroke: var(--ink); }
  .small { fill: var(--muted); font-size: 10px; }
  .node { font-weight: 700; }
  .client { font-style: italic; }
  .impaired { stroke: var(--hot); stroke-width: 2; }
  .impairment { fill: var(--hot); font-size: 12px; font-weight: 600; paint-order: stroke; stroke: var(--paper);
    stroke-width: 5px; stroke-linejoin: round; }
  #head path { fill: var(--hot); }"""


def picture(plan: FabricPlan, placement: Mapping[str, str]) -> str:
    """The SVG of ``plan``, with its hosts' addresses, what its links do to packets, and who is placed in which host.

    Its tenants and their members are listed below.
    """
    drawn = fabric.draw(plan, placement, None)
    listed = _tenants(plan, int(drawn.width / _CHARACTER))
    width = round(drawn.width + 2 * _MARGIN)
    height = round(drawn.height + _LINE * len(listed) + 2 * _MARGIN)
    title = escape(f"{plan.kind}: {len(plan.switches)} switches, {len(plan.hosts)} hosts, {len(plan.links)} links")
    body = [
        *(_line(line, "") for line in drawn.lines),
        *(_box(plan, box) for box in drawn.boxes),
        *(_arrow(arrow) for arrow in drawn.arrows),
        *(_text(x, y, text, "small") for x, y, text in drawn.notes),
        *(
            _text(0, drawn.height + _LINE * number, text, "small", 'style="text-anchor:start"')
            for number, text in enumerate(listed, 1)
        ),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_MARGIN} {-_MARGIN} {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="title">',
            f'<title id="title">{title}</title>',
            f"<style>\n{_STYLE}\n</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="6" markerHeight="6" '
            'orient="auto"><path d="M0 0L10 5L0 10Z"/></marker></defs>',
            f'<rect class="paper" x="{-_MARGIN}" y="{-_MARGIN}" width="{width}" height="{height}"/>',
            *body,
            "</svg>\n",
        ]
    )


def _tenants(plan: FabricPlan, columns: int) -> list[str]:
    """In lines of so many characters."""
    lines: list[str] = []
    for tenant in plan.tenants:
        members = ", ".join(f"{member.name}\u00a0{member.ip}" for member in tenant.members)
        lines += wrap(f"Tenant {tenant.name}, VNI {tenant.vni}, {tenant.prefix}: {members}.", columns)
    return lines


def _line(line: fabric.Line, attributes: str) -> str:
    place = f'x1="{line.x1:.1f}" y1="{line.y1:.1f}" x2="{line.x2:.1f}" y2="{line.y2:.1f}"'
    return f"<line {place}{attributes}><title>{escape(line.name)}</title></line>"


def _box(plan: FabricPlan, box: fabric.Box) -> str:
    frame = f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="3"/>'
    if box.kind != "host":
        return f"<g>{frame}{_text(box.middle, box.y + 20, box.name)}</g>"
    address = _text(box.middle, box.y + box.height - 8, plan.host(box.name).ip, "small")
    if box.main is None:
        return f'<g class="host">{frame}{_text(box.middle, box.y + 21, box.name)}{address}</g>'
    who = f"{' '.join(occupant.name for occupant in box.occupants)} · {box.name}"
    name = _text(box.middle, box.y + 21, who, "client" if box.main.client else "node")
    return f'<g class="host process">{frame}{name}{address}</g>'


def _arrow(arrow: fabric.Arrow) -> str:
    line = _line(arrow.line, ' class="impaired" marker-end="url(#head)"')
    anchor = f'style="text-anchor:{arrow.anchor}"'
    return line + (_text(arrow.x, arrow.y, arrow.label, "impairment", anchor) if arrow.label else "")


def _text(x: float, y: float, text: str, kind: str = "", more: str = "") -> str:
    attributes = "".join(f" {attribute}" for attribute in (kind and f'class="{kind}"', more) if attribute)
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'
