//! The frame a stack is named by: the innermost one that is somebody's own code.
//!
//! Allocators, the C and C++ libraries' memory and string routines, the allocation paths of language runtimes and the
//! loader stand between a call site and the kernel in every stack; naming them would say nothing. They are listed in
//! one table, `TABLE`.

use crate::symbolize::SymbolizedFrame;

/// One family of code that is never to blame by itself.
struct Family {
    /// For readers of the table and for the fallback in [`culprit`].
    name: &'static str,
    /// Which modules it lives in, by the beginning of their file name; empty: wherever the function stands (static
    /// linking, inlining, headers).
    modules: &'static [&'static str],
    functions: &'static [Pattern],
}

/// What a function is called.
enum Pattern {
    /// Exactly this, parameters aside.
    Is(&'static str),
    /// Begins so.
    Begins(&'static str),
    /// This libc routine or one of its variants: `__memcpy_avx_unaligned_erms`, `__memcpy_chk`, `memcpy@plt`.
    Routine(&'static str),
    /// Any function, and code without a symbol.
    Any,
}

use Pattern::{Any, Begins, Is, Routine};

const C_LIBRARY: &str = "C library";
const LOADER: &str = "loader";
const RUST: &str = "Rust";

#[rustfmt::skip]
static TABLE: &[Family] = &[
    // Shared libraries that hold nothing else. A stripped libc has no symbols for malloc's insides, and what asks for
    // memory in it (stdio buffers, getaddrinfo, qsort) does so for its caller.
    Family { name: C_LIBRARY, modules: &["libc.so", "libc-2.", "libc.musl", "ld-musl-", "libpthread.so", "libpthread-2.", "libm.so", "librt.so", "libdl.so"], functions: &[Any] },
    Family { name: LOADER, modules: &["ld-linux", "ld-2.", "ld.so", "[vdso]"], functions: &[Any] },
    Family { name: "C++ library", modules: &["libstdc++.so", "libc++.so", "libc++abi.so", "libgcc_s.so", "libunwind.so"], functions: &[Any] },
    Family { name: "jemalloc", modules: &["libjemalloc"], functions: &[Any] },
    Family { name: "tcmalloc", modules: &["libtcmalloc"], functions: &[Any] },
    Family { name: "mimalloc", modules: &["libmimalloc"], functions: &[Any] },
    Family { name: "other allocators", modules: &["libsnmalloc", "libhoard", "librpmalloc", "libtbbmalloc", "libscudo", "libhardened_malloc"], functions: &[Any] },

    // The same code linked statically.
    Family { name: C_LIBRARY, modules: &[], functions: &[
        Is("malloc"), Is("calloc"), Is("realloc"), Is("reallocarray"), Is("free"), Is("cfree"), Is("memalign"), Is("aligned_alloc"), Is("posix_memalign"), Is("valloc"), Is("pvalloc"),
        Is("malloc_consolidate"), Is("malloc_hook_ini"), Is("ptmalloc_init"), Is("sysmalloc"), Is("sysmalloc_mmap"), Is("sysmalloc_mmap_fallback"), Is("systrim"), Is("unlink_chunk"), Is("mremap_chunk"),
        Begins("_int_malloc"), Begins("_int_realloc"), Begins("_int_memalign"), Begins("_int_free"), Begins("_mid_memalign"),
        Is("grow_heap"), Is("shrink_heap"), Is("new_heap"), Is("alloc_new_heap"), Is("heap_trim"), Is("arena_get2"), Is("arena_get_retry"), Is("_int_new_arena"), Is("tcache_init"), Is("tcache_malloc"), Is("tcache_calloc"),
        Is("brk"), Is("__brk"), Is("__brk_call"), Is("sbrk"), Is("__sbrk"), Is("mmap"), Is("__mmap"), Is("mmap64"), Is("__mmap64"), Is("munmap"), Is("__munmap"), Is("mremap"), Is("__mremap"), Is("mprotect"), Is("__mprotect"), Is("madvise"), Is("__madvise"),
        Is("syscall"), Is("__syscall"), Is("__default_morecore"), Is("__glibc_morecore"), Is("__morecore"), Is("__malloc"), Is("__calloc"), Is("__realloc"), Is("__memalign"), Is("__aligned_alloc"), Is("__valloc"), Is("__pvalloc"), Begins("__libc_"), Begins("__GI_"), Begins("_IO_"), Begins("__malloc_"), Begins("__posix_memalign"),
        // musl
        Is("__expand_heap"), Is("alloc_slot"), Is("alloc_group"), Is("__simple_malloc"), Is("__bump_malloc"), Is("default_malloc"), Is("__malloc0"), Is("expand_heap"),
        // what allocates for its caller
        Is("strdup"), Is("__strdup"), Is("strndup"), Is("__strndup"), Is("wcsdup"), Is("asprintf"), Is("__asprintf"), Is("___asprintf"), Is("vasprintf"), Is("__vasprintf_internal"), Is("__vasprintf_chk"), Is("__asprintf_chk"),
        Is("getline"), Is("getdelim"), Is("__getdelim"), Is("fopen"), Is("fopen64"), Is("fdopen"), Is("fread"), Is("fwrite"), Is("fgets"), Is("fputs"), Is("fprintf"), Is("printf"), Is("puts"), Is("setvbuf"),
        Is("open_memstream"), Is("opendir"), Is("__opendir"), Is("__alloc_dir"), Is("scandir"), Is("realpath"), Is("getcwd"), Is("setenv"), Is("putenv"),
        Is("allocate_stack"), Begins("allocate_stack."), Is("pthread_create"), Begins("__pthread_create"), Is("pthread_getattr_np"), Is("__tls_get_addr"), Is("tls_get_addr_tail"), Is("allocate_dtv"), Is("allocate_and_init"),
        // memory and strings: these touch the page, or crash into it
        Routine("memcpy"), Routine("mempcpy"), Routine("memmove"), Routine("memset"), Routine("wmemset"), Routine("memcmp"), Routine("memchr"), Routine("bzero"), Routine("bcopy"), Routine("explicit_bzero"),
        Routine("strcpy"), Routine("stpcpy"), Routine("strncpy"), Routine("strcat"), Routine("strncat"), Routine("strlen"), Routine("strnlen"), Routine("strcmp"), Routine("strncmp"), Routine("strchr"), Routine("snprintf"), Routine("vsnprintf"), Routine("sprintf"),
    ] },
    Family { name: LOADER, modules: &[], functions: &[Begins("_dl_"), Is("dl_open_worker"), Is("dl_open_worker_begin"), Is("dlopen"), Is("dlmopen"), Begins("dlopen_"), Is("dlopen_doit"), Is("dlerror_run")] },

    Family { name: "C++ library", modules: &[], functions: &[
        Begins("operator new"), Begins("operator delete"), Begins("_Znw"), Begins("_Zna"), Begins("std::"), Begins("__gnu_cxx::"), Begins("__cxxabiv1::"), Is("__cxa_allocate_exception"), Is("__cxa_thread_atexit"),
    ] },

    // jemalloc: private symbols carry a prefix, static ones are bare.
    Family { name: "jemalloc", modules: &[], functions: &[
        Begins("je_"), Begins("_rjem_"), Begins("jemalloc_"), Is("pages_map"), Is("pages_commit"), Is("pages_decommit"), Begins("os_pages_"), Is("base_map"), Is("base_alloc"), Begins("base_block_alloc"), Begins("base_extent_alloc"), Begins("base_alloc_"),
        Begins("extent_alloc"), Begins("extent_recycle"), Begins("extent_grow_retained"), Begins("extent_commit"), Begins("extent_split"), Begins("extent_try_"), Begins("extents_alloc"), Begins("ecache_"), Begins("ehooks_"), Begins("pac_alloc"), Begins("hpa_alloc"), Begins("pai_alloc"), Is("pa_alloc"),
        Begins("imalloc"), Is("ialloc"), Begins("iallocztm"), Begins("arena_slab_alloc"), Begins("arena_malloc"), Begins("arena_palloc"), Begins("arena_ralloc"), Begins("arena_bin_"), Begins("arena_cache_bin_fill"), Begins("arena_extent_"), Begins("arena_tcache_fill"), Begins("arena_run_alloc"), Begins("arena_chunk_alloc"), Begins("tcache_alloc_"), Begins("tcache_create"), Begins("large_malloc"), Begins("large_palloc"), Begins("large_ralloc"), Begins("do_rallocx"), Is("mallocx"), Is("rallocx"),
    ] },
    Family { name: "tcmalloc", modules: &[], functions: &[
        Begins("tcmalloc::"), Begins("TCMalloc"), Begins("tc_malloc"), Begins("tc_calloc"), Begins("tc_realloc"), Begins("tc_memalign"), Begins("tc_posix_memalign"), Begins("tc_valloc"), Begins("tc_new"), Begins("MallocExtension"), Begins("MallocHook"),
        Begins("(anonymous namespace)::do_malloc"), Begins("(anonymous namespace)::do_memalign"), Begins("(anonymous namespace)::cpp_alloc"), Begins("TCMallocInternal"), Begins("SbrkSysAllocator"), Begins("MmapSysAllocator"), Begins("DefaultSysAllocator"),
    ] },
    Family { name: "mimalloc", modules: &[], functions: &[Begins("mi_"), Begins("_mi_")] },

    // Rust; the forms `<T as alloc::…>::f` are unfolded by `candidates`.
    Family { name: RUST, modules: &[], functions: &[
        Begins("alloc::"), Begins("core::"), Begins("std::"), Begins("hashbrown::"), Begins("allocator_api2::"), Begins("__rust_alloc"), Begins("__rust_realloc"), Begins("__rdl_"), Begins("__rg_"), Begins("__rustc::"), Begins("__rust_begin_short_backtrace"),
    ] },
    // A package of somebody's own is `example.com/x/runtime.f`.
    Family { name: "Go", modules: &[], functions: &[Begins("runtime."), Begins("runtime/internal/"), Begins("internal/runtime/"), Begins("internal/bytealg."), Begins("bytes.growSlice"), Begins("bytes.(*Buffer).grow"), Begins("strings.(*Builder).grow"), Begins("slices.Grow"), Is("_cgo_allocate"), Begins("_cgo_sys_thread")] },

    // Allocation and growth of objects; not the interpreter loop.
    Family { name: "Python", modules: &[], functions: &[
        Begins("PyObject_Malloc"), Begins("PyObject_Calloc"), Begins("PyObject_Realloc"), Begins("_PyObject_Malloc"), Begins("_PyObject_Calloc"), Begins("_PyObject_Realloc"), Begins("_PyObject_GC_"), Begins("_PyObject_New"), Begins("_PyObject_Debug"), Begins("_PyObject_Arena"), Begins("_PyObject_Init"),
        Begins("PyObject_GC_"), Begins("PyMem_"), Begins("_PyMem_"), Begins("PyType_Generic"), Begins("_PyType_AllocNoTrack"), Is("_PyGC_New"), Begins("PyList_"), Begins("_PyList_"), Begins("PyDict_New"), Begins("PyDict_SetItem"), Begins("_PyDict_SetItem"),
        Begins("PyDict_Copy"), Begins("PyUnicode_New"), Begins("PyUnicode_From"), Begins("_PyUnicode_From"), Begins("_PyUnicodeWriter_"), Begins("PyUnicode_Decode"), Begins("PyUnicode_Concat"), Begins("PyUnicode_Append"), Begins("PyBytes_From"), Begins("_PyBytes_"), Begins("PyBytes_Concat"),
        Begins("_PyBytesWriter_"), Begins("PyByteArray_"), Begins("PyTuple_"), Begins("_PyTuple_"), Begins("_PyLong_"), Begins("PyLong_From"), Begins("PyFloat_From"), Begins("PySet_"), Begins("_PyStack_"), Begins("_PyThreadState_PushFrame"), Begins("_PyThreadState_BumpFrame"),
    ] },
    // Static functions of the interpreter, whose names others use too.
    Family { name: "Python", modules: &["python", "libpython"], functions: &[
        Begins("pymalloc_"), Begins("new_arena"), Is("allocate_from_new_pool"), Begins("gc_alloc"), Is("arena_map_get"), Is("address_in_range"), Is("list_resize"), Is("list_extend"), Is("list_concat"), Is("list_repeat"), Is("app1"),
        Is("list_append"), Is("list_new_prealloc"), Is("dictresize"), Is("insertion_resize"), Is("insertdict"), Is("insert_to_emptydict"), Is("new_keys_object"), Is("new_dict"), Is("clone_combined_dict_keys"), Is("dict_new"), Is("dict_merge"),
        Is("resize_compact"), Is("unicode_decode_utf8"), Is("unicode_resize"), Is("unicode_repeat"), Is("bytes_concat"), Is("bytes_repeat"), Begins("bytearray_"), Is("tuple_alloc"), Is("tuple_concat"), Is("tuplerepeat"), Is("set_table_resize"),
        Is("set_add_entry"), Is("push_chunk"),
    ] },
    Family { name: "JVM", modules: &["libjvm"], functions: &[
        Begins("os::"), Begins("anon_mmap"), Begins("AllocateHeap"), Begins("ReallocateHeap"), Begins("NEW_"), Begins("Arena::"), Begins("Chunk::"), Begins("ChunkPool::"), Begins("ReservedSpace::"), Begins("ReservedHeapSpace::"), Begins("VirtualSpace::"), Begins("CHeapObj"), Begins("ResourceObj::"), Begins("AnyObj::"), Begins("resource_allocate"), Begins("G1PageBasedVirtualSpace::"), Begins("G1RegionToSpaceMapper::"), Begins("G1RegionsLargerThanCommitSizeMapper::"), Begins("G1RegionsSmallerThanCommitSizeMapper::"), Begins("metaspace::"), Begins("Metaspace::"), Begins("GrowableArray"), Begins("commit_memory"), Begins("MemTracker::"),
    ] },

    // Programs' own layers over malloc.
    Family { name: "redis", modules: &[], functions: &[Begins("zmalloc"), Begins("zcalloc"), Begins("zrealloc"), Begins("ztrymalloc"), Begins("ztrycalloc"), Begins("ztryrealloc"), Is("zstrdup"), Begins("sdsnew"), Begins("_sdsnew"), Begins("sdsMakeRoomFor"), Begins("_sdsMakeRoomFor"), Begins("sdsResize"), Begins("sdscat"), Begins("sdsgrow"), Is("sdsdup")] },
    Family { name: "PostgreSQL", modules: &[], functions: &[
        Begins("AllocSet"), Begins("GenerationAlloc"), Begins("GenerationContextCreate"), Begins("SlabAlloc"), Begins("SlabContextCreate"), Begins("BumpAlloc"), Begins("palloc"), Begins("repalloc"), Begins("MemoryContextAlloc"), Begins("MemoryContextCreate"), Begins("MemoryContextStrdup"), Begins("MemoryContextReallocate"), Begins("pg_malloc"), Begins("pg_realloc"), Is("pstrdup"), Is("pnstrdup"), Is("psprintf"), Is("enlargeStringInfo"), Begins("appendStringInfo"), Begins("appendBinaryStringInfo"), Begins("makeStringInfo"), Is("initStringInfo"), Is("initStringInfoInternal"),
    ] },
    Family { name: "nginx", modules: &[], functions: &[Is("ngx_alloc"), Is("ngx_calloc"), Is("ngx_memalign"), Begins("ngx_palloc"), Is("ngx_pnalloc"), Is("ngx_pcalloc"), Is("ngx_pmemalign"), Is("ngx_create_pool"), Is("ngx_create_temp_buf"), Begins("ngx_slab_alloc"), Begins("ngx_slab_calloc"), Begins("ngx_array_push"), Is("ngx_array_create"), Is("ngx_list_push"), Is("ngx_alloc_chain_link"), Is("ngx_pstrdup")] },
    Family { name: "GLib", modules: &[], functions: &[Begins("g_malloc"), Begins("g_realloc"), Begins("g_try_malloc"), Begins("g_try_realloc"), Begins("g_slice_"), Begins("g_strdup"), Begins("g_strndup"), Begins("g_memdup"), Begins("g_aligned_alloc"), Is("g_array_maybe_expand"), Is("g_ptr_array_maybe_expand"), Begins("g_string_maybe_expand"), Begins("g_string_expand")] },
    Family { name: "libraries", modules: &[], functions: &[Begins("CRYPTO_malloc"), Begins("CRYPTO_zalloc"), Begins("CRYPTO_realloc"), Begins("CRYPTO_strdup"), Begins("CRYPTO_memdup"), Begins("CRYPTO_aligned_alloc"), Is("OPENSSL_malloc"), Begins("apr_palloc"), Begins("apr_pcalloc"), Is("apr_allocator_alloc"), Begins("sqlite3Malloc"), Begins("sqlite3_malloc"), Begins("sqlite3Realloc"), Begins("sqlite3DbMalloc"), Begins("sqlite3DbRealloc"), Begins("sqlite3MemMalloc"), Is("xmalloc"), Is("xcalloc"), Is("xrealloc"), Is("xstrdup"), Begins("v8::base::OS::Allocate"), Begins("v8::internal::Malloced::")] },
];

/// Suffixes that compilers hang on C names.
const CLONES: &[&str] = &[
    ".isra.",
    ".part.",
    ".constprop.",
    ".cold",
    ".lto_priv.",
    ".localalias",
    ".llvm.",
    ".clone.",
    "@",
];

/// Index of the frame a stack is named by, given innermost first: the innermost one that no row of the table
/// excludes, named or not. Where all are excluded, the innermost one outside the C library and the loader, else 0.
/// `None` for a stack without frames.
#[must_use]
pub fn culprit(frames: &[SymbolizedFrame]) -> Option<usize> {
    let mut families: Vec<_> = frames.iter().map(family).collect();
    // In a stripped module some functions have names, those it exports: what an allocator calls in its own module is its
    // inside.
    for (index, pair) in frames.windows(2).enumerate().rev() {
        let [inner, outer] = pair else { continue };
        if inner.function.is_none()
            && inner.module.is_some()
            && inner.module == outer.module
            && let Some(of_caller) = families.get(index + 1).copied()
            && let Some(family) = families.get_mut(index)
        {
            *family = family.or(of_caller);
        }
    }
    // What the global allocator of a Rust program calls is its inside, whatever it is named: that of a crate is a plain
    // `alloc` where a compiler inlined it.
    if let Some(allocator) = frames.iter().rposition(is_global_allocator) {
        for family in families.iter_mut().take(allocator + 1) {
            family.get_or_insert(RUST);
        }
    }
    let own = families.iter().position(Option::is_none);
    let outside = || {
        families
            .iter()
            .position(|name| !matches!(name, Some(C_LIBRARY | LOADER)))
    };
    own.or_else(outside).or_else(|| (!frames.is_empty()).then_some(0))
}

/// Whether Rust code comes into its global allocator here, its own default one or that of a crate.
fn is_global_allocator(frame: &SymbolizedFrame) -> bool {
    frame.function.as_deref().is_some_and(|function| {
        let function = function.strip_prefix("__rustc::").unwrap_or(function);
        ["__rust_alloc", "__rust_realloc", "__rg_alloc", "__rg_realloc"]
            .iter()
            .any(|begins| function.starts_with(begins))
            || function.starts_with('<') && function.contains(" as core::alloc::global::GlobalAlloc>::")
    })
}

/// What to call a frame: its function, else its module's file name and the function's start (else the offset), else its
/// address.
#[must_use]
pub fn frame_label(frame: &SymbolizedFrame) -> String {
    match (&frame.function, &frame.module) {
        (Some(function), _) => function.to_string(),
        (None, Some(module)) => format!("{}+{:#x}", file_name(module), frame.place()),
        (None, None) => format!("{:#x}", frame.offset),
    }
}

fn file_name(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((_, name)) if !name.is_empty() => name,
        _ => path,
    }
}

/// Libraries by where their sources lie. What a compiler inlined of them has a file, but often not its full name:
/// release builds say `alloc` or `with_capacity_in` for what is `alloc::alloc::alloc` in the symbol table.
const SOURCES: &[(&str, &str)] = &[
    (RUST, "/library/alloc/src/"),
    (RUST, "/library/core/src/"),
    (RUST, "/library/std/src/"),
    (RUST, "/hashbrown-"),
    ("C++ library", "/include/c++/"),
    ("C++ library", "/libstdc++-v3/"),
];

/// The family that excludes a frame.
fn family(frame: &SymbolizedFrame) -> Option<&'static str> {
    if let Some(file) = frame.file.as_deref()
        && let Some((name, _)) = SOURCES.iter().find(|(_, part)| file.contains(part))
    {
        return Some(name);
    }
    let module = frame.module.as_deref().map_or("", file_name);
    let names = frame.function.as_deref().map(candidates);
    let row = TABLE.iter().find(|family| {
        let here = family.modules.is_empty()
            || family
                .modules
                .iter()
                .any(|beginning| module.starts_with(beginning));
        here && family.functions.iter().any(|pattern| match &names {
            Some(names) => names.iter().any(|name| pattern.fits(name)),
            None => matches!(pattern, Any),
        })
    });
    row.map(|family| family.name)
}

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Is(whole) => name == *whole,
            Self::Begins(beginning) => name.starts_with(beginning),
            Self::Routine(routine) => {
                name == *routine
                    || name
                        .strip_prefix("__")
                        .and_then(|rest| rest.strip_prefix(routine))
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            }
            Self::Any => true,
        }
    }
}

