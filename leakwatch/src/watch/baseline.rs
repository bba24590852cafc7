//! What a process usually needs, learned in its first while; and how far it is above that. Pure.
//!
//! Floors are compared with floors: of a sawtooth's heights every other one would be a rise.

/// The least of so large a part of the learning time is a floor.
const FLOOR_PART: f64 = 1.0 / 12.0;

/// Learns, then knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baseline {
    /// Seconds since when, and until when it is learned.
    from: f64,
    until: f64,
    /// The greatest floor so far, bytes.
    greatest: Option<u64>,
}

/// What a look said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Not yet.
    Learning,
    /// Just now: bytes.
    Now(u64),
    /// Before: bytes.
    Known(u64),
}

impl Baseline {
    /// Of a process that is seen from `at` on (seconds), learned for so many.
    #[must_use]
    pub fn learning(at: f64, seconds: f64) -> Self {
        Self {
            from: at,
            until: at + seconds,
            greatest: None,
        }
    }

    /// As it was learned before.
    #[must_use]
    pub fn known(bytes: u64) -> Self {
        Self {
            from: f64::NEG_INFINITY,
            until: f64::NEG_INFINITY,
            greatest: Some(bytes),
        }
    }

    /// Since when the least is a floor, at a time, where so long is learned (both in seconds).
    #[must_use]
    pub fn floor_since(at: f64, learning: f64) -> f64 {
        at - learning * FLOOR_PART
    }

    /// Takes the floor of a time.
    pub fn look(&mut self, at: f64, floor: Option<u64>) -> Learned {
        if at < self.until {
            // The first part is no floor yet: a saw may stand high.
            if at >= self.from + (self.until - self.from) * FLOOR_PART {
                self.greatest = self.greatest.max(floor);
            }
            return Learned::Learning;
        }
        let first = self.until > f64::NEG_INFINITY;
        match self.greatest.or(floor) {
            Some(bytes) if first => {
                *self = Self::known(bytes);
                Learned::Now(bytes)
            }
            Some(bytes) => Learned::Known(bytes),
            None => Learned::Learning,
        }
    }

    /// Bytes, once they are learned.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.greatest.filter(|_| self.until == f64::NEG_INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saw_and_a_warm_up_are_in_the_baseline() {
        let mut baseline = Baseline::learning(100.0, 1200.0);
        let mut recent: Vec<(f64, u64)> = Vec::new();
        let mut learned = None;
        for round in 0..240_u32 {
            let at = 100.0 + 10.0 * f64::from(round);
            // From 50 to 100 MiB within ten minutes, and a saw of 20 on it.
            let level = 50 + 50 * u64::from(round.min(60)) / 60;
            recent.push((at, level + 20 * u64::from(round % 8) / 8));
            let since = Baseline::floor_since(at, 1200.0);
            let floor = recent
                .iter()
                .filter(|(at, _)| *at >= since)
                .map(|(_, size)| *size)
                .min();
            match baseline.look(at, floor) {
                Learned::Now(bytes) => assert!(learned.replace(bytes).is_none()),
                Learned::Known(bytes) => assert_eq!(Some(bytes), learned),
                Learned::Learning => assert!(at < 1300.0 && learned.is_none() && baseline.bytes().is_none()),
            }
        }
        assert_eq!(learned, Some(100));
        assert_eq!(baseline.bytes(), Some(100));
    }

    #[test]
    fn nothing_is_learned_from_nothing() {
        let mut baseline = Baseline::learning(0.0, 10.0);
        assert_eq!(baseline.look(20.0, None), Learned::Learning);
        assert_eq!(baseline.look(21.0, Some(7)), Learned::Now(7));
        assert_eq!(Baseline::known(5).look(0.0, None), Learned::Known(5));
    }
}
