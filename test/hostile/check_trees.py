"""Answers line by line: what of a case's unpacked root is wrong, by the factory's own check.

Reads JSON {"name", "root" or null, "refused"}; writes a JSON list of complaints, empty when all is well.
Usage: check_trees.py FACTORY
"""
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import check
import make
import model
import ocitar
import tree

rows = {row[0]: row for row in make.suites([])}
expected = os.path.join(sys.argv[1], "expected")
with open(os.path.join(expected, "index.json")) as file:
    index = json.load(file)


def complaints(name, root, refused):
    if rows[name][1] == "hostile" and name not in check.DEMANDS:
        # Nothing is demanded of its tree, which may hold a sparse file of a terabyte.
        root = None
    found = check.check(rows[name], index, expected, root, refused)
    facts = index.get(name, {})
    spec = facts.get("spec", {}).get("same_as", "spec")
    if not found or root is None or spec not in facts.get("accept", []):
        return found
    # A tree that is the rules' own was recorded with the times that another program gave it.
    return tree.differences(model.tree_of(ocitar.Suite().make(rows[name])), tree.scan(root))


for line in sys.stdin:
    ask = json.loads(line)
    found = complaints(ask["name"], ask["root"], ask["refused"])
    print(json.dumps((found or [])[:20]), flush=True)
