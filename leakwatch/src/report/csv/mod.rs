//! CSV (RFC 4180): a head, lines that end in CR LF, empty where a figure is absent.

pub mod diff;
pub mod history;
pub mod ranking;
pub mod series;

use super::escape::escape;
use super::model::SharedFrame;
use super::stacks::{folded_name, frame_name};

/// A text as a field: inert, quoted where it must be, and no formula to a spreadsheet.
fn field(text: &str) -> String {
    let text = no_formula(&escape(text));
    if text.contains([',', '"', ';', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// A spreadsheet computes what begins so, the full-width signs too where they are at home; `'` makes it text.
fn no_formula(text: &str) -> String {
    let formula = text
        .trim_start()
        .starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    if formula {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// With `;` between: names in it have none. Where a spreadsheet parts fields there, none is a formula either.
fn list(texts: impl Iterator<Item = impl AsRef<str>>) -> String {
    let texts: Vec<String> = texts
        .map(|text| no_formula(&folded_name(text.as_ref())))
        .collect();
    field(&texts.join(";"))
}

/// A stack, outermost first, as folded stacks are.
fn frames(frames: &[SharedFrame]) -> String {
    list(frames.iter().rev().map(|frame| frame_name(frame)))
}

/// A figure as a field, and nothing where it is absent.
fn figure(figure: Option<impl std::fmt::Display>) -> String {
    figure.map_or_else(String::new, |figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_back_as_it_is_shown_and_is_no_formula() {
        for (text, shown) in [
            ("plain", "plain"),
            ("a,b", "a,b"),
            ("say \"a\"", "say \"a\""),
            ("a\r\nb", "a\\r\\nb"),
            ("=1+1", "'=1+1"),
            (" @x", "' @x"),
            ("＝x", "'＝x"),
            ("-,\"", "'-,\""),
            ("", ""),
        ] {
            let line = format!("x,{}\r\n", field(text));
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .from_reader(line.as_bytes());
            let record = reader.records().next().unwrap().unwrap();
            assert_eq!(record.iter().collect::<Vec<_>>(), ["x", shown], "{text}");
        }
    }
}
