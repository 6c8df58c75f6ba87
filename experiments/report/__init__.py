"""One self-contained page about one run: the verdict, the fabric with its faults, what happened over time, the proofs.

The page is made of text, tables and drawings that are complete without its script, which adds reading of values and
zooming. It loads nothing. `record` reads the folder; `events`, `series`, `fabric`, `timeline`, `proof`, `orders` and
`story` turn what was read into what is shown, and are pure; ``page.html`` sets it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.report.record import Record, ReportError, read_record

__all__ = ["ReportError", "render", "write_report"]

NAME = "report.html"


def write_report(run: Path) -> Path:
    """Write ``report.html`` into the folder of a run, from what the folder holds, and return its path.

    What is missing or unreadable there is said in the report. Raises `ReportError` when ``run`` is no run's folder, or
    cannot be written to.
    """
    page = render(read_record(run))
    target = run / NAME
    draft = run / f".{NAME}.tmp"
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ReportError(
            f"{target}: cannot be written: {error.strerror}; free some space or the folder's permissions"
        ) from error
    return target


def render(record: Record) -> str:
    """The page of a run as HTML."""
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        **_view(record),
        style=(here / "page.css").read_text(encoding="utf-8"),
        script=(here / "page.js").read_text(encoding="utf-8"),
    )


def _view(record: Record) -> dict[str, Any]:
    """Everything the page shows, by the names the template uses."""
    from experiments.checking import rejections
    from experiments.report import balance, events, fabric, orders, proof, series, story, timeline, words

    manifest, results = record.manifest, record.results
    operations = events.operations(record.history)
    faults = events.faults(record.faults, manifest.scenario.get("faults", ()))
    end = events.last_moment(record, operations)
    lanes = [] if manifest.epoch is None else events.lanes(record.traces, manifest.epoch, faults, end)
    led = events.leaders(results.leaders if results else (), lanes)
    counts = series.count(operations, end)
    latency = series.latencies(operations, end, counts.width)
    failed = [check for check in results.checks if check.valid is False] if results else []
    plan = manifest.plan
    rate = manifest.scenario.get("workload", {}).get("rate")
    drawn: list[Any] = [fault for fault in faults if fault.applied is not None]
    return {
        "record": record,
        "manifest": manifest,
        "results": results,
        "headline": story.headline(record, faults, led, end),
        "figures": story.key_figures(record, operations, faults, led, end),
        "drawings": [(fault, fabric.draw(plan, manifest.placement, fault)) for fault in drawn or [None]]
        if plan
        else [],
        "timeline": timeline.build(operations, counts, latency, lanes, faults, end, rate, record.metrics, plan),
        "balance": balance.balance(record.metrics, plan),
        "time_has_operations": bool(operations),
        "bins": (counts.width, latency.width),
        "proofs": [proof.prove(fault, results.availability if results else None) for fault in faults],
        "diagrams": [
            (check, orders.diagrams(check.details), orders.comparison(check.details, manifest.epoch))
            for check in failed
        ],
        "marks": [
            (broke / words.MILLISECOND, words.spelled(check.name))
            for check in failed
            if (broke := orders.broke_at(check.details, manifest.epoch)) is not None
        ],
        "calibrations": proof.calibrations(results.fidelity.calibration, plan) if results and results.fidelity else [],
        "rejections": [rejections.told(one) for one in results.rejections] if results else [],
        "words": words,
        "letter": fabric.letter,
        "lane_height": timeline.LANE,
        "labels": {fault.index: timeline.label(fault) for fault in faults},
    }
