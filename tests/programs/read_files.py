"""Reads the same files over and over and keeps nothing: buffers and page cache come and go, no call site may be
blamed for them. The protocol is that of truth.h."""

import json
import os
import sys
import time


def number(name, otherwise):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else otherwise


def read_whole(path):
    with open(path, "rb") as file:
        return len(file.read())


def main():
    steps, pause = number("--steps", 40), number("--pause-ms", 20) / 1000
    files = [sys.executable, "/proc/self/maps", os.__file__]
    # More than once: the first large block that is freed moves glibc's threshold, and the next ones come from the heap.
    for _ in range(3):
        for path in files:
            read_whole(path)
    print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
    sys.stdin.readline()
    total = 0
    for _ in range(steps):
        total += sum(read_whole(path) for path in files)
        time.sleep(pause)
    print(json.dumps({"site": None, "committed_bytes": 0, "calls": 0, "read_bytes": total}), flush=True)
    sys.stdin.read()


main()
