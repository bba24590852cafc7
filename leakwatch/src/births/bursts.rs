//! When births are watched: short bursts at random times over the window, which together cost the target no more than a
//! part of its processor time.
//!
//! The first burst is very short and tells what watching costs here: while it lasts, and for putting the probes into
//! the text and taking them out again. From then on what is left of the budget is shared out over what is left of the
//! window, anew after each burst, so that a rate that rises or falls is followed and a burst that cost too much is
//! made up for. The rest of the window is cut into as many pieces as bursts can be paid for, and each has its burst
//! at a random time in it: a target that allocates by the clock cannot hide between them.
//!
//! Requests wait while probes come and go, and while most of what a target does is to be watched. So beside processor
//! time there is a budget of time: such bursts take so small a part of the window that
//! they are meant to stay below its slowest hundredth, but for the six that there are in any case.
//!
//! A process that has no processor time to spare also loses what it cannot work while probes come and go: its threads
//! wait for the kernel that changes their text, and leakwatch works where they would. How much less of a processor it
//! had then is measured, and paid for out of the same budget.
//!
//! Where all that is left can be paid for, the probes stay.

use std::ops::Range;
use std::time::Duration;

use super::Extent;
use super::cost::{HitCost, Hits, count};

/// A first burst, and the shortest: the kernel takes about as long to put the probes in, and on a machine that is busy
/// nobody comes to take them out much sooner.
const SHORTEST: Duration = Duration::from_millis(10);
/// A burst that was cut is taken to have lasted so long at least: in less a clump of calls is no rate.
const BRIEFEST: Duration = Duration::from_micros(500);
/// So long the probes may be there after a burst, however soon they were gone after the ones before: the kernel waits for all
/// processors before it writes to the text.
const GOING: Duration = Duration::from_millis(6);
/// The budget is at least this part of the window, whatever the target uses: two thousandths of one processor.
const LEAST: f64 = 0.002;
/// Little is known of the target's processor time before this much of the window, which is in steps of a hundredth of a
/// second.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));
/// The first burst spends no more than this part of the budget.
const FIRST_PART: f64 = 0.25;
/// A burst may spend so many times what it is expected to, or more where that would cut it while its blocks are looked at:
/// one that was cut is worth nothing.
const LEEWAY: f64 = 3.0;
/// There is no more than one burst in this time.
const APART: Duration = Duration::from_millis(200);
/// A burst is to see so many hits where the budget has them: of a handful none may be old enough to be followed.
const HITS_LEAST: f64 = 1000.0;
/// There are so many bursts even where it has not, as far as they can be paid for.
const BURSTS_LEAST: f64 = 6.0;
/// A burst may see so many times the hits, and cost in idle hits so many times as much, as is expected of it; so may the
/// rest of a window that is watched as a whole.
const SPARE: f64 = 1.25;
/// Of a burst's time, or of its hits, so much is spent when its blocks are looked at, which is a part of it too.
pub const LOOK_AT: f64 = 0.6;
/// In a burst somebody sees this often whether the look is due by the hits.
pub const GLANCE: Duration = Duration::from_millis(1);
/// How long a look takes until there was one, and how many times as long the next may take.
const LOOKING: Duration = Duration::from_millis(4);
const LOOKING_SPARE: f64 = 1.5;
/// A burst that can expect less than it is to, and than this, lest it be cut, is not worth its coming and going.
const HITS_FEWEST: f64 = 100.0;
/// Of fewer entries their time says little.
const TIMED_LEAST: u64 = 16;
/// A burst that makes the target slower by this factor, and takes so much of a processor, is felt by its requests: they
/// wait for one another. Of a target that is idle most of the time its own processor time says little.
const FELT: f64 = 1.5;
const FELT_PRICE: f64 = 0.25;
/// Such bursts take so much of the window, for each part of the processor time that may be spent; requests that were held up
/// take as long again.
const TIME_PART: f64 = 0.6;
/// But so many there may be.
const FELT_LEAST: f64 = 6.0;
/// A part that nothing exceeds.
pub const NO_BUDGET: f64 = 1e6;
/// A process that uses less than this of a processor makes up for what it waited, and when it works is its own affair: what
/// less it used in some moments tells nothing.
const BUSY: f64 = 0.5;
/// With the probes staying, the budget is looked at so often in a window.
const LOOKS: u32 = 20;
/// Of a window that somebody is to end so much is always still to come. What may be spent in it is shared out over it: so
/// whenever the end comes, no more was spent than the window and as long again could have had.
const TO_COME: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// `None`: until somebody ends it.
    pub window: Option<Duration>,
    /// Of the target's processor time.
    pub fraction: f64,
    pub cost: HitCost,
    /// Any number: where in their pieces the bursts lie.
    pub seed: u64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Watch for this long, from now, in which so many hits are `expected`. Probes that are there already stay. `hits_max`
    /// more hits are the most.
    Watch {
        length: Duration,
        expected: u64,
        hits_max: u64,
    },
    /// Have no probes, and ask again at this time of the window.
    Wait { until: Duration },
    /// The window is over.
    Done,
}

