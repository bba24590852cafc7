//! Recordings for the tests: one with everything that layer L1 measures, one with nothing, one with hostile names.

use super::build;
use super::model::*;
use crate::diagnose::rank::{Evidence, GroupBy, SiteFacts, Via, rank};
use crate::diagnose::reconcile::{Part, Reason, reconcile};
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
        file: place.map(|(file, _)| file.into()),
        line: place.map(|(_, line)| line),
        inlined: false,
    }
}

fn site(via: Via, frames: Vec<SymbolizedFrame>, live: u64, events: u64) -> SiteFacts {
    SiteFacts {
        via,
        frames,
        complete: true,
        committed: live * MIB + 64 * MIB,
        released: 52 * MIB,
        held: live * MIB + 12 * MIB,
        events,
        first_seen: 0.25,
        last_seen: 59.5,
        series: vec![(0.0, 0), (30.0, live * MIB / 2), (60.0, live * MIB + 12 * MIB)],
        live: Some(live * MIB),
        live_variance: 0.0,
        touched: None,
        evidence: Evidence::Mappings,
        estimated: false,
        threads: vec!["worker-1".into()],
        process: 4242,
    }
}

const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const SERVER: &str = "/srv/app/bin/server";

fn server(function: &str, line: u32) -> SymbolizedFrame {
    frame(function, SERVER, Some(("src/server.cc", line)))
}

pub fn full() -> Recording {
    let mut truncated = site(
        Via::Mprotect,
        vec![frame("mprotect", LIBC, None), server("parse_header", 77)],
        1,
        9,
    );
    truncated.complete = false;
    let mut facts = vec![
        site(
            Via::Mmap,
            vec![
                frame("mmap", LIBC, None),
                frame("malloc", LIBC, None),
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
            ],
            700,
            712,
        ),
        site(
            Via::Brk,
            vec![
                frame("brk", LIBC, None),
                frame("malloc", LIBC, None),
                frame("", SERVER, None),
            ],
            100,
            40,
        ),
        truncated,
    ];
    for index in 0..12 {
        facts.push(site(
            Via::Mmap,
            vec![server(&format!("small_site_{index:02}"), 200 + index)],
            1,
            1,
        ));
    }
    facts.push(site(Via::Mmap, Vec::new(), 2, 3));
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
            known: vec![(Reason::NoStack, 2 << 20)],
            ..Part::default()
        },
        Part {
            region: Some(Region::Heap),
            growth: 108 << 20,
            attributed: 100 * MIB,
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
            samples: None,
            counters: [("mappings_repaired".to_owned(), 2)].into(),
        },
        cost: Cost {
            events: Some(777),
            cpu_seconds: Some(0.42),
            peak_rss_bytes: Some(96 << 20),
            kernel_map_bytes: Some(64 << 20),
            smaps_reads: Some(2),
            smaps_read_seconds: Some(0.0123),
            sampling_rate: None,
            attach_seconds: Some(0.31),
        },
        notes: vec!["The target ran in another mount namespace.".into()],
        ..empty()
    }
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
        correlations: None,
        processes: None,
        losses: Losses::default(),
        cost: Cost::default(),
        notes: Vec::new(),
    }
}

/// Names that a terminal, a line-based format or a browser would obey, and one of 64 KiB.
pub fn hostile() -> Recording {
    let evil = "\x1b[2J\u{202e}a;b\nc\r<script>alert(1)</script>\u{9b}31m";
    let long = "長".repeat(64 << 10);
    let frames = vec![
        frame(evil, evil, Some((evil, 1))),
        frame(&long, &long, Some((&long, u32::MAX))),
        frame("", &build::text(b"/tmp/\xff\xfe\x1b]0;x\x07"), None),
    ];
    let mut facts = site(Via::Mmap, frames, 5, 1);
    facts.threads = vec![evil.to_owned()];
    let before = smaps::parse(&b""[..]).unwrap().mappings;
    let mut maps = b"1000-2000 rw-p 0 fe:00 5 /tmp/\xff\x1b[31m;\\012".to_vec();
    maps.extend(vec![b'z'; 64 << 10]);
    maps.extend(b"\nRss: 4 kB\nAnonymous: 4 kB\n");
    let mappings = growth(&before, &smaps::parse(&maps[..]).unwrap().mappings);
    let mut recording = full();
    recording.target.comm = evil.into();
    recording.target.exe = Some(long);
    recording.host.kernel = evil.into();
    recording.call_sites = build::call_sites(&rank(vec![facts], GroupBy::Stack, 10.0));
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
