//! Text of unknown origin, made harmless to a terminal.

use std::fmt::Write;

/// `text` with everything escaped that a terminal would obey or that would disguise what is read: control
/// characters, line and paragraph ends, and the marks that turn the direction of writing.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_inert(letter) {
            out.push(letter);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", letter.escape_default());
        }
    }
    out
}

fn is_inert(letter: char) -> bool {
    !(letter.is_control()
        || matches!(
            letter,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_stays_and_commands_to_the_terminal_do_not() {
        assert_eq!(printable("naïve 進程 (a) \\x"), "naïve 進程 (a) \\x");
        assert_eq!(printable("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(printable("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(printable("evil\u{202e}txt"), "evil\\u{202e}txt");
    }

    proptest! {
        #[test]
        fn nothing_comes_out_that_a_terminal_obeys(text in any::<String>()) {
            let out = printable(&text);
            prop_assert!(out.chars().all(|letter| !letter.is_control()));
            prop_assert_eq!(printable(&out), out);
        }
    }
}
