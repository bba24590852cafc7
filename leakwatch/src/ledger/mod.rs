//! Who owns which byte of the target's private address space: pure, no IO, no clock.
