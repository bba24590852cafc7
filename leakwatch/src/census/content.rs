//! What a chunk's body looks like, where that is cheap and certain: zeros, or text.
//!
//! Pure: bytes go in, one of three words comes out, and nothing of the bytes is kept.
//!
//! Why it is certain. *Zero* looks at every byte. *Text* wants characters only, from the first byte to a NUL or to the
//! end, at least eight bytes and at least half of the body, or so many that what follows does not matter. The smallest
//! chunk has a body of 24 bytes, so in practice that is 12 characters and a NUL, or more. Of all bytes 98 begin no
//! control character and no broken UTF-8 by themselves: random bytes are taken for text once in 10^7 at the smallest
//! size, and each further byte makes it less likely. What a heap holds is not random, but what is common there is
//! excluded by its first eight bytes already: a pointer has two zero bytes at its top, a small number more of them, and
//! a double of moderate size that has no zero byte still has to be followed by others that are all text.

/// What a body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Every byte is zero.
    Zero,
    /// Text in UTF-8, of which ASCII is a part, up to a NUL or the end.
    Text,
    Other,
}

/// Shorter texts are not told: eight bytes that look like text can be a number.
const TEXT_BYTES_MIN: usize = 8;
/// So many bytes of nothing but text are proof enough: of a longer body no more are read.
const TEXT_BYTES_ENOUGH: usize = 256;

/// Classifies the bytes of a chunk's body, or of its start: then it says so of the start only. An empty body is
/// [`Content::Other`].
///
/// The first eight bytes decide nearly always; other bodies are read once at most.
#[must_use]
pub fn content(body: &[u8]) -> Content {
    let Some((first, rest)) = body.split_first_chunk::<8>() else {
        let zero = !body.is_empty() && body.iter().all(|byte| *byte == 0);
        return if zero { Content::Zero } else { Content::Other };
    };
    let word = u64::from_le_bytes(*first);
    if word == 0 {
        return if all_zero(rest) {
            Content::Zero
        } else {
            Content::Other
        };
    }
    if has_zero_byte(word) || !is_text(body) {
        return Content::Other;
    }
    Content::Text
}

fn all_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Mycroft's test: a borrow reaches a byte's top bit where the byte was zero and that bit was clear.
fn has_zero_byte(word: u64) -> bool {
    word.wrapping_sub(ONES) & !word & TOPS != 0
}

/// The top bits of those bytes of the word that are control characters of ASCII. Exact: no byte's sum carries into the next.
fn controls(word: u64) -> u64 {
    let low = word & !TOPS;
    let blank_or_more = low + ONES * 0x60;
    let not_delete = (low ^ (ONES * 0x7f)) + ONES * 0x7f;
    !(blank_or_more & not_delete | word) & TOPS
}

/// What a body begins with, up to the first control character of ASCII that a text has not, or to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lead {
    bytes: usize,
    ascii: bool,
}

/// Nearly all of the time that a body takes is spent here: eight bytes at a time, and each but once.
fn lead(body: &[u8]) -> Lead {
    let (words, rest) = body.as_chunks::<8>();
    let mut padded = [b' '; 8];
    for (into, byte) in padded.iter_mut().zip(rest) {
        *into = *byte;
    }
    let mut seen = 0;
    for (index, word) in words.iter().chain([&padded]).enumerate() {
        let word = u64::from_le_bytes(*word);
        let mut controls = controls(word);
        while controls != 0 {
            let bits = controls.trailing_zeros() & !7;
            let byte = (word >> bits) & 0xff;
            if !matches!(byte, 0x09 | 0x0a | 0x0d) {
                seen |= word & ((1 << bits) - 1);
                return Lead {
                    bytes: 8 * index + bits as usize / 8,
                    ascii: seen & TOPS == 0,
                };
            }
            controls &= controls - 1;
        }
        seen |= word;
    }
    Lead {
        bytes: body.len(),
        ascii: seen & TOPS == 0,
    }
}

