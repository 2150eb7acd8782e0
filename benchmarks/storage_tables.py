"""What `storage.py` found, as Markdown."""

from __future__ import annotations

from typing import Any

LOCAL_STEPS = ("write", "commit", "status_warm", "status_cold", "write_again", "commit_again", "checkout")
REMOTE_STEPS = ("commit", "push", "push_again", "fetch", "checkout")


def tables(results: dict[str, Any]) -> list[str]:
    """Return a table for each set of images of each part; rows and columns in the order of the measurement."""
    found = {part: result["found"] for part, result in results.items()}
    scale = {part: result["scale"] for part, result in results.items()}
    lines = []
    for name, by_variant in found.get("local", {}).items():
        lines += ["", f"### {name}, on one machine: wall seconds (CPU seconds)"]
        lines += _local({variant: by_variant[variant] for variant in scale["local"]["variants"]})
    for name, by_layout in found.get("remote", {}).items():
        lines += ["", f"### {name}, by S3: wall seconds (CPU seconds); the server's CPU seconds"]
        ordered = {layout: by_layout[layout] for layout in scale["remote"]["layouts"]}
        lines += _remote(ordered, ("first", *scale["remote"]["cases"]))
    if "jobs" in found:
        lines += ["", "### Push and fetch by jobs: wall seconds (CPU seconds); the server's CPU seconds"]
        lines += _jobs(found["jobs"])
    for name, by_layout in found.get("reading", {}).items():
        lines += ["", f"### {name}, reading: milliseconds an image (CPU); to decode one takes {by_layout['decode_ms']}"]
        lines += _reading(by_layout)
    return lines


def _header(first: str, columns: list[str]) -> list[str]:
    return ["", f"| {first} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]


def _local(found: dict[str, Any]) -> list[str]:
    lines = _header("step", list(found))
    for step in LOCAL_STEPS:
        lines.append(f"| {step} | " + " | ".join(_cell(one[step]) for one in found.values()) + " |")
    sizes = (f"{one['disk_bytes']['both'] / 1e6:,.0f}" for one in found.values())
    return [*lines, "| disk, MB | " + " | ".join(sizes) + " |"]


def _remote(found: dict[str, Any], cases: tuple[str, ...]) -> list[str]:
    lines = _header("case", list(found))
    for case in cases:
        costs = [one[case] for one in found.values()]
        for step in (step for step in REMOTE_STEPS if step in costs[0]):
            lines.append(f"| {case}: {step} | " + " | ".join(_cell(cost[step]) for cost in costs) + " |")
        sent = (f"{cost['push'].get('bytes_sent', 0) / 1e6:,.1f}" for cost in costs)
        lines.append(f"| {case}: MB pushed | " + " | ".join(sent) + " |")
        objects = (f"{cost['push'].get('requests', {}).get('PUT', 0):,}" for cost in costs)
        lines.append(f"| {case}: objects pushed | " + " | ".join(objects) + " |")
    return lines


def _jobs(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["", "| layout | images | jobs | delay, ms | push | fetch |", "|---|---:|---:|---:|---:|---:|"]
    return lines + [
        f"| {row['layout']} | {row['num_images']:,} | {row['jobs']} | {row['delay_s'] * 1000:.0f} |"
        f" {_cell(row['push'])} | {_cell(row['fetch'])} |"
        for row in rows
    ]


def _reading(found: dict[str, Any]) -> list[str]:
    layouts = [name for name in found if name != "decode_ms"]
    lines = _header("step", layouts)
    for step in ("read_cold", "read_warm", "view"):
        cells = (f"{found[one][step]['wall_ms_each'][0]} ({found[one][step]['cpu_ms_each'][0]})" for one in layouts)
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return lines


def _cell(cost: dict[str, Any]) -> str:
    store = f"; {cost['store_cpu_s'][0]:.1f}" if cost.get("store_cpu_s", [0])[0] >= 0.1 else ""
    return f"{cost['wall_s'][0]:.1f} ({cost['cpu_s'][0]:.1f}){store}"
