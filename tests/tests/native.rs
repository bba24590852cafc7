//! The main claim on programs of known truth: the function that keeps the memory comes first, with as many bytes as
//! the program counted itself, by stacks that all reach their root.

use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::recording::Recording;
use leakwatch_tests::target::{Target, Truth};
use leakwatch_tests::{expect, kernel};

const KIB: u64 = 1024;

fn watch(program: &Program, arguments: &[&str]) -> (Truth, Outcome) {
    let mut target = Target::start(program, arguments);
    Record::of(target.pid()).pages_alone().watch(&mut target)
}

/// The true function first, its bytes within a page per call, stacks complete, nothing lost.
fn names_the_leak(program: &Program, arguments: &[&str]) -> (Truth, Outcome) {
    let (truth, outcome) = watch(program, arguments);
    let site = truth.site.clone().expect("a leaky program has a site");
    expect::first(&outcome, &site);
    expect::held_within_a_page_per_call(&outcome, &truth);
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    (truth, outcome)
}

/// The first site's pages came by faults, and the memory that they lie in by this call.
fn came_by(recording: &Recording, via: &str) {
    let site = &recording.call_sites[0];
    assert_eq!(site.via, "fault", "{site:?}");
    assert!(site.vias.iter().any(|other| other == via), "{site:?}");
}

/// A twin that does not leak: nothing is blamed beyond what allocators keep for themselves.
fn blames_nobody(program: &Program, arguments: &[&str], limit: u64) {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--honest"]).collect();
    let (truth, outcome) = watch(program, &arguments);
    assert_eq!(truth.site, None, "an honest program has no site");
    expect::nothing_held_over(&outcome, limit);
    expect::no_losses(&outcome);
}

#[test]
fn small_blocks_on_the_heap() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = names_the_leak(&Program::c("brk_leak"), &[]);
    expect::committed_within_a_page_per_call(&outcome, &truth);
    let recording = outcome.recording();
    came_by(&recording, "brk");
    assert_eq!(
        recording.held_by("leak_small"),
        truth.committed_bytes,
        "brk's bytes are exact"
    );
    let live = recording.call_sites[0].live_bytes.expect("the heap is resident");
    assert!(
        live >= truth.number("requested_bytes") * 9 / 10,
        "only {live} bytes are said to be live\n{outcome}"
    );
}

#[test]
fn small_blocks_on_the_heap_honest() {
    if kernel::required() {
        blames_nobody(&Program::c("brk_leak"), &[], 256 * KIB);
    }
}

#[test]
fn small_blocks_with_frame_pointers() {
    if kernel::required() {
        let program = Program::c_with("brk_leak", &["-fno-omit-frame-pointer"]);
        names_the_leak(&program, &[]);
    }
}

#[test]
fn large_blocks() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = names_the_leak(&Program::c("big_malloc"), &[]);
    expect::committed_within_a_page_per_call(&outcome, &truth);
    expect::innocents_hold_at_most(&outcome, &truth, 0);
    // What was borrowed was seen, and seen to come back.
    let recording = outcome.recording();
    let borrowed = recording.committed_by("borrow_big");
    assert!(
        borrowed == 0 || borrowed.abs_diff(truth.number("borrowed_bytes")) <= truth.calls * 4 * KIB,
        "borrow_big committed {borrowed} bytes\n{outcome}"
    );
}

#[test]
fn large_blocks_honest() {
    if kernel::required() {
        blames_nobody(&Program::c("big_malloc"), &[], 0);
    }
}

#[test]
fn direct_mappings() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = names_the_leak(&Program::c("mmap_leak"), &[]);
    expect::committed_within_a_page_per_call(&outcome, &truth);
    expect::innocents_hold_at_most(&outcome, &truth, 0);
    let recording = outcome.recording();
    came_by(&recording, "mmap");
    assert_eq!(
        recording.held_by("map_and_forget"),
        truth.committed_bytes,
        "mmap's bytes are exact"
    );
}

#[test]
fn direct_mappings_honest() {
    if kernel::required() {
        blames_nobody(&Program::c("mmap_leak"), &[], 0);
    }
}

#[test]
fn a_table_that_grows_by_mremap() {
    if !kernel::required() {
        return;
    }
    let (_, outcome) = names_the_leak(&Program::c("remap_growth"), &[]);
    came_by(&outcome.recording(), "mremap");
}

#[test]
fn a_table_that_grows_and_shrinks_back() {
    if kernel::required() {
        blames_nobody(&Program::c("remap_growth"), &[], 0);
    }
}

#[test]
fn a_block_that_grows_by_realloc() {
    if kernel::required() {
        names_the_leak(&Program::c("remap_growth"), &["--realloc"]);
    }
}

#[test]
fn thread_arenas_that_grow_by_mprotect() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = watch(&Program::cpp("arenas"), &[]);
    expect::first(&outcome, "handle_upload");
    // Others cross an arena's end now and then; a page per call would be most of it here.
    expect::held_within(&outcome, &truth, truth.committed_bytes / 50);
    expect::innocents_hold_at_most(&outcome, &truth, truth.committed_bytes / 50);
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    let recording = outcome.recording();
    came_by(&recording, "mprotect");
    // All sites together are the kernel's own count: no reservation was taken for growth.
    let held = recording.held();
    assert!(
        held.abs_diff(truth.committed_bytes) <= truth.committed_bytes / 100,
        "{held} bytes held in all, {} grew\n{outcome}",
        truth.committed_bytes
    );
}

