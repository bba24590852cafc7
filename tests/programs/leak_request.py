"""A Python service whose leak_request keeps a bytearray for each request; --honest drops it. The protocol is that of
truth.h. Blocks are far over glibc's threshold, so each is a mapping, made below the interpreter's C frames."""

import sys
import time

BLOCK_BYTES = 400 * 1024
HEADER_BYTES = 16 + 1  # malloc's, and the bytearray's closing NUL


def number(name, otherwise):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else otherwise


kept = []


def leak_request(honest):
    block = bytearray(BLOCK_BYTES)
    if not honest:
        kept.append(block)


def answer_request(step):
    return sum(hash((step, part)) & 1 for part in range(200))


def main():
    import json
    import os

    honest = "--honest" in sys.argv
    steps, pause = number("--steps", 40), number("--pause-ms", 20) / 1000
    print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
    sys.stdin.readline()
    for step in range(steps):
        leak_request(honest)
        answer_request(step)
        time.sleep(pause)
    committed = len(kept) * ((BLOCK_BYTES + HEADER_BYTES + 4095) // 4096 * 4096)
    # The interpreter decides which of its C functions calls malloc: the site is named by the Python function here.
    print(
        json.dumps({"site": None if honest else "leak_request", "committed_bytes": committed, "calls": len(kept)}),
        flush=True,
    )
    sys.stdin.read()


main()
