//! Allocators above the process's own: what they hand out lies in arenas that they map. Pure.
//!
//! Objects of many call sites share an arena, down to the page, and are freed and made anew in it without a call that can be
//! seen. So whoever touches one of its pages first tells little of whose objects keep it.

use std::collections::HashSet;

use crate::ledger::SiteId;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pool {
    /// CPython's, of objects of up to 512 bytes.
    Pymalloc,
}

/// What pymalloc maps at a time, bytes: before Python 3.10, and since.
const PYMALLOC_ARENAS: [u64; 2] = [256 << 10, 1 << 20];

impl Pool {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pymalloc => "pymalloc",
        }
    }

    /// What its row is called.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pymalloc => "pymalloc arenas",
        }
    }

    /// Whose arena a mapping is. `modules`: the files whose code the two innermost frames of the stack that made it run
    /// through; `each`: bytes of each mapping that was so made, if all have one length.
    ///
    /// By the files, for the functions have no names in the interpreters of distributions. What the C library maps for the
    /// interpreter (a large block, a thread's stack) has another of its frames between.
    #[must_use]
    pub fn of_mapping(modules: [Option<&str>; 2], each: Option<u64>) -> Option<Self> {
        let [Some(inner), Some(outer)] = modules else {
            return None;
        };
        let arena = each.is_some_and(|bytes| PYMALLOC_ARENAS.contains(&bytes));
        (arena && is_interpreter(outer) && !is_interpreter(inner)).then_some(Self::Pymalloc)
    }
}

fn is_interpreter(module: &str) -> bool {
    let file = module.rsplit('/').next().unwrap_or(module);
    // Extension modules are no part of it, wherever they lie.
    let version = file
        .strip_prefix("libpython")
        .or_else(|| file.strip_prefix("python"));
    version.is_some_and(|version| version.is_empty() || version.starts_with(|c: char| c.is_ascii_digit()))
}

/// The arenas that one process mapped in the window, by the call sites that did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arenas {
    pub pool: Pool,
    pub sites: HashSet<SiteId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
    const MIB: Option<u64> = Some(1 << 20);

    #[test]
    fn what_the_interpreter_maps_itself_in_one_length_is_an_arena() {
        for interpreter in [
            "/usr/bin/python3.11",
            "/usr/bin/python3",
            "/opt/app/bin/python",
            "/usr/lib/libpython3.9.so.1.0",
            "/usr/lib/libpython3.12d.so.1.0",
        ] {
            for each in PYMALLOC_ARENAS {
                let found = Pool::of_mapping([Some(LIBC), Some(interpreter)], Some(each));
                assert_eq!(found, Some(Pool::Pymalloc), "{interpreter}");
            }
        }
    }

    #[test]
    fn nothing_else_is() {
        let python = "/usr/bin/python3.11";
        // A block of malloc's own, a mapping of the program's, and one of many lengths.
        assert_eq!(Pool::of_mapping([Some(LIBC), Some(LIBC)], MIB), None);
        assert_eq!(Pool::of_mapping([Some(LIBC), Some(python)], Some(4 << 20)), None);
        assert_eq!(Pool::of_mapping([Some(LIBC), Some(python)], None), None);
        for module in [
            "/srv/pythonic/server",
            "/usr/bin/python-config",
            "/usr/bin/pythonista",
            "/usr/lib/python3/dist-packages/numpy/core/_multiarray.cpython-311-x86_64-linux-gnu.so",
        ] {
            assert_eq!(
                Pool::of_mapping([Some(LIBC), Some(module)], MIB),
                None,
                "{module}"
            );
        }
        // Linked into one file, whose allocator's calls cannot be told from its arenas.
        assert_eq!(Pool::of_mapping([Some(python), Some(python)], MIB), None);
        assert_eq!(Pool::of_mapping([None, Some(python)], MIB), None);
    }
}
