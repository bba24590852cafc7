//! Programs that tell at any moment what each of their functions keeps (`programs/cohort.h`), watched at work: what the
//! window added is known by function, and so are the shares that a report must give them.
//!
//! The target works before the window, through it and after it, as a service does. What it says at the window's two ends
//! is off by what it keeps in the moment between the end and the question.

use std::time::{Duration, Instant};

use crate::cost::cpu_seconds;
use crate::expect::table;
use crate::record::{Outcome, Record};
use crate::recording::{CallSite, Recording};
use crate::target::{Target, Truth};
use crate::{account, allocations};

/// What a function that gives everything back may be blamed for, of all that is blamed.
const INNOCENT_SHARE: f64 = 0.02;

/// What a site may be said to keep where nothing is kept, beyond three standard errors: blocks in flight.
const IN_FLIGHT_BYTES: f64 = 512.0 * 1024.0;

/// A window on a target at work, and what the target said at its ends.
#[derive(Debug)]
pub struct Watched {
    pub before: Truth,
    pub after: Truth,
    pub outcome: Outcome,
    pub recording: Recording,
    /// Processor time that the target used between the two, by the kernel.
    pub target_seconds: f64,
}

/// Lets the target work, and watches it for so many seconds, its heap read at both ends.
#[must_use]
pub fn watch(target: &mut Target, seconds: u32, arguments: &[&str]) -> Watched {
    target.go();
    std::thread::sleep(Duration::from_millis(300));
    watch_at_work(target, seconds, arguments)
}

