//! A kernel in small, several threads in it, and probes that report as the real ones do: whatever way the calls
//! interleave and whenever maps is read, the ledger ends up as the kernel has it.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::super::*;
use super::PAGE;

const MILLISECOND: u64 = 1_000_000;
/// Pages of the whole address space, which starts at page 16.
const SPACE: Range<u64> = 16..96;

#[derive(Clone, Copy, Debug)]
struct Frame {
    protection: Protection,
    backing: Backing,
    /// The thread whose memory it is. Threads leave each other's alone, but addresses pass between them.
    of: u32,
}

/// Ranges are in pages.
#[derive(Clone, Debug)]
enum Call {
    Map {
        length: u64,
        protection: Protection,
        backing: Backing,
    },
    MapFixed {
        range: Range<u64>,
        protection: Protection,
    },
    Unmap(Range<u64>),
    Protect {
        range: Range<u64>,
        protection: Protection,
    },
    Remap {
        old: Range<u64>,
        length: u64,
        keeps_old: bool,
    },
    Discard(Range<u64>),
}

#[derive(Clone, Debug)]
enum Stage {
    Entered(Call, bool),
    /// With what it returned, in pages; `None` when it failed.
    Done(Call, Option<Range<u64>>),
}

#[derive(Default)]
struct Kernel {
    frames: BTreeMap<u64, Frame>,
    threads: BTreeMap<u32, Stage>,
    events: Vec<Change>,
    time: u64,
    /// Threads do not enter `mremap` for now.
    unmoved: bool,
}

fn bytes(range: &Range<u64>) -> Range<u64> {
    range.start * PAGE..range.end * PAGE
}

impl Kernel {
    fn emit(&mut self, thread: u32, action: Action) {
        self.events.push(Change {
            time: self.time,
            thread,
            action,
        });
    }

    /// The lowest free range, as a kernel that hands freed addresses out again at once.
    fn free(&self, length: u64) -> Option<Range<u64>> {
        (SPACE.start..=SPACE.end - length)
            .map(|start| start..start + length)
            .find(|range| self.frames.range(range.clone()).next().is_none())
    }

    /// Some memory of `thread`, of one kind throughout.
    fn pick(&self, thread: u32, dice: u64) -> Option<Range<u64>> {
        let own: Vec<u64> = self
            .frames
            .iter()
            .filter(|(_, f)| f.of == thread)
            .map(|(&at, _)| at)
            .collect();
        let start = *own.get(usize::try_from(dice).unwrap() % own.len().max(1))?;
        let first = self.frames[&start];
        let alike = |at: &u64| {
            self.frames.get(at).is_some_and(|frame| {
                frame.of == thread && frame.protection == first.protection && frame.backing == first.backing
            })
        };
        let length = (start..start + 1 + dice / 64 % 12).take_while(alike).count() as u64;
        Some(start..start + length)
    }

    /// The thread goes one stage on: enters a call, has it done, or returns from it.
    fn step(&mut self, thread: u32, dice: u64) {
        self.time += MILLISECOND;
        match self.threads.remove(&thread) {
            None => self.enter(thread, dice),
            Some(Stage::Entered(call, fails)) => {
                let result = if fails { None } else { self.perform(thread, &call) };
                self.threads.insert(thread, Stage::Done(call, result));
            }
            Some(Stage::Done(call, result)) => self.leave(thread, &call, result),
        }
    }

    fn enter(&mut self, thread: u32, dice: u64) {
        let (kind, rest) = (dice % 10, dice / 10);
        let protection = [Protection::NONE, Protection::READ, Protection::READ_WRITE][(rest % 3) as usize];
        let backing = if rest / 3 % 5 == 0 {
            Backing::Shared
        } else {
            Backing::Anonymous
        };
        let own = self.pick(thread, rest / 16);
        let call = match (kind, own) {
            (0..3, _) | (_, None) => Call::Map {
                length: 1 + rest / 16 % 12,
                protection,
                backing,
            },
            (3, Some(range)) => Call::MapFixed { range, protection },
            (4 | 5, Some(range)) => Call::Unmap(range),
            (6, Some(range)) => Call::Protect { range, protection },
            (7, Some(range)) => Call::Discard(range),
            (_, Some(range)) if self.unmoved => Call::Unmap(range),
            (_, Some(old)) => {
                let keeps_old = rest % 4 == 0;
                let length = if keeps_old {
                    old.end - old.start
                } else {
                    1 + rest / 32 % 12
                };
                Call::Remap {
                    old,
                    length,
                    keeps_old,
                }
            }
        };
        if let Some((range, how)) = gives_up(&call) {
            self.emit(
                thread,
                Action::Release {
                    range: bytes(&range),
                    how,
                },
            );
        }
        self.threads.insert(thread, Stage::Entered(call, rest % 7 == 0));
    }

