"""Holds what `cargo metadata` says (standard input) against .deny.toml: registries, licences, banned crates."""

import json
import re
import sys
import tomllib


def acceptable(expression, allowed):
    """Whether an SPDX expression can be met: of alternatives one is enough, of joined terms all are needed."""
    tokens = re.findall(r"\(|\)|\bAND\b|\bOR\b|[^()\s]+(?:\s+WITH\s+[^()\s]+)?", expression.replace("/", " OR "))
    values = " ".join(
        {"AND": "and", "OR": "or"}.get(token, token if token in "()" else str(token in allowed)) for token in tokens
    )
    return bool(values) and eval(values, {"__builtins__": {}})  # Only True, False, and, or and brackets are left.


def main():
    with open(".deny.toml", "rb") as file:
        policy = tomllib.load(file)
    allowed = set(policy["licenses"]["allow"])
    banned = {entry["crate"]: entry.get("reason", "") for entry in policy["bans"].get("deny", [])}
    data, bad = json.load(sys.stdin), []
    members = set(data["workspace_members"])
    others = [package for package in data["packages"] if package["id"] not in members]
    # The default registry, whatever its address is where this runs; nothing from a repository or a second registry.
    sources = {package["source"] for package in others}
    if len(sources) != 1:
        bad.append(f"dependencies come from more than one place: {sorted(map(str, sources))}")
    for package in others:
        name = f"{package['name']} {package['version']}"
        if not (package["source"] or "").startswith("registry+"):
            bad.append(f"{name}: comes from {package['source']}")
        if not acceptable(package["license"] or "", allowed):
            bad.append(f"{name}: licence {package['license']}")
        if package["name"] in banned:
            bad.append(f"{name}: banned, {banned[package['name']]}")
    print(f"{len(others)} dependencies")
    if bad:
        sys.exit("\n".join(bad))


main()
