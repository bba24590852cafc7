use super::*;

/// A frame written `module!function`; an empty function has no symbol.
fn frame(text: &str) -> SymbolizedFrame {
    let (module, function) = text.split_once('!').unwrap();
    SymbolizedFrame {
        offset: 0x1234,
        module: (!module.is_empty()).then(|| module.into()),
        function: (!function.is_empty()).then(|| function.into()),
        ..SymbolizedFrame::default()
    }
}

#[track_caller]
fn blames(stack: &[&str], expected: &str) {
    let frames: Vec<_> = stack.iter().map(|text| frame(text)).collect();
    let index = culprit(&frames).unwrap();
    assert_eq!(frame_label(&frames[index]), expected, "{stack:#?}");
}

const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";

fn libc(function: &str) -> String {
    format!("{LIBC}!{function}")
}

#[test]
fn glibc_with_and_without_its_debug_file() {
    let [brk, sbrk, sysmalloc, nameless] = ["__brk", "__sbrk", "sysmalloc", ""].map(libc);
    blames(
        &[
            &brk,
            &sbrk,
            &sysmalloc,
            "/srv/app!handle_upload",
            "/srv/app!main",
            &libc("__libc_start_call_main"),
        ],
        "handle_upload",
    );
    blames(
        &[
            &brk,
            &nameless,
            &nameless,
            "/srv/app!handle_upload",
            "/srv/app!main",
        ],
        "handle_upload",
    );
    blames(
        &[
            &libc("mprotect"),
            &nameless,
            "/srv/app!worker(int)",
            &libc("start_thread"),
            &libc("clone3"),
        ],
        "worker(int)",
    );
}

#[test]
fn static_glibc_and_musl() {
    blames(
        &[
            "/srv/app!__brk",
            "/srv/app!__sbrk",
            "/srv/app!__glibc_morecore",
            "/srv/app!sysmalloc",
            "/srv/app!_int_malloc",
            "/srv/app!__libc_malloc",
            "/srv/app!__strdup",
            "/srv/app!remember",
            "/srv/app!main",
        ],
        "remember",
    );
    blames(
        &["/srv/app!__memmove_avx_unaligned_erms", "/srv/app!fill"],
        "fill",
    );
    blames(
        &["/srv/app!__memset_chk", "/srv/app!memset@plt", "/srv/app!fill"],
        "fill",
    );
    blames(
        &[
            "/srv/app!mprotect",
            "/srv/app!sysmalloc.part.0",
            "/srv/app!_int_malloc.constprop.0",
            "/srv/app!grow.isra.0",
        ],
        "grow.isra.0",
    );
    blames(
        &[
            "/lib/ld-musl-x86_64.so.1!__expand_heap",
            "/lib/ld-musl-x86_64.so.1!",
            "/srv/app!keep",
        ],
        "keep",
    );
}

#[test]
fn cpp() {
    blames(
        &[
            &libc("brk"),
            &libc("malloc"),
            "/usr/lib/libstdc++.so.6!operator new(unsigned long)",
            "/srv/app!std::__new_allocator<char>::allocate(unsigned long, void const*)",
            "/srv/app!std::vector<char, std::allocator<char> >::_M_realloc_insert<char const&>(char const*, char const&)",
            "/srv/app!Store::keep(std::string const&)",
            "/srv/app!main",
        ],
        "Store::keep(std::string const&)",
    );
    blames(
        &[
            "/srv/app!operator new[](unsigned long)",
            "/srv/app!std::__1::basic_string<char>::append",
            "/srv/app!(anonymous namespace)::session()",
        ],
        "(anonymous namespace)::session()",
    );
    // A static C++ program whose names were not demangled.
    blames(&["/srv/app!_Znwm", "/srv/app!_Z4keepv"], "_Z4keepv");
}

#[test]
fn rust() {
    blames(
        &[
            &libc("malloc"),
            "/srv/app!__rdl_alloc",
            "/srv/app!alloc::alloc::alloc",
            "/srv/app!<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "/srv/app!alloc::raw_vec::finish_grow",
            "/srv/app!<alloc::vec::Vec<T,A> as core::iter::traits::collect::Extend<T>>::extend",
            "/srv/app!<T as alloc::slice::hack::ConvertVec>::to_vec",
            "/srv/app!<str as alloc::string::ToString>::to_string",
            "/srv/app!<[u8] as alloc::borrow::ToOwned>::to_owned",
            "/srv/app!hashbrown::raw::RawTable<T,A>::reserve_rehash",
            "/srv/app!std::collections::hash::map::HashMap<K,V,S>::insert",
            "/srv/app!my_app::cache::Cache::remember",
            "/srv/app!std::rt::lang_start",
        ],
        "my_app::cache::Cache::remember",
    );
    blames(
        &[
            "/srv/app!__rustc::__rust_alloc",
            "/srv/app!<my_app::Session as core::clone::Clone>::clone",
        ],
        "<my_app::Session as core::clone::Clone>::clone",
    );
    blames(
        &["/srv/app!__rust_alloc", "/srv/app!my_app::main::{{closure}}"],
        "my_app::main::{{closure}}",
    );
}

