//! A Python process that keeps small objects.

use super::{LIBC, empty, frame, mapped, touched};
use crate::diagnose::pool::Pool;
use crate::diagnose::rank::{GroupBy, SiteFacts, Via, rank};
use crate::report::build;
use crate::report::model::Recording;
use crate::symbolize::SymbolizedFrame;

/// Two who touched its arenas first, and one who mapped them.
pub fn arenas() -> Recording {
    let python = |function: &str, line| {
        frame(
            function,
            "/usr/bin/python3.11",
            Some(("Objects/obmalloc.c", line)),
        )
    };
    let stack = |functions: &[&str]| -> Vec<SymbolizedFrame> {
        functions
            .iter()
            .zip(100..)
            .map(|(name, line)| python(name, line))
            .collect()
    };
    let in_arenas = |site: SiteFacts| SiteFacts {
        pool: Some(Pool::Pymalloc),
        ..site
    };
    let mut mapping = stack(&[
        "_PyObject_ArenaMmap",
        "new_arena",
        "pymalloc_alloc",
        "Py_BytesMain",
    ]);
    mapping.insert(0, frame("mmap", LIBC, None));
    let facts = vec![
        in_arenas(touched(
            stack(&[
                "allocate_from_new_pool",
                "pattern_new_match",
                "_sre_SRE_Pattern_match",
                "Py_BytesMain",
            ]),
            11,
            12,
            1,
        )),
        in_arenas(touched(
            stack(&["pymalloc_pool_extend", "make_session", "Py_BytesMain"]),
            9,
            9,
            1,
        )),
        in_arenas(mapped(Via::Mmap, mapping, 20, 20)),
        touched(stack(&["bytes_new_impl", "Py_BytesMain"]), 5, 5, 1),
    ];
    Recording {
        call_sites: build::call_sites(&rank(facts, GroupBy::Stack, 60.0)),
        ..empty()
    }
}