/// What a burst was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// How long it lasted, from when the programs were told to watch to when they were told not to or were cut.
    pub length: Duration,
    /// How long it took to put the probes in, if they were not there.
    pub attach: Duration,
    /// How long its blocks were looked at; `None` where it was cut before that came to an end.
    pub look: Option<Duration>,
    /// Since the last time that this was told.
    pub hits: Hits,
}

/// The bursts of one window.
#[derive(Clone, Debug)]
pub struct Bursts {
    plan: Plan,
    random: u64,
    /// Seconds: of bursts, their cost, and the cost of the idle hits around them.
    watched: f64,
    cost: f64,
    idle: f64,
    /// Those of putting in the probes that are there now, until the burst tells how cold they are.
    coming: Hits,
    /// The most that the idle hits around one burst cost.
    idle_most: f64,
    /// What was spent before the latest burst on those.
    idle_before: f64,
    bursts: u32,
    hits: u64,
    /// Seconds in which probes came and went, or were there for a burst.
    disturbed: f64,
    /// From before probes came to after they were gone.
    around: Extent,
    /// The longest that the probes took to come, seconds.
    attach_most: f64,
    /// The times of entries so far.
    timed: Hits,
    /// How cold the hits of the latest burst were: those around it are as cold.
    coldness: f64,
    /// The most that a hit cost in one of the bursts, seconds.
    dearest: f64,
    /// Hits of the densest burst, and how long it was, seconds.
    densest: (f64, f64),
    /// Looks that came to an end, and how long they took, seconds.
    looks: u32,
    looking: f64,
    /// What was left of the budget when the latest burst was planned, seconds.
    funds: f64,
    /// The piece of the window that the latest burst was drawn in, or is to be.
    piece: Range<Duration>,
    /// The start of the next burst, once it was drawn.
    next: Option<Duration>,
    staying: bool,
}