    fn perform(&mut self, thread: u32, call: &Call) -> Option<Range<u64>> {
        match call {
            Call::Map {
                length,
                protection,
                backing,
            } => {
                let range = self.free(*length)?;
                let frame = Frame {
                    protection: *protection,
                    backing: *backing,
                    of: thread,
                };
                self.frames.extend(range.clone().map(|at| (at, frame)));
                Some(range)
            }
            Call::MapFixed { range, protection } => {
                let frame = Frame {
                    protection: *protection,
                    backing: Backing::Anonymous,
                    of: thread,
                };
                self.frames.extend(range.clone().map(|at| (at, frame)));
                Some(range.clone())
            }
            Call::Unmap(range) => {
                self.frames.retain(|at, _| !range.contains(at));
                Some(range.clone())
            }
            Call::Protect { range, protection } => {
                for (_, frame) in self.frames.range_mut(range.clone()) {
                    frame.protection = *protection;
                }
                Some(range.clone())
            }
            Call::Discard(range) => Some(range.clone()),
            Call::Remap {
                old,
                length,
                keeps_old,
            } => {
                let frame = self.frames[&old.start];
                let room = self
                    .frames
                    .range(old.end..(old.start + length).max(old.end))
                    .next()
                    .is_none()
                    && old.start + length <= SPACE.end;
                let new = if !keeps_old && (*length <= old.end - old.start || room) {
                    old.start..old.start + length
                } else {
                    self.free(*length)?
                };
                if !keeps_old {
                    self.frames.retain(|at, _| !old.contains(at));
                }
                self.frames.extend(new.clone().map(|at| (at, frame)));
                Some(new)
            }
        }
    }

    fn leave(&mut self, thread: u32, call: &Call, result: Option<Range<u64>>) {
        // Each call is a site of its own.
        let site = Some(SiteId(u32::try_from(self.events.len()).unwrap()));
        let Some(result) = result else {
            if let Some((range, how)) = gives_up(call) {
                self.emit(
                    thread,
                    Action::ReleaseFailed {
                        range: bytes(&range),
                        how,
                    },
                );
            }
            return;
        };
        let range = bytes(&result);
        let action = match call {
            Call::Map {
                protection, backing, ..
            } => Action::Map {
                range,
                protection: *protection,
                backing: *backing,
                site,
            },
            Call::MapFixed { protection, .. } => Action::Map {
                range,
                protection: *protection,
                backing: Backing::Anonymous,
                site,
            },
            Call::Protect { protection, .. } if !protection.is_none() => Action::Protect {
                range,
                protection: *protection,
                site,
            },
            Call::Remap { old, keeps_old, .. } => Action::Remap {
                old: bytes(old),
                new: range,
                keeps_old: *keeps_old,
                site,
            },
            _ => return,
        };
        self.emit(thread, action);
    }

    /// Reads one part of maps: the kernel gives it out in parts, and the world moves on between them.
    fn read(&self, part: Range<u64>, regions: &mut Vec<Region>) {
        regions.extend(self.frames.range(part).map(|(&at, frame)| Region {
            range: bytes(&(at..at + 1)),
            protection: frame.protection,
            backing: frame.backing,
        }));
    }

    /// Threads in a call whose entry is an event.
    fn giving_up(&self) -> Vec<u32> {
        let gives = |stage: &Stage| {
            let (Stage::Entered(call, _) | Stage::Done(call, _)) = stage;
            gives_up(call).is_some()
        };
        self.threads
            .iter()
            .filter(|(_, stage)| gives(stage))
            .map(|(&thread, _)| thread)
            .collect()
    }
}

fn gives_up(call: &Call) -> Option<(Range<u64>, How)> {
    match call {
        Call::MapFixed { range, .. } => Some((range.clone(), How::Replace)),
        Call::Unmap(range) => Some((range.clone(), How::Unmap)),
        Call::Protect { range, protection } if protection.is_none() => Some((range.clone(), How::Decommit)),
        Call::Remap { old, .. } => Some((old.clone(), How::RemapFrom)),
        Call::Discard(range) => Some((range.clone(), How::Discard)),
        _ => None,
    }
}

