//! A record of the ring, checked.

use leakwatch_ebpf::wire::{HEADER_BYTES, Header, Kind, REGISTERS_BYTES, flags};

/// One event. Borrowed from the ring: it must be consumed before the next.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub kind: Kind,
    pub header: Header,
    /// Raw user registers, [`REGISTERS_BYTES`] of them; `None` when the event carries no stack.
    pub registers: Option<&'a [u8]>,
    /// Stack bytes from `header.stack_pointer` upward.
    pub stack: &'a [u8],
}

impl<'a> Event<'a> {
    /// `None` for a record that is shorter than it says, or of a kind that this version does not know: an object of
    /// another version, which the embedded one cannot be.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        // SAFETY: `head` has the size of a Header, whose fields are integers without invalid values; unaligned reads
        // are what read_unaligned is for.
        let header = unsafe { head.as_ptr().cast::<Header>().read_unaligned() };
        let kind = Kind::from_wire(header.kind)?;
        let (registers, stack) = if header.flags & flags::STACK == 0 {
            (None, &[][..])
        } else {
            let (registers, rest) = rest.split_at_checked(REGISTERS_BYTES)?;
            (
                Some(registers),
                rest.get(..usize::try_from(header.stack_length).ok()?)?,
            )
        };
        Some(Self {
            kind,
            header,
            registers,
            stack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, flags: u16, stack_length: u32, body: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; HEADER_BYTES + body];
        bytes[..2].copy_from_slice(&(kind as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&flags.to_ne_bytes());
        bytes[4..8].copy_from_slice(&stack_length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_record_shorter_than_it_says_is_refused() {
        assert!(Event::parse(&[0; HEADER_BYTES - 1]).is_none());
        assert!(Event::parse(&record(Kind::Map, flags::STACK, 8, REGISTERS_BYTES + 7)).is_none());
        assert!(Event::parse(&record(Kind::Map, flags::STACK, 0, REGISTERS_BYTES - 1)).is_none());
    }

    #[test]
    fn the_stack_is_what_the_header_says() {
        // The ring pads records to eight bytes; the padding is not stack.
        let bytes = record(Kind::Map, flags::STACK, 5, REGISTERS_BYTES + 8);
        let event = Event::parse(&bytes).expect("whole");
        assert_eq!(event.stack.len(), 5);
        assert_eq!(event.registers.map(<[u8]>::len), Some(REGISTERS_BYTES));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut bytes = record(Kind::Map, 0, 0, 0);
        bytes[..2].copy_from_slice(&999u16.to_ne_bytes());
        assert!(Event::parse(&bytes).is_none());
    }
}