#[test]
fn the_allocator_that_a_rust_program_brings_is_an_allocator() {
    // As a release build has it, whose compiler inlined most of it.
    let inlined = [
        "/srv/app!mi_page_free_list_extend",
        "/srv/app!_mi_malloc_generic",
        "/srv/app!alloc",
        "/srv/app!__rust_alloc",
        "/srv/app!alloc::raw_vec::RawVecInner::with_capacity_in",
        "/srv/app!app::handle_upload",
        "/srv/app!app::main",
    ];
    blames(&inlined, "app::handle_upload");
    // One of somebody's own that counts, by its trait or by the symbol that the compiler makes.
    let counting = |entry| {
        let stack = [
            &libc("__brk"),
            &libc("malloc"),
            "/srv/app!app::counting::tally",
            entry,
            "/srv/app!app::handle_upload",
            "/srv/app!app::main",
        ];
        blames(&stack, "app::handle_upload");
    };
    counting("/srv/app!<app::counting::Counting as core::alloc::global::GlobalAlloc>::realloc");
    counting("/srv/app!__rustc::__rust_alloc_zeroed");
    // What is named alike is not.
    blames(&["/srv/app!alloc", "/srv/app!app::main"], "alloc");
}

#[test]
fn other_allocators() {
    blames(
        &[
            "/srv/redis-server!os_pages_map",
            "/srv/redis-server!je_pages_map",
            "/srv/redis-server!extent_grow_retained",
            "/srv/redis-server!je_arena_cache_bin_fill_small",
            "/srv/redis-server!zmalloc",
            "/srv/redis-server!_sdsnewlen",
            "/srv/redis-server!tryObjectEncoding",
            "/srv/redis-server!setCommand",
        ],
        "tryObjectEncoding",
    );
    blames(
        &[
            &libc("mmap64"),
            "/usr/lib/libjemalloc.so.2!",
            "/usr/lib/libjemalloc.so.2!malloc",
            "/srv/app!keep",
        ],
        "keep",
    );
    blames(
        &[
            &libc("mmap64"),
            "/usr/lib/libtcmalloc_minimal.so.4!tcmalloc::PageHeap::GrowHeap(unsigned long)",
            "/usr/lib/libtcmalloc_minimal.so.4!",
            "/srv/app!keep",
        ],
        "keep",
    );
    blames(
        &[
            "/srv/app!_mi_os_alloc_aligned",
            "/srv/app!mi_malloc",
            "/srv/app!keep",
        ],
        "keep",
    );
}

#[test]
fn runtimes() {
    blames(
        &[
            "/srv/go!runtime/internal/syscall.Syscall6",
            "/srv/go!runtime.sysMmap",
            "/srv/go!runtime.(*mheap).grow",
            "/srv/go!runtime.mallocgc",
            "/srv/go!runtime.growslice",
            "/srv/go!main.(*store).keep",
            "/srv/go!runtime.main",
            "/srv/go!runtime.goexit",
        ],
        "main.(*store).keep",
    );
    blames(
        &["/srv/go!runtime.mallocgc", "/srv/go!example.com/x/runtime.Keep"],
        "example.com/x/runtime.Keep",
    );
    blames(
        &[
            &libc("mmap64"),
            "/usr/bin/python3.11!_PyObject_Arena",
            "/usr/bin/python3.11!new_arena",
            "/usr/bin/python3.11!_PyObject_Malloc",
            "/usr/bin/python3.11!PyUnicode_New",
            "/usr/bin/python3.11!list_resize",
            "/usr/bin/python3.11!_PyEval_EvalFrameDefault",
        ],
        "_PyEval_EvalFrameDefault",
    );
    blames(
        &[
            "/jdk/libjvm.so!os::pd_commit_memory(char*, unsigned long, bool)",
            "/jdk/libjvm.so!os::commit_memory(char*, unsigned long, bool)",
            "/jdk/libjvm.so!VirtualSpace::expand_by(unsigned long, bool)",
            "/jdk/libjvm.so!CodeHeap::expand_by(unsigned long)",
        ],
        "CodeHeap::expand_by(unsigned long)",
    );
    // `os::` is the JVM's only in the JVM.
    blames(&["/srv/app!os::commit_memory(char*)"], "os::commit_memory(char*)");
}

