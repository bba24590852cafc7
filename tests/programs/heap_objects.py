"""Small objects, of which every third is dropped again. It asks its own C library what that made of the heap: mallinfo2
for all arenas together."""

import ctypes
import json
import os
import sys


class Info(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]


ask = ctypes.CDLL(None).mallinfo2
ask.restype = Info
print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
sys.stdin.readline()
kept = [{i: str(i) * 9, "text": "x" * (i % 3000)} for i in range(20000)]
del kept[::3]
truth = {"site": None, "committed_bytes": 0, "calls": 0}
names = {
    "uordblks": 0, "fordblks": 0, "system": 0, "fastbins": 0, "mapped_bytes": 0, "mapped_count": 0,
}
info = ask()
names = {
    "uordblks": info.uordblks,
    "fordblks": info.fordblks,
    "system": info.arena,
    "fastbins": info.fsmblks,
    "mapped_bytes": info.hblkhd,
    "mapped_count": info.hblks,
}
print(json.dumps({**truth, **names}), flush=True)
sys.stdin.read()
