//! The file of counters that a program of the bench publishes; its layout is told in `xtask/bench/counters.h`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use anyhow::{Context as _, Result};

const FIRST_SLOT: usize = 8;
const SLOT_WORDS: usize = 8;
const FIRST_BUCKET: usize = 1024;
const LATENCY_BITS: u32 = 7;
const WORDS: usize = FIRST_BUCKET + 4608;

/// All counters at one moment. They only ever rise.
#[derive(Clone, Debug)]
pub struct Counters {
    at: Instant,
    words: Vec<u64>,
}

impl Counters {
    /// Reads them from under the program that writes them: page cache and mapping are the same memory.
    ///
    /// # Errors
    /// When the file cannot be read, or is not yet as long as it will be.
    pub fn read(file: &File) -> Result<Self> {
        let mut bytes = vec![0; WORDS * 8];
        file.read_exact_at(&mut bytes, 0)
            .context("cannot read the counters")?;
        let at = Instant::now();
        let words = bytes.as_chunks::<8>().0.iter();
        Ok(Self {
            at,
            words: words.map(|word| u64::from_ne_bytes(*word)).collect(),
        })
    }

    /// Whether the program has warmed up.
    pub fn warm(&self) -> bool {
        self.words.first() == Some(&1)
    }
}

/// What happened between two readings.
#[derive(Clone, Debug)]
pub struct Window {
    seconds: f64,
    words: Vec<u64>,
}

impl Window {
    pub fn between(before: &Counters, after: &Counters) -> Self {
        let pairs = after.words.iter().zip(&before.words);
        Self {
            seconds: (after.at - before.at).as_secs_f64(),
            words: pairs
                .map(|(after, before)| after.saturating_sub(*before))
                .collect(),
        }
    }

    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Units of work, of all slots.
    pub fn units(&self) -> Option<f64> {
        let slots = self.words.get(FIRST_SLOT..FIRST_BUCKET)?;
        let units: u64 = slots.iter().step_by(SLOT_WORDS).sum();
        positive(units as f64)
    }

    /// Units of work a second, of all slots.
    pub fn rate(&self) -> Option<f64> {
        positive(self.units()? / self.seconds)
    }

    /// Units of work in a second of the time that the program says it spent at them, of all slots.
    pub fn units_by_own_time(&self) -> Option<f64> {
        let times = self.words.get(FIRST_SLOT + 1..FIRST_BUCKET)?;
        let nanoseconds: u64 = times.iter().step_by(SLOT_WORDS).sum();
        positive(self.units()? / nanoseconds as f64 * 1e9)
    }

    /// Nanoseconds for a unit of work in a slot that the program times itself.
    pub fn nanoseconds_per_unit(&self, slot: usize) -> Option<f64> {
        let at = FIRST_SLOT + SLOT_WORDS * slot;
        let (units, nanoseconds) = (self.words.get(at)?, self.words.get(at + 1)?);
        positive(*nanoseconds as f64 / *units as f64)
    }

    /// The latency that `part` of all stayed below, in microseconds.
    pub fn latency_microseconds(&self, part: f64) -> Option<f64> {
        let buckets = self.words.get(FIRST_BUCKET..)?;
        let all: u64 = buckets.iter().sum();
        let wanted = all as f64 * part;
        let mut below = 0.0;
        for (index, count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= wanted {
                // Within a bucket they are taken to be spread evenly.
                let (from, to) = (bucket_start(index), bucket_start(index + 1));
                return positive((from + (to - from) * (wanted - below) / count) / 1000.0);
            }
            below += count;
        }
        None
    }

    /// The longest latency, in milliseconds, up to the width of its bucket.
    pub fn longest_milliseconds(&self) -> Option<f64> {
        let buckets = self.words.get(FIRST_BUCKET..)?;
        let last = buckets.iter().rposition(|count| *count > 0)?;
        positive(bucket_start(last + 1) / 1e6)
    }
}

/// The least latency of a bucket, nanoseconds.
fn bucket_start(index: usize) -> f64 {
    let shift = (index >> LATENCY_BITS).saturating_sub(1);
    let mantissa = index - (shift << LATENCY_BITS);
    mantissa as f64 * 2f64.powi(i32::try_from(shift).unwrap_or(i32::MAX))
}

/// A measured value, or nothing where nothing was measured.
fn positive(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn window(set: &[(usize, u64)]) -> Window {
        let at = Instant::now();
        let before = Counters {
            at,
            words: vec![5; WORDS],
        };
        let mut after = Counters {
            at: at + Duration::from_secs(2),
            words: vec![5; WORDS],
        };
        for (index, value) in set {
            after.words[*index] += value;
        }
        Window::between(&before, &after)
    }

    #[test]
    fn slots_add_up_to_a_rate() {
        let window = window(&[(8, 1000), (9, 77), (16, 500), (FIRST_BUCKET, 9)]);
        assert_eq!(window.rate(), Some(750.0));
        assert_eq!(window.nanoseconds_per_unit(0), Some(0.077));
        let window = self::window(&[(8, 1000), (9, 400_000), (16, 500), (17, 350_000)]);
        assert_eq!(window.units_by_own_time(), Some(2e6));
    }

    #[test]
    fn nothing_done_is_no_figure() {
        let window = window(&[]);
        assert_eq!(window.rate(), None);
        assert_eq!(window.nanoseconds_per_unit(0), None);
        assert_eq!(window.units_by_own_time(), None);
        assert_eq!(window.latency_microseconds(0.5), None);
        assert_eq!(window.longest_milliseconds(), None);
    }

    #[test]
    fn buckets_adjoin() {
        // As in counters.h: 127 and 255 end runs of one width, and each bucket starts where the last one ends.
        for (index, start) in [
            (0, 0.0),
            (127, 127.0),
            (255, 255.0),
            (256, 256.0),
            (257, 258.0),
            (384, 512.0),
        ] {
            assert_eq!(bucket_start(index), start, "{index}");
        }
    }

    #[test]
    fn the_longest_is_one_alone() {
        // 130 shifted by 14: 2,129,920 to 2,146,304 ns.
        let window = window(&[(FIRST_BUCKET + 40, 1_000_000), (FIRST_BUCKET + 14 * 128 + 130, 1)]);
        assert_eq!(window.longest_milliseconds(), Some(2.146_304));
    }

    #[test]
    fn percentiles_lie_in_their_bucket() {
        // 98 of 1000 ns, which is 250 shifted by 2, and 2 of 8192 ns, which is 128 shifted by 6.
        let slow = FIRST_BUCKET + 6 * 128 + 128;
        let window = window(&[(FIRST_BUCKET + 2 * 128 + 250, 98), (slow, 2)]);
        let (half, most) = (
            window.latency_microseconds(0.5),
            window.latency_microseconds(0.99),
        );
        assert!((half.unwrap() - 1.002).abs() < 0.003, "{half:?}");
        assert!((most.unwrap() - 8.224).abs() < 0.033, "{most:?}");
    }
}
