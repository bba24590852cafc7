//! Names of classes as the Itanium C++ ABI mangles them. Untrusted: bounded on the way in and on the way out.

use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest name that is kept, bytes; longer ones are cut and end in `…`.
pub const NAME_BYTES_MAX: usize = 1024;
/// A longer mangled name is not even parsed.
pub const MANGLED_BYTES_MAX: usize = 4096;

/// The class with this mangled name: `N5store7SessionE` is `store::Session`.
pub fn class(mangled: &str) -> Option<String> {
    // A class's name, one in a namespace, in `std` or another substitution, or in a function. `i` would be `int`.
    let begins = mangled.starts_with(|letter: char| letter.is_ascii_digit() || "NSZ".contains(letter));
    if !begins || !is_identifier(mangled) {
        return None;
    }
    const PREFIX: &str = "typeinfo name for ";
    let name = demangled(&format!("_ZTS{mangled}"), NAME_BYTES_MAX + PREFIX.len())?;
    name.strip_prefix(PREFIX)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// The class whose vtable this symbol is: `_ZTVN5store7SessionE`, perhaps with a version or a compiler's suffix.
pub fn vtable(symbol: &str) -> Option<String> {
    class(bare(symbol).strip_prefix("_ZTV")?)
}

/// A constant's symbol as its author wrote it. `None` for what the compiler made for itself, and for Rust: there the
/// order of fields is the compiler's, so the first word tells little.
pub fn constant(symbol: &str) -> Option<String> {
    let symbol = bare(symbol);
    let rust = symbol.starts_with("_R") || is_legacy_rust(symbol);
    let made = symbol.starts_with("_ZT") || symbol.starts_with("_ZG");
    if symbol.is_empty() || rust || made || !is_identifier(symbol) {
        return None;
    }
    if symbol.starts_with("_Z") {
        demangled(symbol, NAME_BYTES_MAX)
    } else {
        let mut out = Bounded::of(NAME_BYTES_MAX);
        let _ = out.write_str(symbol);
        Some(out.finish())
    }
}

/// Letters of identifiers only, of which mangled names consist as well. In ASCII: the demangler takes no other.
fn is_identifier(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$')
}

/// Without `@VERSION`, and without `.lto_priv.0`, `.0` and what else compilers append to tell namesakes apart.
fn bare(symbol: &str) -> &str {
    symbol.split(['@', '.']).next().unwrap_or_default()
}

/// `_ZN…17h0123456789abcdefE`.
fn is_legacy_rust(symbol: &str) -> bool {
    symbol
        .strip_suffix('E')
        .and_then(|it| it.get(it.len().checked_sub(19)?..))
        .and_then(|it| it.strip_prefix("17h"))
        .is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn demangled(symbol: &str, most: usize) -> Option<String> {
    if symbol.len() > MANGLED_BYTES_MAX {
        return None;
    }
    // The parser limits its depth, and the writer its length. That it never panics is not promised.
    catch_unwind(AssertUnwindSafe(|| {
        let parsed = cpp_demangle::Symbol::new(symbol).ok()?;
        let mut out = Bounded::of(most);
        let done = parsed.structured_demangle(&mut out, &cpp_demangle::DemangleOptions::new());
        (done.is_ok() || out.cut).then(|| out.finish())
    }))
    .ok()
    .flatten()
}

/// A string that stops taking more at its bound. Names double with every substitution: some hundred bytes can stand
/// for gigabytes.
struct Bounded {
    text: String,
    most: usize,
    cut: bool,
}

impl Bounded {
    fn of(most: usize) -> Self {
        Self {
            text: String::new(),
            most,
            cut: false,
        }
    }

    fn finish(mut self) -> String {
        if self.cut {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.most.saturating_sub(self.text.len());
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let whole = (0..=room).rev().find_map(|end| more.get(..end));
        self.text.push_str(whole.unwrap_or_default());
        self.cut = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn classes() {
        for (mangled, name) in [
            ("7Session", "Session"),
            ("N5store7SessionE", "store::Session"),
            ("N12_GLOBAL__N_13JobE", "(anonymous namespace)::Job"),
            ("St9exception", "std::exception"),
            ("Z4mainE5Local", "main::Local"),
            (
                "St23_Sp_counted_ptr_inplaceI7SessionSaIvELN9__gnu_cxx12_Lock_policyE2EE",
                "std::_Sp_counted_ptr_inplace<Session, std::allocator<void>, (__gnu_cxx::_Lock_policy)2>",
            ),
        ] {
            assert_eq!(class(mangled).as_deref(), Some(name));
            assert_eq!(vtable(&format!("_ZTV{mangled}")).as_deref(), Some(name));
        }
        assert_eq!(vtable("_ZTV7Session@@LIB_1").as_deref(), Some("Session"));
        assert_eq!(vtable("_ZTV7Session.lto_priv.0").as_deref(), Some("Session"));
    }

    #[test]
    fn what_names_no_class() {
        for mangled in [
            "",
            "i",
            "P7Session",
            "8Session",
            "6Session",
            "7Session1",
            "Session",
            "N5store7Session",
            "7Sess on",
            "7Se\x1b[3mn",
            "7Grüße",
            "hello",
            "1",
            "99999999999999999999a",
            "S_",
        ] {
            assert_eq!(class(mangled), None, "{mangled}");
        }
        for symbol in [
            "_ZTI7Session",
            "_ZTS7Session",
            "_ZTC1B0_1A",
            "_ZTT1B",
            "_ZTV",
            "main",
            "_ZTVi",
        ] {
            assert_eq!(vtable(symbol), None, "{symbol}");
        }
    }

    #[test]
    fn constants() {
        assert_eq!(constant("file_ops").as_deref(), Some("file_ops"));
        assert_eq!(constant("ops.0").as_deref(), Some("ops"));
        assert_eq!(constant("_ZL8file_ops").as_deref(), Some("file_ops"));
        assert_eq!(constant("_ZN5store3opsE").as_deref(), Some("store::ops"));
        for symbol in [
            "",
            ".LC0",
            "_ZTV7Session",
            "_ZTI7Session",
            "_ZGR1a_",
            "_ZN5bytes5bytes13SHARED_VTABLE17h0123456789abcdefE",
            "_RNvC6my_app4main",
            "a b",
            "_Z",
        ] {
            assert_eq!(constant(symbol), None, "{symbol}");
        }
    }

    #[test]
    fn a_name_that_doubles_or_does_not_end_is_cut() {
        let mut mangled = String::from("4NameISt4pairIiiE");
        for level in 0..36_u32 {
            let digit = char::from_digit(level, 36).unwrap().to_ascii_uppercase();
            let _ = write!(mangled, "St4pairIS{digit}_S{digit}_E");
        }
        mangled.push('E');
        if let Some(name) = class(&mangled) {
            assert!(name.len() <= NAME_BYTES_MAX + '…'.len_utf8());
        }
        let long = format!("2000{}", "x".repeat(2000));
        let name = class(&long).unwrap();
        assert!(name.len() == NAME_BYTES_MAX + '…'.len_utf8() && name.ends_with("x…"));
        assert_eq!(class(&format!("5000{}", "x".repeat(5000))), None);
        assert_eq!(class(&"N".repeat(4000)), None);
        assert_eq!(
            constant(&"e".repeat(4000)).unwrap().len(),
            NAME_BYTES_MAX + '…'.len_utf8()
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(tail in "[0-9A-Za-z_]{0,60}", all in "\\PC{0,40}") {
            for name in [&tail, &all] {
                for begin in ["", "7", "N", "St", "Z4main"] {
                    let _ = class(&format!("{begin}{name}"));
                }
                let _ = (vtable(&format!("_ZTV{name}")), constant(&format!("_Z{name}")), constant(name));
            }
        }
    }
}
