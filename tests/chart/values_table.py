#!/usr/bin/env python3
"""Writes the table of values in the chart's README.md anew, from values.yaml and the comments in it."""

import json
import re
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts/kube-issuer-gateway"


def rows():
    """Each key of values.yaml that has a comment right above it, its default and the comment."""
    text, found, path, comment = (CHART / "values.yaml").read_text(), [], [], []
    for line in text.splitlines():
        if line.strip().startswith("#"):
            comment.append(line.strip().removeprefix("#").strip())
            continue
        if key := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            value = yaml.safe_load(text)
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            assert comment or value is None or isinstance(value, dict), f"no comment above {'.'.join(path)}"
            if comment:
                found.append((".".join(path), value, " ".join(comment)))
        comment = []
    return found


def readme():
    cell = lambda text: text.replace("|", "\\|")
    table = ["| value | default | meaning |", "|---|---|---|"]
    table += [f"| `{name}` | `{cell(json.dumps(value))}` | {cell(meaning)} |" for name, value, meaning in rows()]
    text = (CHART / "README.md").read_text()
    return re.sub(r"(<!-- values:.*?-->\n).*?(<!-- /values -->)", lambda it: it[1] + "\n".join(table) + "\n" + it[2], text, flags=re.S)


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