/// The same of a target that works already.
#[must_use]
pub fn watch_at_work(target: &mut Target, seconds: u32, arguments: &[&str]) -> Watched {
    let mut record = Record::of(target.pid())
        .duration(&format!("{seconds}s"))
        .arg("--census")
        .arg("always");
    for argument in arguments {
        record = record.arg(argument);
    }
    let running = record.start();
    running.wait_attached();
    let began = Instant::now();
    let before = target.count();
    let used = cpu_seconds(target.pid());
    std::thread::sleep((Duration::from_secs(seconds.into())).saturating_sub(began.elapsed()));
    let after = target.count();
    let target_seconds = cpu_seconds(target.pid()) - used;
    let outcome = running.finish();
    let recording = outcome.recording();
    assert!(
        target.is_well(),
        "the target did not survive being watched\n{outcome}"
    );
    let last = target.count();
    assert_eq!(
        last.number("wrong"),
        0,
        "it reads back what it did not write: {last:?}"
    );
    assert!(
        last.number("answers") > before.number("answers"),
        "it stood still: {last:?}"
    );
    Watched {
        before,
        after,
        outcome,
        recording,
        target_seconds,
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a test are far below 2^53")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

impl Watched {
    /// Bytes that a function kept of what came in the window, by the target's own count; 0 where it keeps less.
    #[must_use]
    pub fn kept_by(&self, function: &str) -> u64 {
        let at = |truth: &Truth| truth.functions.get(function).copied();
        let (Some(before), Some(after)) = (at(&self.before), at(&self.after)) else {
            panic!("the program tells nothing of {function}: {:?}", self.after);
        };
        after.saturating_sub(before)
    }

    /// The same of all functions.
    #[must_use]
    pub fn kept(&self) -> u64 {
        let functions = self.after.functions.keys();
        functions.map(|function| self.kept_by(function)).sum()
    }

    /// For a failure's message.
    #[must_use]
    pub fn detail(&self) -> String {
        let truth: Vec<_> = self.after.functions.keys().collect();
        let truth: Vec<_> = truth
            .into_iter()
            .map(|function| (function, self.kept_by(function)))
            .collect();
        format!(
            "by the program's own count: {truth:?}\nallocations: {:?} {:?}\nheap: {:?} {:?}\n{}{}",
            self.recording.allocations,
            self.recording.allocations_not_watched,
            self.recording.heap.as_ref().and_then(|heap| heap.growth),
            self.recording.heap_not_taken,
            table(&self.recording, &self.outcome),
            self.outcome.stdout
        )
    }

    /// Births were watched, within the budget, and all sums hold.
    pub fn is_sound(&self) {
        let watched = self.recording.allocations.as_ref();
        let watched = watched.unwrap_or_else(|| panic!("births were not watched\n{}", self.detail()));
        assert!(watched.bursts > 0 && watched.hits > 0, "{}", self.detail());
        for problem in [
            allocations::within_budget(watched),
            allocations::adds_up(&self.recording),
            allocations::heap_closes(&self.recording),
        ] {
            problem.unwrap_or_else(|problem| panic!("{problem}\n{}", self.detail()));
        }
        account::sums_up(&self.outcome);
    }

    /// The true function comes first.
    pub fn names_the_leak(&self) {
        let site = self.after.site.as_deref().expect("a leaky program has a site");
        let first = self.recording.call_sites.first();
        assert!(
            first.is_some_and(|first| first.blames(site)),
            "{site} should come first\n{}",
            self.detail()
        );
    }

    /// Each function's part of all that is kept is within ten points of the true one.
    pub fn shares_are_true(&self) {
        let (kept, live) = (float(self.kept()), float(self.recording.live()));
        assert!(kept > 0.0 && live > 0.0, "{}", self.detail());
        for function in self.after.functions.keys() {
            let expected = float(self.kept_by(function)) / kept;
            let share = float(self.recording.live_by(function)) / live;
            assert!(
                (share - expected).abs() <= 0.1,
                "{function} has {:.1} % by the report, {:.1} % by its own count\n{}",
                share * 100.0,
                expected * 100.0,
                self.detail()
            );
        }
    }

    /// The bytes of a function are its own count's, within this part and three standard errors. What is said to be
    /// unnamed may be its too.
    pub fn bytes_are_true(&self, function: &str, part: f64) {
        let (live, expected) = (
            float(self.recording.live_by(function)),
            float(self.kept_by(function)),
        );
        let unnamed = self
            .recording
            .allocations
            .as_ref()
            .map_or(0, |all| all.unnamed_bytes);
        let unnamed = float(u64::try_from(unnamed).unwrap_or(0));
        let tolerance = part * expected + 3.0 * self.recording.standard_error_by(function);
        assert!(
            live <= expected + tolerance && live + unnamed >= expected - tolerance,
            "{function} keeps {live} bytes by the report, {expected} by its own count (tolerance {tolerance:.0}, \
             unnamed {unnamed})\n{}",
            self.detail()
        );
    }

    /// Of what was kept more has a name than has none.
    pub fn most_is_named(&self) {
        let unnamed = self
            .recording
            .allocations
            .as_ref()
            .map_or(0, |all| all.unnamed_bytes);
        assert!(
            unnamed.cast_unsigned() < self.kept() / 2,
            "{unnamed} bytes are unnamed, of {} that were kept\n{}",
            self.kept(),
            self.detail()
        );
    }

    /// No function that gives everything back has two parts in a hundred of what is blamed.
    pub fn innocents_are_not_blamed(&self) {
        let live = float(self.recording.live());
        assert!(!self.after.innocents.is_empty(), "nobody is innocent");
        for innocent in &self.after.innocents {
            let share = float(self.recording.live_by(innocent)) / live;
            assert!(
                share < INNOCENT_SHARE,
                "{innocent} is blamed for {:.1} %\n{}",
                share * 100.0,
                self.detail()
            );
        }
    }

    /// Its sites with something to their name say by what: blocks that survived. At least one does, and has births,
    /// survivors and an error to show.
    pub fn rests_on_survivors(&self, function: &str) {
        let of_blocks: Vec<&CallSite> = self
            .recording
            .sites_of(function)
            .filter(|site| site.evidence == "survivors")
            .collect();
        let first = of_blocks
            .first()
            .unwrap_or_else(|| panic!("no site of {function} rests on survivors\n{}", self.detail()));
        let blocks = first
            .allocations
            .as_ref()
            .unwrap_or_else(|| panic!("no births of {function}\n{}", self.detail()));
        assert!(
            blocks.survived > 0 && blocks.survived <= blocks.followed && blocks.blocks > 0,
            "{blocks:?}\n{}",
            self.detail()
        );
        assert!(
            !blocks.classes.is_empty() && !blocks.functions.is_empty(),
            "{blocks:?}"
        );
        assert!(
            first.via == "malloc",
            "it came by {}\n{}",
            first.via,
            self.detail()
        );
        assert!(
            first.standard_error_bytes.is_some(),
            "no error is stated: {first:?}"
        );
    }

    /// Where nothing is kept nothing is said to be, beyond the stated error and blocks in flight, and there is no leak.
    pub fn nothing_survives(&self) {
        assert_eq!(self.after.site, None, "a fixed program has no site");
        for site in &self.recording.call_sites {
            if site.evidence != "survivors" {
                continue;
            }
            let error = site.standard_error_bytes.unwrap_or(0.0);
            let live = float(site.live_bytes.unwrap_or(0));
            assert!(
                live <= 3.0 * error + IN_FLIGHT_BYTES,
                "{} is said to keep {live} bytes, with an error of {error:.0}\n{}",
                site.label,
                self.detail()
            );
        }
        self.verdict_is_not_leak();
    }

    pub fn verdict_is_not_leak(&self) {
        let kind = self.verdict();
        assert_ne!(
            kind,
            Some("leak"),
            "{:?}\n{}",
            self.recording.verdict,
            self.detail()
        );
    }

    #[must_use]
    pub fn verdict(&self) -> Option<&str> {
        self.recording
            .verdict
            .as_ref()
            .map(|verdict| verdict.kind.as_str())
    }

    /// All that a leak's report owes: the true function first by survivors, true shares, innocents spared, sums that
    /// hold, and whole stacks.
    pub fn is_true(&self) {
        self.is_sound();
        self.names_the_leak();
        self.shares_are_true();
        self.innocents_are_not_blamed();
        let site = self.after.site.as_deref().expect("a leaky program has a site");
        self.rests_on_survivors(site);
        self.bytes_are_true(site, 0.15);
        self.most_is_named();
    }
}
