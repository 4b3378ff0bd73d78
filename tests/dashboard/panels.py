"""What check, record and draw share: the dashboard's panels and their queries."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "charts/kube-issuer-gateway/files/dashboard.json"


def load():
    return json.loads(DASHBOARD.read_text())


def queries(dashboard):
    """Each (panel, target) of the dashboard."""
    return [(panel, target) for panel in dashboard["panels"] for target in panel.get("targets", [])]


def expand(expr, rate_interval, selected=".*"):
    """The query as Grafana sends it: with All, or with what was selected, for namespace and job."""
    values = {"namespace": selected, "job": selected, "__rate_interval": rate_interval}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expr)


def legend(target, labels):
    text = re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), target.get("legendFormat", ""))
    return " ".join(text.split())


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
