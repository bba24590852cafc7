use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::growth::growth;
use super::super::kind::Kind;
use super::super::living::Child;
use super::super::smaps;
use super::*;

/// The files of one process, as a kernel of some version writes them.
struct Kernel {
    status: String,
    rollup: String,
    net: bool,
}

fn status(after_swap: &str, end: &str) -> String {
    format!(
        "Name:\tserver\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t42\nNgid:\t0\nPid:\t42\nPPid:\t1\nTracerPid:\t0\n\
        Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t256\nGroups:\t \nNStgid:\t42\nNSpid:\t42\nNSpgid:\t42\nNSsid:\t42\n\
        VmPeak:\t 9000 kB\nVmSize:\t 8000 kB\nVmLck:\t 0 kB\nVmPin:\t 0 kB\nVmHWM:\t 700 kB\nVmRSS:\t 600 kB\n\
        RssAnon:\t 300 kB\nRssFile:\t 200 kB\nRssShmem:\t 100 kB\nVmData:\t 4000 kB\nVmStk:\t 132 kB\nVmExe:\t 20 kB\n\
        VmLib:\t 1528 kB\nVmPTE:\t 48 kB\nVmSwap:\t 8 kB\n{after_swap}Threads:\t9\nSigQ:\t0/96365\n{end}"
    )
}

fn rollup(fields: &str) -> String {
    format!("559000000000-7ffdffd02000 ---p 00000000 00:00 0                          [rollup]\n{fields}")
}

fn kernels() -> [Kernel; 4] {
    [
        // 4.14: the first with a rollup.
        Kernel {
            status: status("", ""),
            rollup: rollup(
                "Rss:  600 kB\nPss:  500 kB\nShared_Clean: 1 kB\nPrivate_Dirty: 250 kB\nAnonymous: 300 kB\nSwap: 8 kB\n",
            ),
            net: true,
        },
        // 4.18.
        Kernel {
            status: status("HugetlbPages:\t 2048 kB\nCoreDumping:\t0\n", "Speculation_Store_Bypass:\tvulnerable\n"),
            rollup: rollup(
                "Rss:  600 kB\nPss:  500 kB\nPrivate_Dirty: 250 kB\nReferenced: 600 kB\nAnonymous: 300 kB\nLazyFree: 0 kB\nAnonHugePages: 0 kB\nSwap: 8 kB\nSwapPss: 8 kB\nLocked: 0 kB\n",
            ),
            net: true,
        },
        // 5.10.
        Kernel {
            status: status("HugetlbPages:\t 2048 kB\nCoreDumping:\t0\nTHP_enabled:\t1\n", ""),
            rollup: rollup(
                "Rss:  600 kB\nPss:  500 kB\nPss_Anon: 290 kB\nPss_File: 200 kB\nPss_Shmem: 10 kB\nPrivate_Dirty: 250 kB\nAnonymous: 300 kB\nFilePmdMapped: 0 kB\nSwap: 8 kB\n",
            ),
            net: true,
        },
        // 6.x, and a container without a network of its own that could be read.
        Kernel {
            status: status(
                "HugetlbPages:\t 2048 kB\nCoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n",
                "",
            )
            .replace("NSsid:\t42\n", "NSsid:\t42\nKthread:\t0\n"),
            rollup: rollup(
                "Rss:  600 kB\nPss:  500 kB\nPss_Dirty: 260 kB\nPss_Anon: 290 kB\nPrivate_Dirty: 250 kB\nAnonymous: 300 kB\nKSM: 0 kB\nSwap: 8 kB\n",
            ),
            net: false,
        },
    ]
}

fn stat_line(state: char, flags: u32, threads: u32, start: u64) -> String {
    format!(
        "42 (a) R 1\n() {state} 1 42 42 0 -1 {flags} 1000 7 20 7 150 50 0 0 20 0 {threads} 0 {start} 8192000 150 18446744073709551615 1 1 140720000000000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 94000000000000 0 0 0 0 0\n"
    )
}

