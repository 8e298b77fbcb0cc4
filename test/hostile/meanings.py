"""Prints what the entries of each legal layer of the images mean, as JSON: by case, by layer, in order.

The factory knows it apart from the bytes that it writes. Bytes of names are latin1 here.
"""

import hashlib, json, sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import make, ocitar


def text(value):
    return ocitar.b(value).decode("latin1")


def meaning(entry):
    data = entry["data"] if entry["kind"] == "file" else b""
    digest = hashlib.sha256()
    for piece in ocitar.pieces(data):
        digest.update(piece)
    return {
        "path": text(entry["name"]),
        "type": entry["kind"],
        "link": text(entry["link"]),
        "mode": entry["mode"],
        "uid": entry["uid"],
        "gid": entry["gid"],
        "mtime": str(entry["ns"]),
        "device": list(entry["dev"]),
        "xattrs": {k if isinstance(k, str) else k.decode(): text(v) for k, v in entry["xattrs"].items()},
        "size": ocitar.size_of(data),
        "sha256": digest.hexdigest(),
    }


suite = ocitar.Suite()
cases = {}
for row in make.suites():
    if row[1] == "nasty":
        case = suite.make(row)
        cases[row[0]] = [[meaning(entry) for entry in layer.entries] for layer in case.layers]
json.dump(cases, sys.stdout)
