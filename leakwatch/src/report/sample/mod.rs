//! Recordings for the tests: one with mappings and every page, one of a sample of pages, one of mappings alone, one with
//! nothing, one with hostile names. And pictures of a heap.

mod arenas;
mod births;
mod diff;
mod heap;
mod verdict;

pub use arenas::arenas;
pub use births::survivors;
pub use diff::{before_and_after, hostile_diff};
pub use heap::{heap_alone, heap_grown, hostile_picture, picture};

use super::build;
use super::model::*;
use crate::diagnose::rank::{Evidence, GroupBy, SiteFacts, Via, rank};
use crate::diagnose::reconcile::{Part, Reason, Rest, reconcile};
use crate::sampler::growth::growth;
use crate::sampler::region::Region;
use crate::sampler::smaps;
use crate::symbolize::SymbolizedFrame;

const MIB: u64 = 1 << 20;

fn frame(function: &str, module: &str, place: Option<(&str, u32)>) -> SymbolizedFrame {
    SymbolizedFrame {
        offset: 0x1234,
        module: Some(module.into()),
        build_id: Some("9fdb74e7b217d06c93172a8243f8547f947ee6d1".into()),
        function: (!function.is_empty()).then(|| function.into()),
        function_start: function.is_empty().then_some(0x1200),
        file: place.map(|(file, _)| file.into()),
        line: place.map(|(_, line)| line),
        inlined: false,
    }
}

/// A site that touched pages, sizes in MiB; the error is that of 1 page in `one_in`.
fn touched(frames: Vec<SymbolizedFrame>, live: u64, touched: u64, one_in: u64) -> SiteFacts {
    let (live, touched) = (live * MIB, touched * MIB);
    SiteFacts {
        via: Via::Fault,
        frames: frames.into(),
        complete: true,
        committed: 0,
        released: 0,
        held: 0,
        events: touched / 4096 / one_in,
        first_seen: 0.25,
        last_seen: 59.5,
        series: vec![
            (15.0, live / 4),
            (30.0, live / 2),
            (45.0, 3 * live / 4),
            (60.0, live),
        ],
        live: Some(live),
        live_variance: 4096.0 * live as f64 * (one_in - 1) as f64,
        touched: Some(touched),
        extended: None,
        allocated: None,
        pool: None,
        evidence: Evidence::Pages,
        estimated: false,
        threads: vec!["worker-1".into()],
        process: 4242,
    }
}

/// A site that asked for address space, MiB; whatever was touched of it, others say.
fn mapped(via: Via, frames: Vec<SymbolizedFrame>, held: u64, events: u64) -> SiteFacts {
    SiteFacts {
        via,
        committed: (held + 52) * MIB,
        released: 52 * MIB,
        held: held * MIB,
        events,
        touched: None,
        series: vec![
            (15.0, held * MIB / 4),
            (30.0, held * MIB / 2),
            (45.0, 3 * held * MIB / 4),
            (60.0, held * MIB),
        ],
        evidence: Evidence::Mappings,
        ..touched(frames, 0, 0, 1)
    }
}

const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const SERVER: &str = "/srv/app/bin/server";

fn server(function: &str, line: u32) -> SymbolizedFrame {
    frame(function, SERVER, Some(("src/server.cc", line)))
}

/// The handler that keeps what it takes, by the call that gets the memory.
fn upload(inside: &[&str]) -> Vec<SymbolizedFrame> {
    let outside = [
        server("handle_upload(Request const&)", 123),
        server(
            "std::function<void (Request const&)>::operator()(Request const&) const",
            590,
        ),
        server("Router::dispatch(Request&)", 88),
        server("Worker::serve_one()", 61),
        server("Worker::run()", 52),
        frame("start_thread", LIBC, None),
        frame("clone3", LIBC, None),
    ];
    let inside = inside.iter().map(|name| frame(name, LIBC, None));
    inside.chain(outside).collect()
}