/// A `/proc` with process 42 in it.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(kernel: &Kernel) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("42/status", &kernel.status);
        tree.write("42/smaps_rollup", &kernel.rollup);
        tree.write("42/stat", stat_line('S', 0x40_0000, 9, 77001));
        tree.write("42/cgroup", "0::/x\n");
        let mount = tree.path("c");
        tree.write(
            "self/mountinfo",
            format!("30 24 0:26 / {} rw - cgroup2 cgroup2 rw\n", mount.display()),
        );
        tree.write("c/x/memory.current", "4096\n");
        tree.write("c/x/memory.max", "8192\n");
        fs::create_dir_all(tree.path("42/fd")).unwrap();
        for (name, target) in [("0", "/dev/null"), ("3", "socket:[55]"), ("4", "socket:[56]")] {
            std::os::unix::fs::symlink(target, tree.path("42/fd").join(name)).unwrap();
        }
        if kernel.net {
            let line = |state: &str, inode: u32| {
                format!(
                    "   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0\n"
                )
            };
            tree.write("42/net/tcp", line("0A", 55) + &line("08", 56));
        }
        tree
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(ProcRoot::new(self.0.path()))
    }

    fn sample(&self) -> Result<Sample, NoSample> {
        let mut sampler = self.sampler();
        let mut subject = sampler.subject(42)?;
        sampler.sample(&mut subject, Parts::ALL)
    }
}

#[test]
fn the_same_of_every_kernel() {
    for (version, kernel) in ["4.14", "4.18", "5.10", "6"].iter().zip(kernels()) {
        let sample = Tree::new(&kernel).sample().unwrap();
        let kib = |bytes: u64| Some(bytes << 10);
        let totals = Totals {
            rss: kib(600),
            peak_rss: kib(700),
            rss_anonymous: kib(300),
            rss_file: kib(200),
            rss_shmem: kib(100),
            swap: kib(8),
            data: kib(4000),
            page_tables: kib(48),
            hugetlb: kib(2048).filter(|_| *version != "4.14"),
            threads: Some(9),
        };
        assert_eq!(sample.totals, totals, "{version}");
        let rollup = sample.rollup.unwrap();
        assert_eq!(
            (rollup.pss, rollup.private_dirty, rollup.anonymous_and_swap()),
            (kib(500), kib(250), kib(308)),
            "{version}"
        );
        assert_eq!((sample.stat.minor_faults, sample.stat.major_faults), (1000, 20));
        assert_eq!(sample.stat.processor, Duration::from_secs(2));
        assert_eq!(sample.descriptors, Ok(3));
        let sockets = sample.sockets.unwrap();
        let listed = u64::from(kernel.net);
        assert_eq!((sockets.tcp.listen, sockets.tcp.close_wait), (listed, listed));
        assert_eq!(sockets.total(), 2);
        let cgroup = sample.cgroup.unwrap();
        assert_eq!((cgroup.current, cgroup.tightest.unwrap().room()), (4096, 4096));
        assert!(sample.cost.wall > Duration::ZERO && sample.cost.processor > Duration::ZERO);
    }
}

#[test]
fn a_part_that_is_not_there_leaves_the_others() {
    let tree = Tree::new(&kernels()[1]);
    // Before 4.14 there is no rollup; cgroups may be absent.
    fs::remove_file(tree.path("42/smaps_rollup")).unwrap();
    fs::remove_file(tree.path("self/mountinfo")).unwrap();
    let sample = tree.sample().unwrap();
    assert_eq!(sample.rollup, Err(Lack::Absent));
    assert_eq!(sample.cgroup, Err(Lack::Absent));
    assert!(sample.sockets.is_ok() && sample.totals.rss.is_some());

    tree.write("42/smaps_rollup", "Rss: 4 kB\n");
    let unreadable = Lack::Unreadable(io::ErrorKind::InvalidData);
    assert_eq!(tree.sample().unwrap().rollup, Err(unreadable));
    fs::remove_dir_all(tree.path("42/fd")).unwrap();
    let sample = tree.sample().unwrap();
    assert_eq!(
        (sample.descriptors, sample.sockets),
        (Err(Lack::Absent), Err(Lack::Absent))
    );

    let mut sampler = tree.sampler();
    let mut subject = sampler.subject(42).unwrap();
    let sample = sampler.sample(&mut subject, Parts::NONE).unwrap();
    assert_eq!(sample.rollup, Err(Lack::NotAsked));
    assert_eq!(
        (sample.sockets, sample.cgroup),
        (Err(Lack::NotAsked), Err(Lack::NotAsked))
    );
}