/// The names under which a function is looked up in the table: without parameters and compilers' suffixes, and a
/// Rust `<Type as Trait>::f` under its type.
fn candidates(function: &str) -> Vec<&str> {
    let plain = CLONES
        .iter()
        .filter_map(|suffix| function.find(suffix))
        .min()
        // A suffix needs a name before it, and C++ templates may hold anything.
        .filter(|cut| *cut > 0 && !function.contains(['<', '(', ' ']))
        .and_then(|cut| function.get(..cut))
        .unwrap_or(function);
    if let Some(inside) = plain.strip_prefix('<') {
        return rust_type_and_trait(inside);
    }
    // Go's methods and C++'s anonymous namespace hold parentheses too: only what ends the name is a parameter list.
    let without_parameters = match plain.find('(') {
        Some(open) if open > 0 && plain.ends_with([')', 't']) => plain.get(..open),
        _ => None,
    };
    [Some(plain), without_parameters].into_iter().flatten().collect()
}

/// `alloc::vec::Vec<T> as core::iter::Extend>::extend` is the library's own, by its type. Of `T as alloc::…` and
/// `[T] as …` it is the trait that tells: the type is the library's generic parameter. A user's type with a
/// library's trait is the user's code.
fn rust_type_and_trait(inside: &str) -> Vec<&str> {
    let Some((kind, rest)) = inside.split_once(" as ") else {
        return vec![inside];
    };
    let base = kind.trim_start_matches(['&', '*', '[', '(']);
    let base = base
        .strip_prefix("mut ")
        .or(base.strip_prefix("const "))
        .unwrap_or(base);
    let word = base
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .next()
        .unwrap_or(base);
    let generic = word.len() <= 2 && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let primitive = matches!(
        word,
        "u8" | "u16"
            | "u32"
            | "u64"
            | "u128"
            | "usize"
            | "i8"
            | "i16"
            | "i32"
            | "i64"
            | "i128"
            | "isize"
            | "f32"
            | "f64"
            | "bool"
            | "char"
            | "str"
    );
    if generic || primitive {
        vec![rest]
    } else {
        vec![base]
    }
}

#[cfg(test)]
#[path = "culprit_tests.rs"]
mod tests;
