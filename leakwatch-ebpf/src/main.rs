//! leakwatch-ebpf programs.