#[test]
fn who_has_no_sample_and_why() {
    let of = |stat: String| {
        let tree = Tree::new(&kernels()[3]);
        tree.write("42/stat", stat);
        tree.sample().map(|_| ())
    };
    assert_eq!(of(stat_line('S', 0x40_0000, 9, 77001)), Ok(()));
    assert_eq!(of(stat_line('Z', 0x40_000c, 1, 77001)), Err(NoSample::Zombie));
    assert_eq!(
        of(stat_line('Z', 0x40_000c, 2, 77001)),
        Err(NoSample::LeaderExited)
    );
    assert_eq!(of(stat_line('R', 0x40_0004, 1, 77001)), Err(NoSample::Zombie));
    assert_eq!(of(stat_line('I', 0x0420_8060, 1, 5)), Err(NoSample::KernelThread));
    let cut = NoSample::Unreadable(io::ErrorKind::InvalidData);
    assert_eq!(of("42 (x) S 1".to_owned()), Err(cut));
    assert_eq!(of(String::new()), Err(cut));
    let mut sampler = Tree::new(&kernels()[3]).sampler();
    assert_eq!(sampler.subject(43).map(|_| ()), Err(NoSample::Exited));
}

#[test]
fn a_process_that_goes_or_whose_number_is_given_away() {
    for parts in [Parts::NONE, Parts::ALL] {
        let tree = Tree::new(&kernels()[2]);
        let mut sampler = tree.sampler();
        let mut subject = sampler.subject(42).unwrap();
        sampler.sample(&mut subject, parts).unwrap();
        // Between two files.
        let stat = fs::read(tree.path("42/stat")).unwrap();
        fs::remove_file(tree.path("42/stat")).unwrap();
        assert_eq!(sampler.sample(&mut subject, parts), Err(NoSample::Exited));
        tree.write("42/stat", stat);
        fs::remove_file(tree.path("42/status")).unwrap();
        assert_eq!(sampler.sample(&mut subject, parts), Err(NoSample::Exited));
        // Another one has the number.
        tree.write("42/status", &kernels()[2].status);
        tree.write("42/stat", stat_line('S', 0x40_0000, 1, 90000));
        let replaced = NoSample::Replaced {
            start_time_ticks: 90000,
        };
        assert_eq!(sampler.sample(&mut subject, parts), Err(replaced));
        fs::remove_dir_all(tree.path("42")).unwrap();
        assert_eq!(sampler.sample(&mut subject, parts), Err(NoSample::Exited));
    }
}

/// The number is given away while the last part is read: what was read before is not to be had either.
#[test]
fn a_number_given_away_halfway() {
    let tree = Tree::new(&kernels()[3]);
    let rollup = tree.path("42/smaps_rollup");
    fs::remove_file(&rollup).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &rollup,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let mut sampler = tree.sampler();
    let mut subject = sampler.subject(42).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Opens when the sampler has come so far, and keeps it there until it is closed.
            let mut pipe = fs::OpenOptions::new().write(true).open(&rollup).unwrap();
            tree.write("42/stat", stat_line('S', 0x40_0000, 1, 90000));
            io::Write::write_all(&mut pipe, kernels()[3].rollup.as_bytes()).unwrap();
        });
        let replaced = NoSample::Replaced {
            start_time_ticks: 90000,
        };
        assert_eq!(sampler.sample(&mut subject, Parts::ALL), Err(replaced));
    });
}

