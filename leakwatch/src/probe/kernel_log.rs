//! What a debug object logs in the kernel, on stderr. Only in builds with the feature `kernel-log`; with an object that
//! logs nothing there is nothing to print.

use std::io::Write as _;

use aya::Ebpf;
use aya_log::EbpfLogger;

pub(super) struct KernelLog(Option<EbpfLogger<Stderr>>);

impl KernelLog {
    pub fn of(ebpf: &mut Ebpf) -> Self {
        // An ordinary object has no log map, which is no error.
        Self(EbpfLogger::init_with_logger(ebpf, Stderr).ok())
    }

    /// Prints what has come.
    pub fn flush(&mut self) {
        if let Some(logger) = &mut self.0 {
            logger.flush();
        }
    }
}

pub(super) struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // A closed stderr takes the diagnosis along, nothing else.
        let _ = writeln!(std::io::stderr(), "kernel: {}", record.args());
    }

    fn flush(&self) {}
}