fn as_mapped(ledger: &Ledger) -> BTreeMap<u64, (Protection, Backing)> {
    let page = |(range, piece): (Range<u64>, Piece)| {
        (range.start / PAGE..range.end / PAGE).map(move |at| (at, (piece.protection, piece.backing)))
    };
    ledger.pieces().flat_map(page).collect()
}

/// Reads maps in four parts with `pause` steps between them.
fn read_maps(kernel: &mut Kernel, steps: &mut impl Iterator<Item = (u32, u64)>, pause: usize) -> Vec<Region> {
    let mut regions = Vec::new();
    for part in 0..4 {
        for (thread, dice) in steps.by_ref().take(pause) {
            kernel.step(thread, dice);
        }
        let length = (SPACE.end - SPACE.start) / 4;
        let start = SPACE.start + part * length;
        kernel.read(start..start + length, &mut regions);
    }
    regions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rules 1 and 3: attach, then read maps at some time, then apply everything since the attach. And rule 7: a
    /// check where nothing was lost changes nothing in the end, not even an owner.
    #[test]
    fn ledger_ends_up_as_the_kernel_has_it(
        steps in prop::collection::vec((0u32..4, any::<u64>()), 60..300),
        attached_at in 0usize..60,
        read_after in 0usize..30,
        pauses in (0usize..8, 0usize..8),
        check_after in 0usize..60,
        drained_after in 0usize..10,
        moves_early in any::<bool>(),
    ) {
        let mut kernel = Kernel::default();
        let mut steps = steps.into_iter();
        for (thread, dice) in steps.by_ref().take(attached_at) {
            kernel.step(thread, dice);
        }
        // A release that was entered before the attach and done after the reading leaves no trace: a check's work.
        for thread in kernel.giving_up() {
            while kernel.threads.contains_key(&thread) {
                kernel.step(thread, 0);
            }
        }
        kernel.events.clear();
        kernel.unmoved = !moves_early;
        for (thread, dice) in steps.by_ref().take(read_after) {
            kernel.step(thread, dice);
        }
        kernel.time += 1;
        let read_began = kernel.time;
        let regions = read_maps(&mut kernel, &mut steps, pauses.0);
        kernel.unmoved = false;
        let mut ledger = Ledger::new(PAGE);
        ledger.set_baseline(&regions, read_began);
        let mut unchecked = ledger.clone();
        for (thread, dice) in steps.by_ref().take(check_after) {
            kernel.step(thread, dice);
        }
        let mut applied = kernel.events.len().saturating_sub(drained_after);
        for change in &kernel.events[..applied] {
            ledger.apply(change);
        }
        kernel.time += 1;
        ledger.begin_check(kernel.time);
        let regions = read_maps(&mut kernel, &mut steps, pauses.1);
        for change in &kernel.events[applied..] {
            ledger.apply(change);
        }
        applied = kernel.events.len();
        ledger.finish_check(&regions);

        for (thread, dice) in steps {
            kernel.step(thread, dice);
        }
        while let Some(&thread) = kernel.threads.keys().next() {
            kernel.step(thread, 0);
        }
        for change in &kernel.events[applied..] {
            ledger.apply(change);
        }
        for change in &kernel.events {
            unchecked.apply(change);
        }
        let truth: BTreeMap<u64, (Protection, Backing)> =
            kernel.frames.iter().map(|(&at, frame)| (at, (frame.protection, frame.backing))).collect();
        let wrong = |ledger: &Ledger| {
            let known = as_mapped(ledger);
            let wrong = |at: &u64| match (known.get(at), truth.get(at)) {
                // An mremap while maps is read can slip by the reading with its protection: a check's work.
                (Some(_), Some(_)) if moves_early => false,
                (known, real) => known != real,
            };
            SPACE.filter(wrong).map(|at| (at, known.get(&at).copied())).collect::<Vec<_>>()
        };
        let history = || format!("read at {read_began}, then\n{:#?}", kernel.events);
        prop_assert_eq!(wrong(&unchecked), [], "from the baseline on, {}", history());
        prop_assert_eq!(wrong(&ledger), [], "with a check, {}", history());
        if !moves_early {
            let owners = |ledger: &Ledger| ledger.held_ranges().collect::<Vec<_>>();
            prop_assert_eq!(owners(&ledger), owners(&unchecked), "{}", history());
        }

        let regions = read_maps(&mut kernel, &mut std::iter::empty(), 0);
        ledger.begin_check(kernel.time + 2000 * MILLISECOND);
        ledger.finish_check(&regions);
        prop_assert_eq!(as_mapped(&ledger), truth);
    }
}
