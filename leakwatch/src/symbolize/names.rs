//! Demangling within bounds.
//!
//! A C++ name of a few hundred bytes can stand for gigabytes (substitutions double), and names come from untrusted
//! files: what is written is cut at [`NAME_BYTES_MAX`].

use std::fmt::{self, Write};
use std::sync::Arc;

/// The longest name or path that is kept, bytes; longer ones are cut and end in `…`.
pub const NAME_BYTES_MAX: usize = 4096;
/// A longer symbol is not even parsed.
const MANGLED_BYTES_MAX: usize = 64 << 10;

/// A string that stops taking more at its bound.
struct Bounded {
    text: String,
    cut: bool,
}

impl Bounded {
    fn new() -> Self {
        Self {
            text: String::new(),
            cut: false,
        }
    }

    fn finish(mut self) -> Arc<str> {
        if self.cut {
            self.text.push('…');
        }
        self.text.into()
    }
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = NAME_BYTES_MAX - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        // Back to the start of a character, which is at most three bytes away.
        let whole = (0..=room).rev().find_map(|end| more.get(..end));
        self.text.push_str(whole.unwrap_or_default());
        self.cut = true;
        Err(fmt::Error)
    }
}

/// A name or path as it is, cut at the bound.
pub fn bounded(name: &str) -> Arc<str> {
    let mut out = Bounded::new();
    let _ = out.write_str(name);
    out.finish()
}

/// A symbol as its author wrote it: Rust without the hash, C++ without return types (the parameters tell overloads
/// apart), anything else unchanged.
pub fn demangled(symbol: &str) -> Arc<str> {
    // The symbol version that some tools append (`malloc@@GLIBC_2.2.5`).
    let symbol = symbol.split_once('@').map_or(symbol, |(name, _)| name);
    // glibc's aliases for its own use.
    let symbol = symbol.strip_prefix("__GI_").unwrap_or(symbol);
    if symbol.len() > MANGLED_BYTES_MAX {
        return bounded(symbol);
    }
    if let Ok(rust) = rustc_demangle::try_demangle(symbol) {
        let mut out = Bounded::new();
        if write!(out, "{rust:#}").is_ok() || out.cut {
            return out.finish();
        }
    } else if symbol.starts_with("_Z")
        && let Ok(cpp) = cpp_demangle::Symbol::new(symbol)
    {
        let mut out = Bounded::new();
        let options = cpp_demangle::DemangleOptions::new().no_return_type();
        if cpp.structured_demangle(&mut out, &options).is_ok() || out.cut {
            return out.finish();
        }
    }
    bounded(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_written() {
        assert_eq!(&*demangled("malloc"), "malloc");
        assert_eq!(&*demangled("malloc@@GLIBC_2.2.5"), "malloc");
        assert_eq!(&*demangled("__GI___libc_malloc"), "__libc_malloc");
        assert_eq!(&*demangled("_Znwm"), "operator new(unsigned long)");
        assert_eq!(
            &*demangled("_ZN5store4keepERKSs"),
            "store::keep(std::string const&)"
        );
        assert_eq!(
            &*demangled("_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE"),
            "alloc::raw_vec::finish_grow"
        );
        assert_eq!(&*demangled("_RNvC6my_app4main"), "my_app::main");
        assert_eq!(&*demangled("_Z"), "_Z");
        assert_eq!(&*demangled(""), "");
    }

    #[test]
    fn a_template_function_has_no_return_type() {
        // template <class T> std::vector<T> keep(T)
        let name = demangled("_Z4keepIiESt6vectorIT_SaIS1_EES1_");
        assert!(name.starts_with("keep<int>("), "{name}");
    }

    #[test]
    fn a_name_that_doubles_is_cut() {
        // Each parameter type is a pair of the one before: 2^n words when written out.
        let mut symbol = String::from("_Z1fSt4pairIiiE");
        for level in 0..40_u32 {
            let digit = char::from_digit(level % 36, 36).unwrap().to_ascii_uppercase();
            let _ = write!(symbol, "St4pairIS{digit}_S{digit}_E");
        }
        let started = std::time::Instant::now();
        let name = demangled(&symbol);
        assert!(name.len() <= NAME_BYTES_MAX + '…'.len_utf8());
        assert!(started.elapsed().as_secs() < 5);
        let long = "x".repeat(1 << 20);
        assert_eq!(demangled(&long).len(), NAME_BYTES_MAX + '…'.len_utf8());
        assert!(bounded(&"é".repeat(NAME_BYTES_MAX)).ends_with("é…"));
    }
}