/// Every page was seen.
pub fn full() -> Recording {
    let mut truncated = touched(
        vec![frame("__memset_avx2", LIBC, None), server("parse_header", 77)],
        1,
        212,
        1,
    );
    truncated.complete = false;
    // Two calls in one function of a stripped file.
    let unnamed = |call, offset| {
        let stripped = frame("", SERVER, None);
        vec![
            frame(call, LIBC, None),
            frame("malloc", LIBC, None),
            SymbolizedFrame { offset, ..stripped },
        ]
    };
    let mut facts = vec![
        touched(upload(&["__memmove_avx_unaligned_erms"]), 700, 712, 1),
        mapped(Via::Mmap, upload(&["mmap", "malloc"]), 712, 712),
        touched(unnamed("__libc_alloc", 0x1234), 100, 130, 1),
        mapped(Via::Brk, unnamed("brk", 0x1288), 112, 40),
        truncated,
    ];
    for index in 0..12 {
        facts.push(touched(
            vec![server(&format!("small_site_{index:02}"), 200 + index)],
            1,
            1,
            1,
        ));
    }
    facts.push(touched(Vec::new(), 2, 3, 1));
    let ranked = rank(facts, GroupBy::Stack, 60.0);
    let mappings = growth(
        &smaps::parse(SMAPS_BEFORE.as_bytes()).unwrap().mappings,
        &smaps::parse(SMAPS_AFTER.as_bytes()).unwrap().mappings,
    );
    let account = reconcile(&[
        Part {
            region: Some(Region::Anonymous),
            growth: 731 << 20,
            attributed: 712 * MIB,
            known: vec![
                (Reason::NoStack, 2 << 20),
                (Reason::HugePages, 9 << 20),
                (Reason::TouchedByOthers, 8 << 20),
                (Reason::FreedLazily, 1 << 20),
            ],
            rest: Rest::BetweenReadings,
            ..Part::default()
        },
        Part {
            region: Some(Region::Heap),
            growth: 108 << 20,
            attributed: 100 * MIB,
            known: vec![
                (Reason::TouchedByOthers, 10 << 20),
                (Reason::ReleasedBeforeAttach, -3 << 20),
            ],
            rest: Rest::BetweenReadings,
            ..Part::default()
        },
        Part {
            region: Some(Region::Arena),
            growth: 1 << 20,
            attributed: MIB,
            ..Part::default()
        },
        Part {
            region: Some(Region::Stack),
            growth: 132 << 10,
            ..Part::default()
        },
    ]);
    Recording {
        schema_version: SCHEMA_VERSION,
        tool: Tool {
            name: "leakwatch".into(),
            version: "0.1.0".into(),
        },
        host: Host {
            kernel: "6.18.0".into(),
            arch: "x86_64".into(),
            page_size_bytes: 4096,
            cpus: Some(2),
        },
        target: Target {
            pid: 4242,
            start_time: 77_001,
            comm: "server".into(),
            exe: Some(SERVER.into()),
            cmdline: Some(vec![SERVER.into(), "--port=80".into()]),
            container: None,
        },
        window: Window {
            started_at: "2026-01-02T03:04:05Z".into(),
            duration_seconds: 60.0,
            ended_by: EndedBy::Deadline,
        },
        verdict: Some(verdict::verdict(&ranked)),
        growth: Growth {
            rss_bytes: Some(841 << 20),
            anonymous_bytes: Some(840 << 20),
            private_dirty_bytes: Some(840 << 20),
            swap_bytes: Some(0),
            committed_bytes: Some(900 << 20),
        },
        reconciliation: Some(build::reconciliation(&account)),
        call_sites: build::call_sites(&ranked),
        mappings: Some(build::mappings(&mappings.mappings)),
        libraries: Some(build::libraries(&mappings.libraries)),
        losses: Losses {
            events: Some(0),
            stacks: Some(3),
            truncated_stacks: [("snapshot_capped".to_owned(), 9)].into(),
            samples: Some(0),
            counters: [("mappings_repaired".to_owned(), 2)].into(),
        },
        cost: Cost {
            events: Some(61_777),
            cpu_seconds: Some(0.42),
            peak_rss_bytes: Some(96 << 20),
            kernel_map_bytes: Some(64 << 20),
            smaps_reads: Some(2),
            smaps_read_seconds: Some(0.0123),
            sampling_rate: Some(1.0),
            page_faults: Some(61_000),
            thinned_stacks: Some(0),
            attach_seconds: Some(0.31),
            samples: Some(60),
            sample_seconds: Some(0.012),
        },
        heap: Some(heap_grown()),
        notes: vec!["The target ran in another mount namespace.".into()],
        ..empty()
    }
}

