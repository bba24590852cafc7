//! Stacks merged into a flame graph: the frames wide enough to be seen, in the order in which they are drawn.

use std::collections::BTreeMap;

/// Bytes before and after; of one recording only the latter.
pub type Counts = [u64; 2];

/// A stack by the numbers of its names, outermost first, and its bytes.
type Counted = (Vec<u32>, Counts);

/// Stacks of interned names.
#[derive(Debug, Default)]
pub struct Flames {
    names: BTreeMap<String, u32>,
    stacks: Vec<Counted>,
    total: Counts,
}

/// A path from the root, and the bytes that no wider part of it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub names: Vec<u32>,
    pub counts: Counts,
}

/// What is drawn.
#[derive(Debug, Default)]
pub struct Drawn {
    /// By the numbers in [`Line::names`].
    pub names: Vec<String>,
    /// Each path after the one it extends, so that equal beginnings lie side by side.
    pub lines: Vec<Line>,
}

impl Flames {
    /// The number of a name, for [`Self::add`].
    pub fn name(&mut self, name: String) -> u32 {
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        *self.names.entry(name).or_insert(next)
    }

    /// Adds a stack of named frames, outermost first. Bytes beyond the largest signed number in all are left out: no
    /// process has them, a made-up file may.
    pub fn add(&mut self, names: Vec<u32>, counts: Counts) {
        let mut kept = counts;
        for (kept, total) in kept.iter_mut().zip(&mut self.total) {
            *kept = (*kept).min(i64::MAX.unsigned_abs() - *total);
            *total += *kept;
        }
        self.stacks.push((names, kept));
    }

    /// Bytes of all stacks.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.total
    }

    /// Merges equal beginnings. A frame of less than `least` of the total (by the second count) is not drawn: its bytes
    /// are its caller's own then. So there are at most `1 / least` frames side by side, whatever the number of stacks.
    #[must_use]
    pub fn draw(mut self, least: f64) -> Drawn {
        // By name and not by number, as flame graphs are.
        let mut places = vec![0u32; self.names.len()];
        let mut names = Vec::with_capacity(self.names.len());
        for (place, (name, id)) in (0u32..).zip(std::mem::take(&mut self.names)) {
            if let Some(slot) = usize::try_from(id).ok().and_then(|id| places.get_mut(id)) {
                *slot = place;
            }
            names.push(name);
        }
        for (stack, _) in &mut self.stacks {
            for id in stack {
                *id = usize::try_from(*id)
                    .ok()
                    .and_then(|id| places.get(id).copied())
                    .unwrap_or_default();
            }
        }
        self.stacks.sort_unstable();
        let least = (self.total[1] as f64 * least).max(1.0);
        let mut lines = Vec::new();
        // Ranges of stacks that begin alike for so many frames; a list and no recursion, since a stack may be deep.
        let mut open: Vec<(&[Counted], usize)> = vec![(&self.stacks, 0)];
        while let Some((range, depth)) = open.pop() {
            let mut own: Counts = [0, 0];
            let mut wide = Vec::new();
            for part in range.chunk_by(|(a, _), (b, _)| a.get(depth) == b.get(depth)) {
                let sum = part.iter().fold([0, 0], |sum, (_, counts)| add(sum, *counts));
                let ends = part.first().is_none_or(|(stack, _)| stack.len() <= depth);
                if ends || (sum[1] as f64) < least {
                    own = add(own, sum);
                } else {
                    wide.push((part, depth + 1));
                }
            }
            open.extend(wide.into_iter().rev());
            if let (Some((stack, _)), true) = (range.first(), own != [0, 0] && depth > 0) {
                lines.push(Line {
                    names: stack.get(..depth).unwrap_or_default().to_vec(),
                    counts: own,
                });
            }
        }
        Drawn { names, lines }
    }
}

fn add(a: Counts, b: Counts) -> Counts {
    [a[0].saturating_add(b[0]), a[1].saturating_add(b[1])]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(stacks: &[(&str, Counts)], least: f64) -> Vec<(String, Counts)> {
        let mut flames = Flames::default();
        for (stack, counts) in stacks {
            let names = stack
                .split(' ')
                .map(|name| flames.name(name.to_owned()))
                .collect();
            flames.add(names, *counts);
        }
        let drawn = flames.draw(least);
        let named = |line: &Line| {
            let names: Vec<_> = line
                .names
                .iter()
                .map(|&name| drawn.names[name as usize].as_str())
                .collect();
            (names.join(" "), line.counts)
        };
        drawn.lines.iter().map(named).collect()
    }

    #[test]
    fn equal_beginnings_are_merged_and_lie_side_by_side() {
        // `a!` sorts between `a` and `a;` as text would.
        let lines = drawn(
            &[
                ("m b y", [0, 4]),
                ("m a x", [0, 3]),
                ("m a! z", [0, 1]),
                ("m a", [1, 2]),
                ("m a x", [2, 7]),
            ],
            0.0,
        );
        let expected = [
            ("m a", [1, 2]),
            ("m a x", [2, 10]),
            ("m a! z", [0, 1]),
            ("m b y", [0, 4]),
        ];
        assert_eq!(lines, expected.map(|(path, counts)| (path.to_owned(), counts)));
    }

    #[test]
    fn what_is_narrow_is_its_callers_own_and_nothing_is_lost() {
        let lines = drawn(
            &[
                ("m a x", [0, 4]),
                ("m a y", [0, 3]),
                ("m b z", [0, 2]),
                ("m c", [0, 991]),
            ],
            0.005,
        );
        let expected = [("m", [0, 2]), ("m a", [0, 7]), ("m c", [0, 991])];
        assert_eq!(lines, expected.map(|(path, counts)| (path.to_owned(), counts)));
    }

    #[test]
    fn no_sum_overflows() {
        let mut flames = Flames::default();
        for name in ["a", "b", "c"] {
            let name = flames.name(name.to_owned());
            flames.add(vec![name], [u64::MAX, u64::MAX / 3]);
        }
        let total: u64 = flames.total()[1];
        assert_eq!(total, i64::MAX.unsigned_abs());
        let drawn = flames.draw(0.0);
        assert_eq!(drawn.lines.iter().map(|line| line.counts[1]).sum::<u64>(), total);
    }
}
