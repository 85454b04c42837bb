"""Reports that are kept in a run: one JSON object per line, the newest last."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from unrolled.errors import RunError
from unrolled.metrics.report import Report
from unrolled.training import Run
from unrolled.training.links import refuse_links
from unrolled.training.run import one_line

REPORTS_FILE = "reports.jsonl"


def keep_report(run: Run, checkpoint: str, report: Report) -> str:
    """Add a report to a run, and return why that failed, or an empty string."""
    record = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": checkpoint,
        "data": report.data,
        "headline": report.headline,
        "values": report.json(),
    }
    line = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
    try:
        refuse_links(run.path, to_write=True)
        # A single appending write, so that two processes do not mix their lines.
        handle = os.open(run.path / REPORTS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)
    except (OSError, RunError) as error:
        return f"the report is not kept in the run: {one_line(error)}"
    return ""


def reports(run: Run) -> list[dict[str, Any]]:
    """Return the reports that are kept in a run, the oldest first; other lines are skipped."""
    try:
        lines = (run.path / REPORTS_FILE).read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("headline"), str):
            found.append(record)
    return found