/// 1 page in 64 of two processes, and a third that was gone before its pages could be looked up.
pub fn sampled() -> Recording {
    let helper = |function, line| frame(function, "/srv/app/bin/helper", Some(("src/helper.cc", line)));
    let table = || vec![helper("load_table", 31), helper("helper_main", 12)];
    let mut gone = mapped(Via::Mmap, table(), 24, 6);
    gone.process = 4250;
    gone.live = None;
    let mut estimated = mapped(Via::Mprotect, upload(&["mprotect", "malloc"]), 712, 34_600);
    estimated.estimated = true;
    let mut child = touched(vec![server("Cache::fill()", 301)], 40, 41, 64);
    child.process = 4249;
    let facts = vec![
        touched(upload(&["__memmove_avx_unaligned_erms"]), 700, 712, 64),
        estimated,
        child,
        gone,
        touched(vec![server("render(Page const&)", 412)], 0, 5800, 64),
    ];
    let account = reconcile(&[
        Part {
            region: Some(Region::Anonymous),
            growth: 690 << 20,
            attributed: 700 * MIB,
            variance: 4096.0 * (700 * MIB) as f64 * 63.0,
            known: vec![(Reason::SamplingError, -12 << 20)],
            rest: Rest::BetweenReadings,
        },
        Part {
            region: Some(Region::Anonymous),
            growth: 48 << 20,
            attributed: 40 * MIB,
            variance: 4096.0 * (40 * MIB) as f64 * 63.0,
            known: vec![(Reason::LostFaults, 3 << 20)],
            rest: Rest::BetweenReadings,
        },
    ]);
    let process = |pid, comm: &str, growth: Option<i64>, attributed: Option<u64>, events| ProcessRow {
        pid,
        parent_pid: (pid != 4242).then_some(4242),
        comm: comm.into(),
        anonymous_growth_bytes: growth.map(|growth| growth << 20),
        attributed_bytes: attributed.map(|attributed| attributed * MIB),
        coverage: growth
            .zip(attributed)
            .map(|(growth, attributed)| attributed as f64 / growth as f64),
        live_bytes: attributed.map(|attributed| attributed * MIB),
        held_bytes: Some(0),
        events,
    };
    let mut recording = full();
    recording.reconciliation = Some(build::reconciliation(&account));
    recording.call_sites = build::call_sites(&rank(facts, GroupBy::Stack, 60.0));
    recording.processes = Some(vec![
        process(4242, "server", Some(690), Some(700), 60_700),
        process(4249, "server", Some(48), Some(40), 164),
        process(4250, "helper", None, None, 6),
    ]);
    recording.losses.samples = Some(12);
    recording.cost.sampling_rate = Some(1.0 / 64.0);
    recording.cost.thinned_stacks = Some(2_500);
    recording
}

/// What is left where faults cannot be watched.
pub fn mappings_only() -> Recording {
    let mut upload = mapped(Via::Mmap, upload(&["mmap", "malloc"]), 712, 712);
    upload.live = Some(700 * MIB);
    let mut recording = full();
    recording.call_sites = build::call_sites(&rank(vec![upload], GroupBy::Stack, 60.0));
    recording.cost.sampling_rate = None;
    recording.cost.page_faults = None;
    recording.losses.samples = None;
    recording
}

pub fn empty() -> Recording {
    Recording {
        schema_version: SCHEMA_VERSION,
        tool: Tool {
            name: "leakwatch".into(),
            version: "0.1.0".into(),
        },
        host: Host::default(),
        target: Target {
            pid: 1,
            comm: "quiet".into(),
            ..Target::default()
        },
        window: Window {
            started_at: "2026-01-02T03:04:05Z".into(),
            duration_seconds: 10.0,
            ended_by: EndedBy::Interrupt,
        },
        verdict: None,
        growth: Growth::default(),
        reconciliation: None,
        call_sites: Vec::new(),
        mappings: None,
        libraries: None,
        series: None,
        trend: None,
        correlations: None,
        heap: None,
        heap_not_taken: None,
        allocations: None,
        allocations_not_watched: None,
        processes: None,
        losses: Losses::default(),
        cost: Cost::default(),
        notes: Vec::new(),
    }
}

