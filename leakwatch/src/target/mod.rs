//! Who is watched: (pid, start time) held by a pidfd, never the bare number.