fn is_text(body: &[u8]) -> bool {
    let start = match body.get(..TEXT_BYTES_ENOUGH) {
        // A NUL within these is within the first half.
        Some(start) if body.len() > 2 * TEXT_BYTES_ENOUGH => start,
        _ => body,
    };
    let Lead { bytes: end, ascii } = lead(start);
    // A control character other than the final NUL.
    if start.get(end).is_some_and(|byte| *byte != 0) {
        return false;
    }
    // What follows the NUL is what the block held before.
    let Some(run) = start.get(..end).filter(|run| run.len() >= TEXT_BYTES_MIN) else {
        return false;
    };
    if end < start.len() && run.len().saturating_mul(2) < body.len() {
        return false;
    }
    if ascii {
        return true;
    }
    let text = match std::str::from_utf8(run) {
        Ok(text) => text,
        // Only the start of a body may be given, so its last character can be cut.
        Err(error) if error.error_len().is_none() && end == start.len() => {
            let whole = run.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return false,
    };
    // ASCII was looked at above; what is left are the control characters from U+0080 on.
    !text
        .chars()
        .any(|letter| letter.is_control() && !letter.is_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(parts: &[&[u8]]) -> Content {
        content(&parts.concat())
    }

    #[test]
    fn zeros() {
        for length in [1, 7, 8, 9, 24, 1000, 4099] {
            let mut body = vec![0; length];
            assert_eq!(content(&body), Content::Zero, "{length}");
            for at in [0, length / 2, length - 1] {
                body[at] = 1;
                assert_eq!(content(&body), Content::Other, "{at} of {length}");
                body[at] = 0;
            }
        }
        assert_eq!(content(b""), Content::Other);
    }

    #[test]
    fn texts() {
        assert_eq!(content(b"GET /index.html HTTP/1.1\r\n"), Content::Text);
        assert_eq!(of(&[b"a session's name", &[0; 8]]), Content::Text);
        assert_eq!(
            of(&[b"a session's name\0", b"\x01\x7f\xff\0\0\x02\x03"]),
            Content::Text
        );
        assert_eq!(content("Grüße an alle, 你好, und 🦀".as_bytes()), Content::Text);
        // Cut inside of a character, as the start of a longer body can be.
        assert_eq!(content(&"Grüße an die Gä".as_bytes()[..16]), Content::Text);
    }

    #[test]
    fn a_control_character_is_found_wherever_it_stands() {
        for length in [8, 63, 64, 65, 128, 1000] {
            let mut body = vec![b'a'; length];
            assert_eq!(lead(&body).bytes, length, "{length}");
            for at in [0, length / 2, length - 1] {
                body[at] = 0x1b;
                assert_eq!(lead(&body).bytes, at, "{at} of {length}");
                body[length - 1] = 0;
                assert_eq!(lead(&body).bytes, at, "{at} of {length}, the first of two");
                body[at] = b'\t';
                body[length - 1] = b'\n';
            }
        }
    }

    #[test]
    fn what_only_begins_like_text_is_none() {
        // Too short, too little of the body, a control character, broken UTF-8, a control character of two bytes.
        assert_eq!(of(&[b"seventy", &[0; 1]]), Content::Other);
        assert_eq!(of(&[b"a session", &[0; 20]]), Content::Other);
        assert_eq!(of(&[b"a session's name\x1b[31m red"]), Content::Other);
        assert_eq!(of(&[b"a session's name \xff\xfe"]), Content::Other);
        assert_eq!(of(&[b"a session's name \xc3", b"\0\0\0"]), Content::Other);
        assert_eq!(content("a session's \u{85} name".as_bytes()), Content::Other);
        assert_eq!(of(&[b"a session's name\x7f"]), Content::Other);
        assert_eq!(content(b"short"), Content::Other);
    }

    #[test]
    fn of_a_long_text_its_start_is_enough() {
        let long = 2 * TEXT_BYTES_ENOUGH + 8;
        // Characters of two and three bytes: one of them is cut.
        for text in ["a", "é", "你"] {
            let mut body = text.repeat(long).into_bytes();
            body.truncate(long);
            assert_eq!(content(&body), Content::Text);
            body[TEXT_BYTES_ENOUGH + 3] = 1;
            assert_eq!(content(&body), Content::Text);
            body[TEXT_BYTES_ENOUGH - 1] = 1;
            assert_eq!(content(&body), Content::Other);
            body[TEXT_BYTES_ENOUGH - 1] = 0;
            assert_eq!(content(&body), Content::Other, "less than half of it");
        }
        let body = [0].repeat(long);
        assert_eq!(
            content(&[&body[..], b"x"].concat()),
            Content::Other,
            "zeros to the end or none"
        );
    }

    #[test]
    fn what_heaps_are_full_of_is_no_text() {
        for word in [
            0x7f12_3456_7890_u64,
            0x5555_5555_6666,
            1,
            536,
            u64::MAX,
            1.5_f64.to_bits(),
        ] {
            let body = word.to_ne_bytes().repeat(8);
            assert_eq!(content(&body), Content::Other, "{word:#x}");
        }
    }

    #[test]
    fn a_zero_byte_is_seen_wherever_it_is() {
        for at in 0..8 {
            for other in [1_u8, 0x7f, 0x80, 0x81, 0xff] {
                let mut bytes = [other; 8];
                assert!(!has_zero_byte(u64::from_le_bytes(bytes)));
                bytes[at] = 0;
                assert!(has_zero_byte(u64::from_le_bytes(bytes)));
            }
        }
    }

    /// The same in so many words.
    fn plainly(body: &[u8]) -> Content {
        if !body.is_empty() && body.iter().all(|byte| *byte == 0) {
            return Content::Zero;
        }
        let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
        let printable = |text: &str| {
            text.chars()
                .all(|letter| !letter.is_control() || "\t\r\n".contains(letter))
        };
        // At the end of the body up to three bytes can be a cut character.
        let whole = (0..=3)
            .filter(|cut| *cut == 0 || end == body.len())
            .filter_map(|cut| Some((cut, std::str::from_utf8(body.get(..end.checked_sub(cut)?)?).ok()?)))
            .find(|(cut, _)| {
                let rest = &body[end - cut..end];
                *cut == 0 || std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none())
            });
        match whole {
            Some((_, text)) if end >= 8 && end * 2 >= body.len() && printable(text) => Content::Text,
            _ => Content::Other,
        }
    }

    proptest! {
        #[test]
        fn bytes_are_told_as_in_so_many_words(
            body in proptest::collection::vec(prop_oneof![4 => 0x20_u8..0x7f, 1 => any::<u8>()], 0..64)
        ) {
            prop_assert_eq!(content(&body), plainly(&body));
        }

        #[test]
        fn texts_with_what_was_there_before(text in "\\PC{0,20}", stale in proptest::collection::vec(any::<u8>(), 0..40)) {
            let body = [text.as_bytes(), &[0], &stale].concat();
            prop_assert_eq!(content(&body), plainly(&body));
        }

        #[test]
        fn cut_anywhere(text in "\\PC{8,20}", keep in 0_usize..80) {
            let bytes = text.as_bytes();
            let body = &bytes[..keep.min(bytes.len())];
            prop_assert_eq!(content(body), plainly(body));
        }

        #[test]
        fn random_bytes_are_no_text(body in proptest::collection::vec(any::<u8>(), 32..64)) {
            prop_assert_eq!(content(&body), Content::Other);
        }
    }
}
