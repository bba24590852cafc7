//! A thread's cache, as its bytes tell it.

use super::layout::{Numbers, Tcache};
use crate::census::memory::word_at;

/// One list of a tcache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    pub index: u64,
    /// What the user of the first chunk was given.
    pub head: u64,
    /// How many chunks there are at most.
    pub most: u64,
}

/// Whether a chunk in use of `size` bytes, of which `body` is known from its first byte on, may be a tcache that keeps
/// something. An empty one adds nothing.
pub fn is_candidate(size: u64, body: &[u8], shapes: &[Tcache]) -> bool {
    shapes.iter().any(|shape| {
        let fits = (shape.least_chunk..=shape.most_chunk).contains(&size);
        let whole = u64::try_from(body.len()).is_ok_and(|known| known >= shape.bytes());
        fits && (!whole || room_of_empty(body, *shape).is_some())
    })
}

/// The lists of a tcache that keeps something; `None` where numbers and heads do not agree.
pub fn bins(body: &[u8], shape: Tcache) -> Option<Vec<Bin>> {
    let room = room_of_empty(body, shape)?;
    let mut bins = Vec::new();
    for index in 0..shape.bins {
        let (number, head) = entry(body, shape, index)?;
        if head != 0 {
            let most = match shape.numbers {
                Numbers::Kept => number,
                Numbers::Room => room.saturating_sub(number),
            };
            bins.push(Bin { index, head, most });
        }
    }
    Some(bins)
}

/// Checks that numbers and heads agree and that something is kept, and tells the number of the empty bins.
fn room_of_empty(body: &[u8], shape: Tcache) -> Option<u64> {
    let (mut empty, mut largest) = (None, None);
    for index in 0..shape.bins {
        let (number, head) = entry(body, shape, index)?;
        if head == 0 {
            if *empty.get_or_insert(number) != number {
                return None;
            }
        } else if head.is_multiple_of(16) {
            largest = largest.max(Some(number));
        } else {
            return None;
        }
    }
    let largest = largest?;
    match shape.numbers {
        Numbers::Kept => {
            let zero = empty.is_none_or(|number| number == 0);
            let smallest = (0..shape.bins)
                .filter_map(|index| entry(body, shape, index))
                .filter(|(_, head)| *head != 0)
                .map(|(number, _)| number)
                .min();
            (zero && smallest != Some(0)).then_some(0)
        }
        // With no empty bin the room is not known, and the lists end by themselves.
        Numbers::Room => {
            let room = empty.unwrap_or(u64::from(u16::MAX) + 1);
            (largest < room).then_some(room)
        }
    }
}

/// Number and head of a bin.
fn entry(body: &[u8], shape: Tcache, index: u64) -> Option<(u64, u64)> {
    let offset = usize::try_from(index.checked_mul(shape.number_bytes)?).ok()?;
    let low = u64::from(*body.get(offset)?);
    let number = if shape.number_bytes == 1 {
        low
    } else {
        low | u64::from(*body.get(offset.checked_add(1)?)?) << 8
    };
    let offset = shape.heads().checked_add(index.checked_mul(8)?)?;
    Some((number, word_at(body, usize::try_from(offset).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::*;

    fn shape(minor: u32) -> Tcache {
        Layout::of((2, minor)).unwrap().tcaches[0]
    }

    /// All bins empty but the given ones: (bin, number, head).
    fn body(shape: Tcache, empty: u16, bins: &[(usize, u16, u64)]) -> Vec<u8> {
        let mut numbers = vec![empty; usize::try_from(shape.bins).unwrap()];
        let mut heads = vec![0; numbers.len()];
        for (bin, number, head) in bins {
            numbers[*bin] = *number;
            heads[*bin] = *head;
        }
        let mut body = Vec::new();
        for number in numbers {
            body.extend(&number.to_le_bytes()[..usize::try_from(shape.number_bytes).unwrap()]);
        }
        body.resize(usize::try_from(shape.heads()).unwrap(), 0);
        body.extend(heads.iter().flat_map(|head: &u64| head.to_le_bytes()));
        body
    }

    #[test]
    fn counts_of_what_is_kept() {
        for minor in [26, 30] {
            let shape = shape(minor);
            let kept = body(shape, 0, &[(3, 7, 0x7000), (63, 1, 0x8000)]);
            let found = bins(&kept, shape).unwrap();
            assert_eq!(
                found.iter().map(|bin| (bin.index, bin.most)).collect::<Vec<_>>(),
                [(3, 7), (63, 1)]
            );
            assert!(is_candidate(shape.most_chunk, &kept, &[shape]));
            assert!(is_candidate(shape.least_chunk, &kept[..50], &[shape]));
            assert!(!is_candidate(shape.most_chunk + 16, &kept, &[shape]));
            for wrong in [&[(3, 0, 0x7000)][..], &[(3, 2, 0)], &[(3, 2, 0x7008)], &[]] {
                let wrong = body(shape, 0, wrong);
                assert_eq!(bins(&wrong, shape), None);
                assert!(!is_candidate(shape.least_chunk, &wrong, &[shape]));
            }
        }
    }

    #[test]
    fn counts_of_what_still_fits() {
        let shape = shape(42);
        // As tuned: 7 fit, 16, or 20,000.
        for room in [7, 16, 20_000] {
            let kept = body(shape, room, &[(3, 0, 0x7000), (70, room - 1, 0x8000)]);
            let found = bins(&kept, shape).unwrap();
            assert_eq!(
                found.iter().map(|bin| (bin.index, bin.most)).collect::<Vec<_>>(),
                [(3, u64::from(room)), (70, 1)]
            );
            for wrong in [&[(3, room, 0x7000)][..], &[(3, room - 1, 0)], &[]] {
                assert_eq!(bins(&body(shape, room, wrong), shape), None);
            }
        }
        // Nothing is empty: the end is told by the lists alone.
        let full: Vec<_> = (0..76).map(|bin| (bin, 2, 0x7000)).collect();
        assert!(
            bins(&body(shape, 0, &full), shape)
                .unwrap()
                .iter()
                .all(|bin| bin.most > 60_000)
        );
        // Never used, or tuned to none.
        assert_eq!(bins(&body(shape, 0, &[]), shape), None);
    }
}