#[test]
fn dear_parts_wait_a_hundred_times_what_they_took() {
    let tree = Tree::new(&kernels()[3]);
    let mut sampler = tree.sampler();
    let mut subject = sampler.subject(42).unwrap();
    let mut at = Moment::now();
    let first = sampler.sample_at(at, &mut subject, Parts::ALL).unwrap();
    assert!(first.rollup.is_ok() && first.sockets.is_ok() && first.cgroup.is_ok());
    let (reads, took) = subject.spent();
    // The listing of descriptors too, which no kernel has counted here.
    assert_eq!(reads, 4);
    at.since_boot += Duration::from_nanos(1);
    let second = sampler.sample_at(at, &mut subject, Parts::ALL).unwrap();
    assert_eq!(second.descriptors, Err(Lack::PutOff));
    assert_eq!(
        (second.rollup, second.sockets),
        (Err(Lack::PutOff), Err(Lack::PutOff))
    );
    assert_eq!((second.cgroup, subject.spent().0), (Err(Lack::PutOff), 4));
    assert_eq!(second.totals, first.totals, "what is cheap is there each time");
    at.since_boot += took * 101;
    let third = sampler.sample_at(at, &mut subject, Parts::ALL).unwrap();
    assert!(third.rollup.is_ok() && third.sockets.is_ok() && third.cgroup.is_ok());
    // A failed read has cost something as well.
    fs::remove_file(tree.path("42/smaps_rollup")).unwrap();
    at.since_boot += Duration::from_secs(3600);
    assert_eq!(
        sampler.sample_at(at, &mut subject, Parts::ALL).unwrap().rollup,
        Err(Lack::Absent)
    );
    assert_eq!(
        sampler.sample_at(at, &mut subject, Parts::ALL).unwrap().rollup,
        Err(Lack::PutOff)
    );
}

#[test]
fn a_child_that_grows_by_known_amounts() {
    let (mut child, _) = Child::role("growth", |_| {});
    let mut sampler = Sampler::new(ProcRoot::default());
    let mut subject = sampler.subject(child.pid()).unwrap();
    let before = sampler.sample(&mut subject, Parts::ALL).unwrap();
    child.step();
    // So much later that no dear part is put off.
    let mut at = Moment::now();
    at.since_boot += Duration::from_secs(3600);
    let after = sampler.sample_at(at, &mut subject, Parts::ALL).unwrap();

    let descriptors = |sample: &Sample| sample.descriptors.unwrap();
    assert_eq!(descriptors(&after) - descriptors(&before), 21);
    let threads = |sample: &Sample| sample.totals.threads.unwrap();
    assert_eq!(threads(&after) - threads(&before), 11);
    assert_eq!(after.stat.threads, threads(&after));
    let grown =
        |field: fn(&Totals) -> Option<u64>| field(&after.totals).unwrap() - field(&before.totals).unwrap();
    // The kernel adds each processor's share of its counters up in batches: a part of a MiB is uncertain.
    let mib = 1 << 20;
    assert!((63 * mib..68 * mib).contains(&grown(|totals| totals.rss_anonymous)));
    assert!((63 * mib..70 * mib).contains(&grown(|totals| totals.rss)));
    // The stacks of threads are address space, 2 MiB each.
    assert!((85 * mib..100 * mib).contains(&grown(|totals| totals.data)));
    assert!(grown(|totals| totals.page_tables) > 0);
    assert!(after.stat.minor_faults > before.stat.minor_faults);
    assert!(after.stat.processor >= before.stat.processor);
    let dirty = |sample: &Sample| sample.rollup.unwrap().private_dirty.unwrap();
    assert!((63 * mib..70 * mib).contains(&(dirty(&after) - dirty(&before))));
    assert_eq!(after.sockets.unwrap(), before.sockets.unwrap());
    let started = stat::of_ticks(subject.start_time_ticks());
    assert!(started < before.at.since_boot && before.at.since_boot - started < Duration::from_secs(60));

    child.end();
    let ended = sampler.sample(&mut subject, Parts::ALL);
    assert_eq!(ended, Err(NoSample::Zombie));
    child.reap();
    assert_eq!(sampler.sample(&mut subject, Parts::NONE), Err(NoSample::Exited));
}

#[test]
fn a_child_grows_in_stacks_and_anonymous_memory() {
    let root = ProcRoot::default();
    let (mut child, _) = Child::role("growth", |_| {});
    let before = smaps::read(&root, child.pid()).unwrap();
    child.step();
    let after = smaps::read(&root, child.pid()).unwrap();
    let growth = growth(&before.mappings, &after.mappings);
    let mib = 1 << 20;
    let grown = |kind: Kind| growth.kinds.get(&kind).copied().unwrap_or_default();
    assert!((64 * mib..67 * mib).contains(&grown(Kind::Anonymous).anonymous));
    let guards = after
        .mappings
        .iter()
        .filter(|sizes| sizes.mapping.inaccessible() && sizes.size <= 65536);
    if guards.count() < 11 {
        eprintln!("this libc makes guards without a mapping: stacks not tested");
        return;
    }
    // 2 MiB each; what lies right above the highest may have become one with it.
    assert!(
        (20 * mib..24 * mib).contains(&grown(Kind::ThreadStack).size),
        "{:?}",
        growth.kinds
    );
    let library = growth
        .libraries
        .iter()
        .find(|row| row.name == b"[thread stacks]")
        .unwrap();
    assert_eq!(library.growth, grown(Kind::ThreadStack));
}