#[test]
fn programs_with_layers_of_their_own() {
    blames(
        &[
            &libc("malloc"),
            "/usr/lib/postgresql/15/bin/postgres!AllocSetAlloc",
            "/usr/lib/postgresql/15/bin/postgres!palloc0",
            "/usr/lib/postgresql/15/bin/postgres!exec_simple_query",
        ],
        "exec_simple_query",
    );
    blames(
        &[
            &libc("malloc"),
            "/usr/sbin/nginx!ngx_alloc",
            "/usr/sbin/nginx!ngx_create_pool",
            "/usr/sbin/nginx!ngx_http_create_request",
        ],
        "ngx_http_create_request",
    );
    blames(
        &[
            &libc("malloc"),
            "/usr/lib/libglib-2.0.so.0!g_malloc0",
            "/usr/lib/libglib-2.0.so.0!g_strdup_printf",
            "/srv/app!keep",
        ],
        "keep",
    );
}

#[test]
fn somebodys_own_code_is_not_excluded_for_its_name() {
    for own in [
        "my_malloc_stats",
        "std_handler",
        "stdx::keep",
        "malloc_report",
        "memcpy_fast",
        "allocator::new",
        "corelib::f",
        "allocate",
        "jezebel",
        "runtimes.keep",
        "standard::keep",
        "brk_handler",
        "os::keep",
        "__my_memcpy",
        "xmalloc_audit",
        "operators::f",
    ] {
        blames(
            &["/srv/app!malloc", &format!("/srv/app!{own}"), "/srv/app!main"],
            own,
        );
    }
}

#[test]
fn code_without_a_symbol() {
    blames(&[&libc(""), "/srv/app!", "/srv/app!main"], "app+0x1234");
    blames(&[&libc("mmap"), "!", "/usr/bin/node!node::Start"], "0x1234");
}

#[test]
fn what_an_allocator_calls_in_its_stripped_module_is_its_inside() {
    let postgres = |function: &str| format!("/usr/lib/postgresql/15/bin/postgres!{function}");
    let [nameless, palloc, copy] = ["", "palloc", "copyObjectImpl"].map(postgres);
    blames(&[&nameless, &nameless, &palloc, &copy], "copyObjectImpl");
    blames(&[&nameless, &copy, &palloc], "postgres+0x1234");
    blames(&["/usr/lib/other.so!", &palloc, &copy], "other.so+0x1234");
}

#[test]
fn a_stack_of_excluded_frames_only() {
    blames(
        &[
            &libc("brk"),
            &libc("malloc"),
            "/srv/app!operator new(unsigned long)",
            "/srv/app!std::thread::run",
        ],
        "operator new(unsigned long)",
    );
    blames(&[&libc("__brk"), &libc("malloc")], "__brk");
    blames(
        &["/lib64/ld-linux-x86-64.so.2!_dl_map_object", &libc("dlopen")],
        "_dl_map_object",
    );
    assert_eq!(culprit(&[]), None);
}

#[test]
fn every_row_has_functions() {
    for family in TABLE {
        assert!(!family.functions.is_empty(), "{}", family.name);
        let any = family.functions.iter().any(|pattern| matches!(pattern, Any));
        assert!(
            !any || !family.modules.is_empty(),
            "{} excludes everything",
            family.name
        );
    }
}

#[test]
fn inlined_library_code_is_known_by_its_file() {
    let frame = |function: &str, file: &str| SymbolizedFrame {
        function: Some(function.into()),
        file: Some(file.into()),
        module: Some("/srv/shop".into()),
        inlined: true,
        ..SymbolizedFrame::default()
    };
    let stack = [
        frame("alloc", "/rustc/59807616e1fa/library/alloc/src/alloc.rs"),
        frame(
            "with_capacity_in<u8, alloc::alloc::Global>",
            "/rustc/59807616e1fa/library/alloc/src/raw_vec/mod.rs",
        ),
        frame("allocate", "/usr/include/c++/12/bits/new_allocator.h"),
        frame("handle_upload", "/srv/src/library/upload.rs"),
        frame("work", "/srv/src/main.rs"),
    ];
    assert_eq!(culprit(&stack), Some(3));
}
