//! Facts of a minute, owned, to be changed one at a time.

use std::collections::BTreeMap;

use super::super::*;
use crate::diagnose::correlate::{Correlation, PerUnit};
use crate::diagnose::pool::Pool;
use crate::diagnose::rank::{Evidence, GroupBy, RankedSite, SiteFacts, Via, rank};
use crate::diagnose::trend::series::{Sample, Series};
use crate::diagnose::trend::{self, Trend};
use crate::sampler::growth::Delta;
use crate::sampler::kind::Kind as MappingKind;
use crate::symbolize::SymbolizedFrame;
use crate::target::allocator::Allocator;

pub const MIB: i64 = 1 << 20;

pub struct Made {
    /// MiB by seconds.
    pub size: fn(f64) -> f64,
    pub series: Vec<(f64, u64)>,
    pub trend: Option<Trend>,
    pub growth: Option<i64>,
    pub age: Option<f64>,
    pub goes: Vec<Goes>,
    pub counts: Counts,
    pub heap: Option<HeapFacts>,
    pub allocator: Option<Allocator>,
    pub births: Option<BirthFacts>,
    pub sites: Vec<RankedSite>,
    pub kinds: Option<BTreeMap<MappingKind, Delta>>,
    pub losses: LossFacts,
    pub room: Option<Room>,
}

impl Made {
    /// A minute of so many MiB, of which so much more is in use and is kept free.
    pub fn of(size: fn(f64) -> f64, in_use: i64, kept: i64) -> Self {
        let mut made = Self {
            size,
            series: Vec::new(),
            trend: None,
            growth: None,
            age: Some(30.0 * 86_400.0),
            goes: Vec::new(),
            counts: Counts::default(),
            heap: Some(HeapFacts {
                in_use: in_use * MIB,
                in_use_count: in_use * 1900,
                kept: Some(kept * MIB),
                free_at_end: (kept.max(0) * MIB).cast_unsigned(),
                trim_at_end: Some(0),
                ..HeapFacts::default()
            }),
            allocator: None,
            births: None,
            sites: Vec::new(),
            kinds: None,
            losses: LossFacts::default(),
            room: None,
        };
        made.remake();
        made
    }

    /// From the size.
    pub fn remake(&mut self) {
        self.series = (0_u32..=60)
            .map(|at| {
                let at = f64::from(at);
                let bytes = (self.size)(at) * MIB as f64 + 20_480.0 * (at * 2.9).sin();
                (at, format!("{bytes:.0}").parse().unwrap())
            })
            .collect();
        self.keep(61);
    }

    /// Only so many samples of the minute, evenly.
    pub fn keep(&mut self, count: usize) {
        let each = self.series.len() / count;
        self.series = self
            .series
            .iter()
            .step_by(each.max(1))
            .take(count)
            .copied()
            .collect();
        let samples: Vec<Sample> = self
            .series
            .iter()
            .map(|&(at, bytes)| Sample {
                at,
                bytes: bytes as f64,
                run: 0,
            })
            .collect();
        self.trend = Some(trend::judge(&Series::new(&samples)));
        let (first, last) = (self.series.first().unwrap().1, self.series.last().unwrap().1);
        self.growth = Some(last.cast_signed() - first.cast_signed());
    }

    /// 30 MiB that are in use, and whose they are.
    pub fn leak() -> Self {
        let mut leak = Self::of(|at| 100.0 + 0.5 * at, 29, 1);
        leak.births = Some(BirthFacts {
            tell: true,
            named: 28 << 20,
            followed: 200,
            survived: 40,
        });
        leak
    }

    /// Full after a few seconds.
    pub fn cache() -> Self {
        Self::of(|at| 100.0 + 30.0 * (1.0 - (-at / 4.0).exp()), 29, 1)
    }

    /// All of it free.
    pub fn fragmented() -> Self {
        Self::of(|at| 20.0 + 4.7 * at, 2, 278)
    }

    pub fn steady() -> Self {
        Self::of(|_| 100.0, 0, 0)
    }

    pub fn judge(&self) -> Verdict {
        judge(&Facts {
            window: 60.0,
            age: self.age,
            growth: self.growth,
            series: &self.series,
            trend: self.trend.as_ref(),
            goes: &self.goes,
            counts: self.counts,
            heap: self.heap.clone(),
            allocator: self.allocator.as_ref(),
            births: self.births,
            sites: &self.sites,
            kinds: self.kinds.as_ref(),
            losses: self.losses,
            room: self.room,
        })
    }

    pub fn kind(&self) -> Kind {
        self.judge().kind
    }
}

/// A site that touched so many MiB and keeps so many of them.
pub fn site(name: &str, live: u64, touched: u64) -> RankedSite {
    ranked(facts(name, live, touched))
}

/// Arenas of pymalloc with so many MiB.
pub fn arenas(live: u64) -> RankedSite {
    ranked(SiteFacts {
        pool: Some(Pool::Pymalloc),
        ..facts("encode_string", live, live)
    })
}

fn ranked(facts: SiteFacts) -> RankedSite {
    rank(vec![facts], GroupBy::Stack, 60.0).pop().unwrap()
}

fn facts(name: &str, live: u64, touched: u64) -> SiteFacts {
    SiteFacts {
        via: Via::Fault,
        frames: [SymbolizedFrame {
            offset: 0x10,
            module: Some("/srv/server".into()),
            function: Some(name.into()),
            ..SymbolizedFrame::default()
        }]
        .into(),
        complete: true,
        committed: 0,
        released: 0,
        held: 0,
        events: 100,
        first_seen: 0.0,
        last_seen: 60.0,
        series: Vec::new(),
        live: Some(live << 20),
        live_variance: 0.0,
        touched: Some(touched << 20),
        extended: None,
        allocated: None,
        pool: None,
        evidence: Evidence::Pages,
        estimated: false,
        threads: Vec::new(),
        process: 1,
    }
}

/// Memory goes with it, or not.
pub fn with(with: With, told: bool) -> Goes {
    let correlation = Correlation {
        coefficient: if told { 0.9 } else { 0.1 },
        lag: 0.0,
        p_value: if told { 0.014 } else { 0.5 },
        events: 10.0,
        per_unit: Some(PerUnit {
            bytes: 3800.0,
            low: 3174.0,
            high: 4505.0,
        }),
        changes: 59,
    };
    Goes {
        with,
        correlation,
        chance: if told { 0.042 } else { 0.5 },
    }
}
