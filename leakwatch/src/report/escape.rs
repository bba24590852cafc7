//! The one door through which text of the target reaches a terminal.

use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Makes text inert and visible: control characters (ESC, newlines, C1), characters that reorder or hide what stands
/// around them (bidi overrides, zero-width ones, line separators, byte order marks, tags) and code points that are no
/// characters (XML refuses them) become `\n`, `\x1b` or `\u{202e}`. Everything else stays.
#[must_use]
pub fn escape(text: &str) -> String {
    // Most names are, and there are many.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if !hidden(character) => out.push(character),
            _ if u32::from(character) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            _ => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
        }
    }
    out
}

fn hidden(character: char) -> bool {
    // Zero columns: a flood of combining marks would pile up in one cell.
    character.is_control()
        || character.width() == Some(0)
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}' | '\u{fdd0}'..='\u{fdef}'
        )
        || u32::from(character) & 0xfffe == 0xfffe
}

/// Bytes as text: what is not UTF-8 becomes `\xNN`. The model's door; escaping for a terminal is another step.
#[must_use]
pub fn text_of(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Escapes, and cuts in the middle to at most `columns` terminal columns: both ends of a path or a name tell most.
#[must_use]
pub fn fit(text: &str, columns: usize, ellipsis: &str) -> String {
    // Only the ends of a long name can be shown, so only they are escaped: no character shown is
    // narrower than a column or longer than four bytes.
    let text = ends(text, columns.saturating_mul(8).max(64));
    let text = escape(&text);
    if text.width() <= columns {
        return text;
    }
    let room = columns.saturating_sub(ellipsis.width());
    let head = take(text.chars(), room.div_ceil(2));
    let tail: String = take(text.chars().rev(), room / 2).chars().rev().collect();
    if room == 0 {
        take(text.chars(), columns)
    } else {
        format!("{head}{ellipsis}{tail}")
    }
}

/// The first and the last half of `bytes` of a text that is longer than that, else all of it.
fn ends(text: &str, bytes: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= 2 * bytes {
        return text.into();
    }
    // Both exist: the start and the end of a text are boundaries.
    let before = (0..=bytes)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    let after = (text.len() - bytes..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(text.len());
    let (head, tail) = (
        text.get(..before).unwrap_or_default(),
        text.get(after..).unwrap_or_default(),
    );
    format!("{head}{tail}").into()
}

fn take(characters: impl Iterator<Item = char>, columns: usize) -> String {
    let mut used = 0;
    characters
        .take_while(|character| {
            used += character.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_act_is_shown() {
        assert_eq!(escape("a\x1b[31m\n\t\u{9b}x"), "a\\x1b[31m\\n\\t\\x9bx");
        assert_eq!(
            escape("\u{202e}gnp.exe\u{2028}\u{feff}"),
            "\\u{202e}gnp.exe\\u{2028}\\u{feff}"
        );
        assert_eq!(escape("std::vec<é, 漢字> <script>"), "std::vec<é, 漢字> <script>");
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        assert_eq!(text_of(b"/tmp/\xff\xfea\xc3\xa9"), "/tmp/\\xff\\xfeaé");
    }

    #[test]
    fn long_names_are_cut_in_the_middle() {
        assert_eq!(
            fit("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 20, "..."),
            "/usr/lib/...c++.so.6"
        );
        assert_eq!(fit("漢字漢字漢字", 7, "…"), "漢…字");
        assert_eq!(fit("short", 20, "..."), "short");
        assert_eq!(fit(&"x".repeat(64 << 10), 10, "..."), "xxxx...xxx");
    }

    proptest! {
        #[test]
        fn nothing_acts_and_nothing_is_too_wide(text in "\\PC*|.*", columns in 0usize..60) {
            let shown = fit(&text, columns, "…");
            prop_assert!(shown.width() <= columns);
            prop_assert!(!escape(&text).chars().any(hidden));
            prop_assert!(!shown.chars().any(hidden));
        }
    }
}
