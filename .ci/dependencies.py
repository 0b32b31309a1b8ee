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
    registries = {f"registry+{url}" for url in policy["sources"]["allow-registry"]}
    banned = {entry["crate"]: entry.get("reason", "") for entry in policy["bans"].get("deny", [])}
    data, bad = json.load(sys.stdin), []
    members = set(data["workspace_members"])
    others = [package for package in data["packages"] if package["id"] not in members]
    for package in others:
        name = f"{package['name']} {package['version']}"
        if package["source"] not in registries:
            bad.append(f"{name}: comes from {package['source']}")
        if not acceptable(package["license"] or "", allowed):
            bad.append(f"{name}: licence {package['license']}")
        if package["name"] in banned:
            bad.append(f"{name}: banned, {banned[package['name']]}")
    print(f"{len(others)} dependencies")
    if bad:
        sys.exit("\n".join(bad))


main()