/// What a terminal, a line-based format or a browser would obey.
const EVIL: &str = "\x1b[2J\u{202e}a;b\nc\r<script>alert(1)</script>\u{9b}31m";

/// Names that a terminal, a line-based format or a browser would obey, and one of 64 KiB.
pub fn hostile() -> Recording {
    let evil = EVIL;
    let long = "長".repeat(64 << 10);
    let frames = vec![
        frame(evil, evil, Some((evil, 1))),
        frame(&long, &long, Some((&long, u32::MAX))),
        frame("", &build::text(b"/tmp/\xff\xfe\x1b]0;x\x07"), None),
    ];
    let mut facts = touched(frames, 5, 6, 1);
    facts.threads = vec![evil.to_owned()];
    let before = smaps::parse(&b""[..]).unwrap().mappings;
    let mut maps = b"1000-2000 rw-p 0 fe:00 5 /tmp/\xff\x1b[31m;\\012".to_vec();
    maps.extend(vec![b'z'; 64 << 10]);
    maps.extend(b"\nRss: 4 kB\nAnonymous: 4 kB\n");
    let mappings = growth(&before, &smaps::parse(&maps[..]).unwrap().mappings);
    let mut recording = full();
    recording.target.comm = evil.into();
    recording.target.exe = Some(long.clone());
    recording.host.kernel = evil.into();
    recording.call_sites = build::call_sites(&rank(vec![facts], GroupBy::Stack, 10.0));
    recording.call_sites[0].arenas = Some(Arenas {
        allocator: evil.into(),
        first_touched_by: [evil, &long]
            .map(|name| Toucher {
                name: name.to_owned(),
                live_bytes: 2 * MIB,
            })
            .into(),
    });
    recording.heap = Some(heap::hostile(heap_grown()));
    recording.heap_not_taken = Some(evil.into());
    births::hostile(&mut recording, evil);
    recording.mappings = Some(build::mappings(&mappings.mappings));
    recording.libraries = Some(build::libraries(&mappings.libraries));
    recording.losses.counters = [(evil.to_owned(), 1)].into();
    recording.losses.truncated_stacks = [(evil.to_owned(), 1)].into();
    recording.notes = vec![evil.into()];
    recording.window.started_at = evil.into();
    recording.tool.version = evil.into();
    for row in recording
        .reconciliation
        .iter_mut()
        .flat_map(|account| &mut account.reasons)
    {
        row.reason = evil.into();
    }
    recording.processes = Some(vec![ProcessRow {
        pid: 4242,
        comm: evil.into(),
        ..ProcessRow::default()
    }]);
    recording
}

const SMAPS_BEFORE: &str = "\
55d0c0a2b000-55d0c0a4c000 rw-p 00000000 00:00 0                          [heap]
Size: 132 kB
Rss: 12 kB
Anonymous: 12 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:01 12                         /usr/lib/x86_64-linux-gnu/libc.so.6
Size: 1024 kB
Rss: 400 kB
";

const SMAPS_AFTER: &str = "\
55d0c0a2b000-55d0c7a4c000 rw-p 00000000 00:00 0                          [heap]
Size: 114820 kB
Rss: 110604 kB
Private_Dirty: 110604 kB
Anonymous: 110604 kB
7effd0000000-7effd0100000 rw-p 00000000 00:00 0
Size: 1024 kB
Rss: 1024 kB
Private_Dirty: 1024 kB
Anonymous: 1024 kB
7effd0100000-7effd4000000 ---p 00000000 00:00 0
Size: 64512 kB
7efff0000000-7f0000000000 rw-p 00000000 00:00 0
Size: 262144 kB
Rss: 200000 kB
Private_Dirty: 200000 kB
Anonymous: 190000 kB
Swap: 558544 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:01 12                         /usr/lib/x86_64-linux-gnu/libc.so.6
Size: 1024 kB
Rss: 500 kB
";
