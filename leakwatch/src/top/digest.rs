//! From snapshots to views, on a thread of its own that gives way to others: names, rows, and the verdict so far. Neither
//! the ring nor the keyboard waits for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mailbox::{Mailbox, Taken};
use super::naming::{Naming, unnamed};
use super::rows::rows;
use super::view::{Judged, Named, View};
use crate::diagnose::rank::GroupBy;
use crate::session::live::{LiveSite, Snapshot};
use crate::unwind::StackId;

/// What naming may take of each second.
const NAMING: Duration = Duration::from_millis(200);
/// A verdict waits so many times as long as the latest took.
const WAITS: u32 = 100;
/// Nicer than whatever leakwatch has to do in time.
const NICE: i32 = 5;

/// Makes views of snapshots until there are none any more.
pub fn run(snapshots: &Mailbox<Snapshot>, views: &Mailbox<Arc<View>>, by: GroupBy) {
    // Without the right to it, it is as urgent as the rest.
    let _: Result<(), rustix::io::Errno> = rustix::process::setpriority_process(None, NICE);
    let _close = CloseAtEnd(views);
    let mut digest = Digest::new(by);
    let mut latest: Option<Snapshot> = None;
    loop {
        // With stacks left to name the same snapshot is good for another view.
        let patience = match &latest {
            Some(_) => Duration::ZERO,
            None => Duration::from_secs(3600),
        };
        match snapshots.take(patience) {
            Taken::Latest(snapshot) => latest = Some(snapshot),
            Taken::Nothing => {}
            Taken::Closed => break,
        }
        let Some(snapshot) = &latest else { continue };
        let (view, done) = digest.view(snapshot);
        views.put(Arc::new(view));
        if done {
            latest = None;
        }
    }
}

/// However the views end, whoever shows them is to know.
struct CloseAtEnd<'a>(&'a Mailbox<Arc<View>>);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Digest {
    by: GroupBy,
    naming: Naming,
    verdict: Option<Judged>,
    /// When the next verdict may be made.
    judge_at: Instant,
}

impl Digest {
    fn new(by: GroupBy) -> Self {
        Self {
            by,
            naming: Naming::new(by),
            verdict: None,
            judge_at: Instant::now(),
        }
    }

    /// A view, and whether all of its stacks have names.
    fn view(&mut self, snapshot: &Snapshot) -> (View, bool) {
        let mut sites: Vec<&LiveSite> = snapshot.sites.iter().collect();
        // What stands at the top of the screen is named first.
        sites.sort_by_key(|site| std::cmp::Reverse(site.bytes));
        let stacks = sites.iter().map(|site| (site.id, &site.stack));
        let done = self.naming.name(&snapshot.modules, stacks, NAMING);
        let shown: HashSet<StackId> = sites.iter().map(|site| site.id).collect();
        self.naming.forget_all_but(|id| shown.contains(&id));
        let named: Vec<(LiveSite, Arc<Named>)> = snapshot
            .sites
            .iter()
            .map(|site| {
                let named = self.naming.known(site.id);
                let named = named.unwrap_or_else(|| unnamed(&snapshot.modules, &site.stack, self.by));
                (site.clone(), named)
            })
            .collect();
        self.judge(snapshot);
        let elapsed = snapshot.elapsed.as_secs_f64();
        let rows = rows(named, elapsed);
        let view = View {
            elapsed,
            by_pages: snapshot.by_pages,
            verdict: self.verdict.clone(),
            growth: snapshot.sizes.growth,
            rss_bytes: snapshot.sizes.rss_bytes,
            memory: snapshot.sizes.anonymous(),
            holding: snapshot.holding,
            held_bytes: snapshot.held_bytes,
            surviving_bytes: rows
                .iter()
                .fold(0, |sum, row| sum.saturating_add(row.surviving_bytes())),
            rows,
            births: snapshot.births.clone(),
            losses: snapshot.losses.clone(),
            cost: snapshot.cost,
        };
        (view, done)
    }

    /// The verdict so far, unless the latest one took too long for another.
    fn judge(&mut self, snapshot: &Snapshot) {
        let began = Instant::now();
        if began < self.judge_at {
            return;
        }
        let (verdict, _) = snapshot.sizes.judge();
        self.verdict = Some(Judged {
            kind: verdict.kind.name().to_owned(),
            summary: verdict.summary,
            confidence: verdict.confidence,
        });
        self.judge_at = Instant::now() + began.elapsed().saturating_mul(WAITS);
    }
}
