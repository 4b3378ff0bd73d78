"""Values as the dashboard's units write them. Near to what Grafana writes, not equal to it."""

import math
from datetime import datetime, timezone

SPANS = [("year", 31536000), ("month", 2628000), ("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)]


def rounded(value, decimals=None):
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 9)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled(value, decimals, steps):
    """The value in the largest of the steps, (name, size) from small to large, that is not larger than it."""
    name, size = steps[0]
    for name_, size_ in steps:
        if abs(value) >= size_:
            name, size = name_, size_
    return f"{rounded(value / size, decimals)} {name}".strip()


def seconds(value, decimals):
    if value == 0:
        return "0 s"
    return scaled(value, decimals, [("µs", 1e-6), ("ms", 1e-3), ("s", 1), ("min", 60), ("hours", 3600), ("days", 86400)])


def duration(value, decimals):
    """The largest spans of time that are in it: one, and one more for each decimal."""
    parts, left = [], int(value)
    for name, size in SPANS:
        count, rest = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}{'s' if count != 1 else ''}")
            left = rest
        if len(parts) > (decimals or 0):
            break
    return ", ".join(parts) or "0 seconds"


def write(unit, value, decimals=None, now=0):
    """`now`, a Unix time, is what dates are relative to."""
    if value is None:
        return ""
    match unit:
        case "s":
            return seconds(value, decimals)
        case "dtdurations":
            return duration(value, decimals)
        case "dateTimeAsIso":
            return datetime.fromtimestamp(value / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        case "dateTimeFromNow":
            return f"{duration(max(0, now - value / 1000), 0)} ago"
        case "bytes":
            return scaled(value, decimals, [("B", 1), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30)])
        case "percentunit":
            return f"{rounded(value * 100, decimals)}%"
        case "reqps":
            return f"{rounded(value, decimals)} req/s"
        case "cps":
            return f"{rounded(value, decimals)} c/s"
        case "short":
            return scaled(value, decimals if value < 1000 else None, [("", 1), ("K", 1e3), ("Mil", 1e6)])
    return rounded(value, decimals)
