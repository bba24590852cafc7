"""A Python service that keeps something of each request and drops the rest, until stdin closes. The protocol is that of
cohort.h.

--large  keeps bytes of 1,500: over 512, so that each is a block of malloc's own, made below the interpreter's C functions.
--small  keeps lists of small integers and strings: pymalloc's, which has them in arenas that it maps.
With --fixed only the latest hundred are kept."""

import collections
import json
import os
import sys
import threading
import time

LARGE_BYTES = 1500
KEPT_WHEN_FIXED = 100
REQUESTS_A_SECOND = 4000

fixed, small = "--fixed" in sys.argv, "--small" in sys.argv
kept = collections.deque(maxlen=KEPT_WHEN_FIXED if fixed else None)
counts = {"answers": 0, "kept": 0, "wrong": 0}


def chunk_bytes(size):
    """What a block of this size costs in glibc's arenas."""
    return (size + 8 + 15) // 16 * 16


def keep_request(number):
    if small:
        kept.append([f"request {number} part {part}" for part in range(6)])
    else:
        kept.append(bytes(LARGE_BYTES))
    counts["kept"] += 1


def answer_request(number):
    parts = [b"%d" % (number * 31 + part) * (150 + part * 40) for part in range(4)]
    page = b"".join(parts)
    if len(page) != sum(map(len, parts)):
        counts["wrong"] += 1
    counts["answers"] += 1


def truth():
    number = min(counts["kept"], KEPT_WHEN_FIXED) if fixed else counts["kept"]
    if small:
        # Of pymalloc's own: what it costs depends on its arenas and pools.
        sizes = [sys.getsizeof(part) for part in kept[0]] + [sys.getsizeof(kept[0]) - 16] if kept else []
        each = sum((size + 15) // 16 * 16 for size in sizes)
    else:
        each = chunk_bytes(sys.getsizeof(bytes(LARGE_BYTES)))
    return {
        "site": None if fixed else "keep_request",
        "committed_bytes": number * each,
        "calls": number,
        "answers": counts["answers"],
        "wrong": counts["wrong"],
        "functions": {"keep_request": number * each},
        "innocents": ["answer_request"],
    }


def work(go):
    number = 0
    for _ in range(2000):
        answer_request(number)
    while fixed and len(kept) < KEPT_WHEN_FIXED:
        keep_request(number)
    go.wait()
    began, done = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * REQUESTS_A_SECOND)
        for request in range(done, due):
            number += 1
            answer_request(number)
            # One in eight.
            if request % 8 == 0:
                keep_request(number)
        done = due
        time.sleep(0.002)


go = threading.Event()
worker = threading.Thread(target=work, args=(go,), daemon=True)
worker.start()
print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
sys.stdin.readline()
go.set()
for _ in sys.stdin:
    print(json.dumps(truth()), flush=True)
os._exit(0)