/// To whom nothing is allowed, sizes and counts are told and the rest is forbidden.
#[test]
fn without_rights_over_the_process() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: cannot become somebody else");
        return;
    }
    let (_child, said) = Child::role("stranger", |command| {
        command.uid(65534).gid(65534);
    });
    assert_eq!(said, "Some(Forbidden) Some(Forbidden) true");
}

#[test]
fn a_kernel_thread_of_this_host() {
    let root = ProcRoot::default();
    let mut sampler = Sampler::new(root.clone());
    for pid in super::super::processes::list(&root).unwrap() {
        // `[kthreadd]` and its children have no address space, so no executable.
        let kernel_thread = stat::read(&root, pid).is_ok_and(|stat| stat.is_kernel_thread());
        if kernel_thread {
            assert_eq!(sampler.subject(pid).map(|_| ()), Err(NoSample::KernelThread));
            return;
        }
    }
    eprintln!("no kernel thread is visible: not tested");
}

fn mutated() -> impl Strategy<Value = (usize, usize, usize, Vec<u8>)> {
    let numbers = prop_oneof![
        Just(b"18446744073709551615".to_vec()),
        Just(b"99999999999999999999999".to_vec()),
        Just(b"-1".to_vec()),
        Just(b"\n".to_vec()),
        Just(b")".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    (0_usize..7, 0_usize..1200, 0_usize..40, numbers)
}

proptest! {
    /// Whatever the files hold, a sample is a sample or a reason.
    #[test]
    fn any_files_are_a_sample_or_a_reason(
        kernel in 0_usize..4, changes in proptest::collection::vec(mutated(), 1..6), cut in proptest::option::of(0_usize..1200),
    ) {
        let tree = Tree::new(&kernels()[kernel]);
        let files = ["42/status", "42/stat", "42/smaps_rollup", "42/cgroup", "42/net/tcp", "self/mountinfo", "c/x/memory.max"];
        for (file, at, length, with) in changes {
            let Ok(mut text) = fs::read(tree.path(files[file])) else { continue };
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, with);
            if let Some(cut) = cut { text.truncate(cut); }
            tree.write(files[file], text);
        }
        if let Ok(sample) = tree.sample() {
            prop_assert!(sample.totals.threads.is_some());
            if let Ok(sockets) = sample.sockets { prop_assert_eq!(sockets.total(), 2); }
        }
    }
}

/// Prints what a sample costs here: `cargo test --release -p leakwatch --lib what_a_sample_costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_sample_costs() {
    let (mut child, sockets) = Child::role("idle sockets", |_| {});
    let mut sampler = Sampler::new(ProcRoot::default());
    let mut rounds = |name: &str, pid: u32, parts: Parts, rounds: u32| {
        let mut cost = Cost::default();
        for _ in 0..rounds {
            // A new subject has spent nothing yet.
            let mut subject = sampler.subject(pid).unwrap();
            let sample = sampler.sample(&mut subject, parts).unwrap();
            cost.wall += sample.cost.wall;
            cost.processor += sample.cost.processor;
        }
        println!(
            "{name}: {} ns of wall, {} ns of processor time a sample",
            (cost.wall / rounds).as_nanos(),
            (cost.processor / rounds).as_nanos()
        );
    };
    let only = |change: fn(&mut Parts)| {
        let mut parts = Parts::NONE;
        change(&mut parts);
        parts
    };
    let own = std::process::id();
    rounds("cheap parts", own, Parts::NONE, 5000);
    rounds("and the cgroup", own, only(|parts| parts.cgroup = true), 2000);
    rounds("and the rollup", own, only(|parts| parts.rollup = true), 500);
    rounds("and few sockets", own, only(|parts| parts.sockets = true), 500);
    rounds(
        &format!("and {sockets} sockets"),
        child.pid(),
        only(|parts| parts.sockets = true),
        5,
    );
    child.reap();
}
