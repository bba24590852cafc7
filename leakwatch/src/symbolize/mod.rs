//! From (module, offset) to names, when the report is made. The only stage that imports blazesym.

use std::sync::Arc;

/// A frame with whatever is known of it. Strings come from untrusted files: they are escaped where they are shown,
/// not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymbolizedFrame {
    /// ELF virtual address in the module, or the absolute address where there is no module.
    pub offset: u64,
    /// Path of the module as the target names it; `[vdso]` for the vDSO; `None` for anonymous code.
    pub module: Option<Arc<str>>,
    /// Build ID, lower-case hex.
    pub build_id: Option<Arc<str>>,
    /// Demangled; `None` where no symbol is known.
    pub function: Option<Arc<str>>,
    pub file: Option<Arc<str>>,
    pub line: Option<u32>,
    /// This frame was inlined into the next one (the same offset).
    pub inlined: bool,
}
