//! Blocks that come from below a language's own library: it is the program's function that is to be named.

use leakwatch_tests::cohorts::{Watched, watch};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::target::Target;

fn record(program: &Program, arguments: &[&str], seconds: u32) -> Watched {
    let mut target = Target::start(program, arguments);
    watch(&mut target, seconds, &[])
}

/// No function of the standard library is blamed, by its name or by its file.
fn the_library_is_not_blamed(watched: &Watched) {
    for site in &watched.recording.call_sites {
        let Some(culprit) = site
            .culprit
            .as_ref()
            .filter(|_| site.live_bytes.unwrap_or(0) > 64 * 1024)
        else {
            continue;
        };
        let function = culprit.function.as_deref().unwrap_or_default();
        let module = culprit.module.as_deref().unwrap_or_default();
        for word in [
            "std::",
            "operator new",
            "__gnu_cxx",
            "alloc::",
            "hashbrown::",
            "core::",
        ] {
            assert!(
                !function.starts_with(word),
                "{function} is blamed\n{}",
                watched.detail()
            );
        }
        for word in ["libstdc++", "libc.so"] {
            assert!(
                !module.contains(word),
                "{function} of {module} is blamed\n{}",
                watched.detail()
            );
        }
    }
}

#[test]
fn containers_of_cpp() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::cpp("cohort_containers"), &[], 10);
    watched.is_true();
    for function in watched.after.functions.keys() {
        watched.rests_on_survivors(function);
    }
    the_library_is_not_blamed(&watched);
}

#[test]
fn containers_of_cpp_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::cpp("cohort_containers"), &["--fixed"], 8);
    watched.is_sound();
    watched.nothing_survives();
}

#[test]
fn a_map_of_a_rust_service() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::rust("cohort_service"), &[], 10);
    watched.is_true();
    the_library_is_not_blamed(&watched);
    // Which crate's function of the std library is innermost is rustc's business; which file is ours.
    let culprit = watched.recording.call_sites[0].culprit.clone();
    let file = culprit.and_then(|culprit| culprit.file).unwrap_or_default();
    assert!(
        file.ends_with("cohort_service.rs"),
        "{file} is blamed\n{}",
        watched.detail()
    );
}

#[test]
fn a_map_of_a_rust_service_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::rust("cohort_service"), &["--fixed"], 8);
    watched.is_sound();
    watched.nothing_survives();
}

/// Live bytes of the sites that blame the interpreter and rest on this evidence.
fn of_python(watched: &Watched, evidence: &str) -> u64 {
    let of_python = watched.recording.call_sites.iter().filter(|site| {
        let module = site
            .culprit
            .as_ref()
            .and_then(|culprit| culprit.module.as_deref());
        site.evidence == evidence && module.is_some_and(|module| module.contains("python"))
    });
    of_python.filter_map(|site| site.live_bytes).sum()
}

/// Objects over 512 bytes are malloc's, each by itself: which C function makes them is the interpreter's business.
#[test]
fn large_objects_of_python() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::python("cohort_python"), &["--large"], 10);
    watched.is_sound();
    let (live, kept) = (of_python(&watched, "survivors"), watched.kept());
    assert!(
        live.abs_diff(kept) <= kept / 5,
        "python's sites keep {live} bytes by survivors, {kept} by its own count\n{}",
        watched.detail()
    );
    let first = &watched.recording.call_sites[0];
    assert_eq!(first.evidence, "survivors", "{}", watched.detail());
    let blocks = first.allocations.as_ref().expect("births");
    // bytes(1500): 33 bytes of its own, and malloc's header.
    assert_eq!(blocks.classes[0].chunk_bytes, 1552, "{}", watched.detail());
}

#[test]
fn large_objects_of_python_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::python("cohort_python"), &["--large", "--fixed"], 8);
    watched.is_sound();
    watched.nothing_survives();
}

/// Smaller ones lie in arenas that the interpreter maps, those of many callers in one page: they are one row, which has the
/// bytes and blames nobody.
#[test]
fn small_objects_of_python() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::python("cohort_python"), &["--small"], 10);
    watched.is_sound();
    let first = &watched.recording.call_sites[0];
    assert_eq!(first.label, "pymalloc arenas", "{}", watched.detail());
    assert!(first.culprit.is_none(), "{}", watched.detail());
    let arenas = first.arenas.as_ref().expect("it is of arenas");
    assert_eq!(arenas.allocator, "pymalloc");
    // By the page: arenas are of a megabyte, and the last one is filled in part.
    let (live, kept) = (first.live_bytes.expect("it was looked up"), watched.kept());
    assert!(
        live.abs_diff(kept) <= kept / 4 + (512 << 10),
        "the arenas keep {live} bytes, {kept} by its own count\n{}",
        watched.detail()
    );
    let touched: u64 = arenas
        .first_touched_by
        .iter()
        .map(|toucher| toucher.live_bytes)
        .sum();
    assert!(
        touched > live / 2 && touched <= live,
        "{touched} of {live} bytes were touched by {:?}\n{}",
        arenas.first_touched_by,
        watched.detail()
    );
    // What was left of the arenas of before is their touchers', and so is what the interpreter keeps elsewhere.
    let blamed = of_python(&watched, "pages") + of_python(&watched, "mappings");
    assert!(
        blamed <= live / 10 + (1 << 20),
        "its functions have the blame for {blamed} bytes\n{}",
        watched.detail()
    );
    assert!(
        watched.outcome.stdout.contains("pymalloc arenas"),
        "{}",
        watched.detail()
    );
}

#[test]
fn small_objects_of_python_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = record(&Program::python("cohort_python"), &["--small", "--fixed"], 8);
    watched.is_sound();
    watched.nothing_survives();
    let arenas = watched
        .recording
        .call_sites
        .iter()
        .filter(|site| site.arenas.is_some());
    let live: u64 = arenas.filter_map(|site| site.live_bytes).sum();
    assert!(
        live <= 2 << 20,
        "its arenas gained {live} bytes\n{}",
        watched.detail()
    );
}