#[test]
fn thread_arenas_honest() {
    if kernel::required() {
        blames_nobody(&Program::cpp("arenas"), &[], 512 * KIB);
    }
}

#[test]
fn churn_is_not_blamed() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = names_the_leak(&Program::c("churn"), &[]);
    // The heap keeps up to its trim threshold of what churned there.
    expect::innocents_hold_at_most(&outcome, &truth, truth.committed_bytes / 2);
}

#[test]
fn churn_alone_blames_nobody() {
    if kernel::required() {
        blames_nobody(&Program::c("churn"), &[], 512 * KIB);
    }
}

#[test]
fn static_programs() {
    if kernel::required() {
        names_the_leak(&Program::c_with("brk_leak", &["-static"]), &[]);
    }
}

#[test]
fn static_programs_with_large_blocks() {
    if kernel::required() {
        names_the_leak(&Program::c_with("big_malloc", &["-static"]), &[]);
    }
}

/// Without symbols no function can be named, but the file and the bytes can, and stacks are whole all the same.
fn names_the_module(program: &Program) {
    let (truth, outcome) = watch(program, &[]);
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    let recording = outcome.recording();
    let first = &recording.call_sites[0];
    let culprit = first.culprit.clone().expect("a module can be named");
    let module = culprit.module.as_deref().unwrap_or("none");
    assert!(
        program.path.ends_with(module) || std::path::Path::new(module) == program.path,
        "{module} is blamed, not {}\n{outcome}",
        program.path.display()
    );
    assert_eq!(
        culprit.function, None,
        "a stripped program has no names\n{outcome}"
    );
    assert!(
        first
            .frames
            .iter()
            .any(|frame| frame.module.as_deref() == Some(module) && frame.offset.is_some()),
        "a frame without a name still has its offset\n{outcome}"
    );
    let called_by_start = first.frames.iter().any(|frame| {
        let start = frame.function_start.as_deref();
        start.is_some_and(|start| {
            first.label.ends_with(&format!("+{start}")) && frame.offset.as_deref() != Some(start)
        })
    });
    assert!(
        called_by_start,
        "{} is not called by where its function begins\n{outcome}",
        first.label
    );
    let held = recording.held();
    assert!(
        held.abs_diff(truth.committed_bytes) <= truth.calls * 4 * KIB,
        "{held} bytes held, {} leaked\n{outcome}",
        truth.committed_bytes
    );
}

#[test]
fn stripped_programs() {
    if kernel::required() {
        names_the_module(&Program::c_with("brk_leak", &["-s"]));
    }
}

#[test]
fn stripped_programs_with_large_blocks() {
    if kernel::required() {
        names_the_module(&Program::c_with("big_malloc", &["-s"]));
    }
}

#[test]
fn stripped_static_programs() {
    if kernel::required() {
        names_the_module(&Program::c_with("big_malloc", &["-s", "-static"]));
    }
}

#[test]
fn a_rust_service() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = names_the_leak(&Program::rust("session_service"), &[]);
    expect::innocents_hold_at_most(&outcome, &truth, 0);
    let site = &outcome.recording().call_sites[0];
    let culprit = site.culprit.clone().expect("it has debug information");
    let file = culprit.file.as_deref().unwrap_or("none");
    assert!(
        file.ends_with("session_service.rs"),
        "{file} is not the source\n{outcome}"
    );
    assert!(culprit.line.is_some());
}

#[test]
fn a_rust_service_honest() {
    if kernel::required() {
        blames_nobody(&Program::rust("session_service"), &[], 512 * KIB);
    }
}

#[test]
fn a_python_service() {
    if !kernel::required() {
        return;
    }
    // The interpreter's own C functions are blamed: which of them is its business, not ours.
    let (truth, outcome) = watch(&Program::python("leak_request"), &[]);
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    let first = &outcome.recording().call_sites[0];
    // One of its functions maps the block, another writes it: what is kept is the writer's, and not held by its calls.
    let live = first.live_bytes.expect("it was looked up");
    assert!(
        live.abs_diff(truth.committed_bytes) <= truth.committed_bytes / 20,
        "the first site keeps {live} bytes by the report, {} by its own count\n{outcome}",
        truth.committed_bytes
    );
    let culprit = first.culprit.clone().expect("the interpreter is named");
    let module = culprit.module.as_deref().unwrap_or("none");
    assert!(module.contains("python"), "{module} is blamed\n{outcome}");
}

#[test]
fn a_python_service_honest() {
    if kernel::required() {
        blames_nobody(&Program::python("leak_request"), &[], 1024 * KIB);
    }
}

#[test]
fn python_that_reads_files() {
    if kernel::required() {
        blames_nobody(&Program::python("read_files"), &[], 1024 * KIB);
    }
}

#[test]
fn grouped_by_function_and_module() {
    if !kernel::required() {
        return;
    }
    for (by, sites) in [("function", None), ("module", Some("big_malloc"))] {
        let mut target = Target::start(&Program::c("big_malloc"), &[]);
        let record = Record::of(target.pid()).arg("--group-by").arg(by);
        let (truth, outcome) = record.watch(&mut target);
        let first = &outcome.recording().call_sites[0];
        assert_eq!(
            first.held_bytes, truth.committed_bytes,
            "grouped by {by}\n{outcome}"
        );
        match sites {
            None => expect::first(&outcome, "keep_big"),
            Some(module) => assert!(outcome.stdout.contains(module), "grouped by {by}\n{outcome}"),
        }
    }
}