impl Bursts {
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            random: plan.seed,
            watched: 0.0,
            cost: 0.0,
            idle: 0.0,
            coming: Hits::default(),
            idle_most: 0.0,
            idle_before: 0.0,
            bursts: 0,
            hits: 0,
            disturbed: 0.0,
            around: Extent::default(),
            attach_most: 0.0,
            timed: Hits::default(),
            coldness: 1.0,
            dearest: 0.0,
            densest: (0.0, 0.0),
            looks: 0,
            looking: 0.0,
            funds: 0.0,
            piece: Duration::ZERO..Duration::ZERO,
            next: None,
            staying: false,
        }
    }

    /// What was spent so far, seconds of the target's processor time.
    #[must_use]
    pub fn spent(&self) -> f64 {
        self.cost + self.idle
    }

    /// The same with what has come since that was told: `hits` since the last time.
    #[must_use]
    pub fn spent_with(&self, hits: &Hits) -> f64 {
        let cost = &self.plan.cost;
        let coldness = hits
            .entry()
            .filter(|_| hits.timed >= TIMED_LEAST)
            .map_or(self.coldness, |entry| cost.coldness(entry));
        self.spent()
            + cost.of_idle(&self.coming, coldness)
            + cost.of_idle(hits, coldness)
            + cost.of_burst(hits, coldness)
    }

    /// How many bursts there were.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.bursts
    }

    /// For how long births were watched, seconds.
    #[must_use]
    pub fn watched(&self) -> f64 {
        self.watched
    }

    /// For how long probes came, or were there in bursts, seconds.
    #[must_use]
    pub fn disturbed(&self) -> f64 {
        self.disturbed
    }

    /// How much more the target would have worked in the bursts so far had there been none, seconds of processor time:
    /// `processor` is what it has used until `now`.
    #[must_use]
    pub fn withheld(&self, now: Duration, processor: Duration) -> f64 {
        let all = Extent {
            time: now,
            processor,
            ..Extent::default()
        };
        let between = all.since(self.around);
        let usage = between.processor.as_secs_f64() / between.time.as_secs_f64().max(LOOK.0.as_secs_f64());
        if usage < BUSY {
            return 0.0;
        }
        (usage * self.around.time.as_secs_f64() - self.around.processor.as_secs_f64()).max(0.0)
    }

    /// What may be spent over the whole window, seconds; `None` without a budget.
    #[must_use]
    pub fn allowance(&self, now: Duration, processor: Duration) -> Option<f64> {
        (self.plan.fraction < NO_BUDGET).then(|| self.budget(now, processor))
    }

    /// How long the window will have been.
    fn window(&self, now: Duration) -> Duration {
        self.plan.window.unwrap_or(now.saturating_add(TO_COME))
    }

    /// As far as `processor`, the target's processor time until `now`, tells.
    fn budget(&self, now: Duration, processor: Duration) -> f64 {
        let window = self.window(now).as_secs_f64();
        let expected = processor.as_secs_f64() * window / now.as_secs_f64().max(LOOK.0.as_secs_f64());
        (self.plan.fraction * expected).max(LEAST * window)
    }

    /// What to do at `now` of the window, when the target has used `processor` since its start.
    pub fn next(&mut self, now: Duration, processor: Duration) -> Step {
        let window = self.window(now);
        if now >= window {
            return Step::Done;
        }
        // What is planned at once.
        let planned = self.plan.window.unwrap_or(TO_COME);
        let look = (planned / LOOKS).clamp(LOOK.0, LOOK.1).min(planned / 10);
        if now < look && self.plan.fraction < NO_BUDGET {
            return Step::Wait { until: look };
        }
        let left = window - now;
        let budget = self.budget(now, processor);
        let withheld = self.withheld(now, processor);
        let funds = budget - self.spent() - withheld;
        self.funds = funds;
        if self.bursts == 0 {
            let length = SHORTEST.min(left);
            let most = (FIRST_PART * budget).min(funds) / self.hit_price();
            return Self::watch(length, most / LEEWAY, most);
        }
        // What one second of it costs; a burst without a hit is no proof that there will be none.
        let price = self.price();
        // Taking the probes out again must be paid for too.
        let stay = funds - self.leaving();
        // What is born in the last moments is too young to tell anything: that is not begun for its own sake.
        let worth = self.staying || left >= planned / LOOKS;
        if worth && price * left.as_secs_f64() * SPARE <= stay {
            // Only what this part of the window has a right to: what rises after it must be paid for as well.
            let length = (planned / LOOKS).max(SHORTEST).min(left);
            let share = stay * (length.as_secs_f64() / left.as_secs_f64());
            self.staying = true;
            self.next = None;
            let each = self.hit_price();
            return Self::watch(
                length,
                share / each,
                (LEEWAY * share / each).min(stay / self.dearest()),
            );
        }
        self.staying = false;
        // By the dearest so far: how long it takes to come and go differs much on a busy machine.
        let fixed = self.idle_most + withheld / f64::from(self.bursts);
        // So that coming and going takes two thirds at most, and half where there is enough for several.
        let least = price * SHORTEST.as_secs_f64();
        let each = if funds > 4.0 * fixed {
            fixed + fixed.max(least)
        } else {
            fixed + least.max(fixed / 2.0)
        };
        let affordable = (funds / each).floor();
        let most = left.as_secs_f64() / APART.as_secs_f64();
        let worthwhile = (funds / (HITS_LEAST * self.hit_price())).max(BURSTS_LEAST);
        let usage = processor.as_secs_f64() / now.as_secs_f64();
        // What there is time for in all, and for each.
        let (time, room) = if price > ((FELT - 1.0) * usage).max(FELT_PRICE) {
            let least = self.attach_most + SHORTEST.as_secs_f64();
            let share = TIME_PART * self.plan.fraction * window.as_secs_f64();
            let time = share.max(FELT_LEAST * least) - self.disturbed;
            (time, (time / least).floor())
        } else {
            (f64::INFINITY, f64::INFINITY)
        };
        let bursts = affordable.min(most).min(worthwhile).min(room).floor().max(0.0);
        // No more than there is, cost hits what they cost in the dearest burst. So the last burst is planned to cost less:
        // one that is cut is worth nothing.
        let most = (funds - SPARE * withheld / f64::from(self.bursts) - self.leaving()) / self.dearest();
        let share = funds / bursts.max(1.0);
        let (expected, uncut) = ((share - fixed) / self.hit_price(), self.expected_of(most));
        if bursts < 1.0 || uncut < expected.min(HITS_FEWEST) {
            // The target may still come to use more, and be owed more.
            if self.next.take().is_some() {
                self.piece.end = now;
            }
            return Step::Wait {
                until: window.min(now + planned / LOOKS),
            };
        }
        let expected = expected.min(uncut);
        if self.next.is_none() {
            // Each piece has one burst: the next begins where that of the last burst ends.
            let from = if self.piece.end < window {
                now.max(self.piece.end)
            } else {
                now
            };
            self.piece = from..from + (window - from).div_f64(bursts);
        }
        let piece = (self.piece.end - self.piece.start).as_secs_f64();
        let longest = piece.min(time / bursts - self.attach_most);
        let length = (expected * self.hit_price() / price).min(longest).max(0.0);
        let start = match self.next {
            Some(start) => start,
            None => self.piece.start + Duration::from_secs_f64((piece - length).max(0.0) * self.draw()),
        };
        let start = start.min(window);
        self.next = Some(start);
        if start > now {
            return Step::Wait { until: start };
        }
        Self::watch(
            Duration::from_secs_f64(length),
            expected,
            self.cut_at(expected).min(most),
        )
    }

    /// What putting the probes in came to, hits since the last time that something was told. Returns what is `expected` of
    /// the burst, and its `hits_max`, now: on a busy machine the probes may take much longer to come than before, and what
    /// that has cost the burst must not spend once more.
    pub fn attached(&mut self, hits: &Hits, expected: u64, hits_max: u64) -> (u64, u64) {
        self.idle_before = self.idle;
        self.coming = *hits;
        // How cold the first ones are is not known yet, and nor is it after a burst without any.
        let least = if self.bursts == 0 { HITS_FEWEST } else { 0.0 };
        let coming = self.plan.cost.of_idle(hits, self.coldness);
        // They are still to go.
        let going = (self.leaving() - coming).max(self.idle_most / 2.0);
        let most = ((self.funds - coming - going) / self.dearest()).max(least);
        (
            expected.min(whole(self.expected_of(most).max(0.0))),
            hits_max.min(whole(most)),
        )
    }

    /// How many hits more could have been paid for with what the burst that is under way has cost so far, at the price of
    /// the dearest before: `hits` since it began.
    #[must_use]
    pub fn dearer(&self, hits: &Hits) -> u64 {
        let Some(entry) = hits.entry().filter(|_| hits.timed >= TIMED_LEAST) else {
            return 0;
        };
        let cost = self.plan.cost.of_burst(hits, self.plan.cost.coldness(entry));
        whole(cost / self.dearest() - count(hits.burst))
    }

    /// What a [`Step::Watch`] came to.
    pub fn ended(&mut self, spent: &Spent) {
        self.bursts += 1;
        self.next = None;
        self.watched += spent.length.as_secs_f64();
        self.attach_most = self.attach_most.max(spent.attach.as_secs_f64());
        if let Some(look) = spent.look {
            self.looks += 1;
            self.looking += look.as_secs_f64();
        }
        if !self.staying {
            self.disturbed += (spent.attach + spent.length).as_secs_f64();
        }
        self.timed.timed += spent.hits.timed;
        self.timed.nanoseconds += spent.hits.nanoseconds;
        let enough = spent.hits.timed >= TIMED_LEAST;
        let entry = if enough {
            spent.hits.entry()
        } else {
            self.timed.entry()
        };
        if let Some(entry) = entry {
            self.coldness = self.plan.cost.coldness(entry);
        }
        let coming = std::mem::take(&mut self.coming);
        self.add(&coming);
        self.add(&spent.hits);
        let this = (count(spent.hits.burst), spent.length.as_secs_f64());
        if self.in_look(this) > self.in_look(self.densest) {
            self.densest = this;
        }
        if enough {
            let each = self.plan.cost.of_burst(&spent.hits, self.coldness) / count(spent.hits.burst);
            self.dearest = self.dearest.max(each);
        }
    }

    /// What taking the probes out came to, once they are: hits since the last time that something was told. `around` is
    /// from before they came, of a burst.
    pub fn detached(&mut self, hits: &Hits, around: Option<Extent>) {
        // Of a burst that came to nothing, so that nothing was told of it.
        let coming = std::mem::take(&mut self.coming);
        self.add(&coming);
        self.add(hits);
        self.around = self.around.plus(around.unwrap_or_default());
    }

    fn add(&mut self, hits: &Hits) {
        self.cost += self.plan.cost.of_burst(hits, self.coldness);
        self.idle += self.plan.cost.of_idle(hits, self.coldness);
        self.idle_most = self.idle_most.max(self.idle - self.idle_before);
        self.hits = self.hits.saturating_add(hits.burst);
    }

    /// Seconds of processor time for one second of watching, by all that was seen.
    fn price(&self) -> f64 {
        let one_more = self.plan.cost.most();
        (self.cost + one_more) / self.watched.max(BRIEFEST.as_secs_f64())
    }

    /// Calls in a second of watching.
    fn density(&self) -> f64 {
        count(self.hits) / self.watched.max(BRIEFEST.as_secs_f64())
    }

    /// What to set aside for the time until the probes are gone, seconds of processor time.
    fn leaving(&self) -> f64 {
        let calls = self.density() * GOING.as_secs_f64();
        let one = Hits {
            idle: 1,
            ..Hits::default()
        };
        (SPARE * self.idle_most).max(calls * self.plan.cost.of_idle(&one, self.coldness))
    }

    fn watch(length: Duration, expected: f64, most: f64) -> Step {
        Step::Watch {
            length,
            expected: whole(expected),
            hits_max: whole(most),
        }
    }

    /// How many hits to plan a burst with that is cut at `most`: while its blocks are looked at more come.
    fn expected_of(&self, most: f64) -> f64 {
        let room = most / SPARE;
        room.min((room - self.meanwhile()) / LOOK_AT)
    }

    /// At how many hits to cut a burst of which so many are expected.
    fn cut_at(&self, expected: f64) -> f64 {
        (LEEWAY * expected).max(SPARE * (LOOK_AT * expected + self.meanwhile()))
    }

    /// How many hits to reckon with while a burst's blocks are looked at: calls may come in clumps, and one of these then.
    fn meanwhile(&self) -> f64 {
        (self.density() * self.look_seconds()).max(self.in_look(self.densest))
    }

    /// Seconds from when a look is due to when it is over.
    fn look_seconds(&self) -> f64 {
        let look = if self.looks == 0 {
            LOOKING.as_secs_f64()
        } else {
            self.looking / f64::from(self.looks)
        };
        GLANCE.as_secs_f64() + LOOKING_SPARE * look
    }

    /// How many hits come in a look, were they as dense as those of a burst: so many in so many seconds.
    fn in_look(&self, (hits, seconds): (f64, f64)) -> f64 {
        let look = self.look_seconds();
        hits * (look / seconds.max(look))
    }

    /// Seconds: what a hit has cost in the dearest burst, and before there was one the most that one can.
    fn dearest(&self) -> f64 {
        let each = if self.dearest > 0.0 {
            self.dearest
        } else {
            self.plan.cost.most()
        };
        each.max(self.hit_price())
    }

    /// Seconds: what a hit has cost so far, and at first the most that one can.
    fn hit_price(&self) -> f64 {
        let each = if self.hits == 0 {
            self.plan.cost.most()
        } else {
            self.cost / count(self.hits)
        };
        each.max(1e-9)
    }

    /// From 0 to 1 (splitmix64).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        count((mixed ^ (mixed >> 31)) >> 11) / count(1 << 53)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates"
)]
fn whole(hits: f64) -> u64 {
    hits as u64
}
