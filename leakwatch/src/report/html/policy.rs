//! What a browser may run and load of the page: its own scripts and styles, by their hashes, and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// In the order in which they apply.
pub const STYLES: [&str; 2] = [
    include_str!("../../../assets/uplot/uPlot.min.css"),
    include_str!("../../../assets/report.css"),
];

/// In the order in which they run.
pub const SCRIPTS: [&str; 4] = [
    include_str!("../../../assets/uplot/uPlot.iife.min.js"),
    include_str!("../../../assets/charts.js"),
    include_str!("../../../assets/sites.js"),
    include_str!("../../../assets/flame.js"),
];

/// The content security policy: nothing from anywhere, no frames, no forms, no handlers and styles in attributes.
pub fn policy() -> String {
    format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src{}; script-src{}",
        hashes(&STYLES),
        hashes(&SCRIPTS)
    )
}

fn hashes(texts: &[&str]) -> String {
    texts
        .iter()
        .map(|text| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes()))))
        .collect()
}

/// A value for the scripts, as it may stand within `<script>`: none of its characters ends the element, begins a comment
/// in it, or a line of old JavaScript.
pub fn json(value: &impl Serialize) -> Markup {
    // Numbers and words of our own cannot fail; an empty object is no data to the scripts.
    let text = serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned());
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            other => safe.push(other),
        }
    }
    PreEscaped(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_texts_end_where_their_elements_end() {
        for text in STYLES.iter().chain(&SCRIPTS) {
            let lower = text.to_lowercase();
            for end in ["</script", "</style", "<!--", "<script", "\r"] {
                assert!(!lower.contains(end), "{end:?}");
            }
        }
    }

    #[test]
    fn nothing_but_our_own_hashes_is_allowed() {
        let policy = policy();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), STYLES.len() + SCRIPTS.len());
        assert!(!policy.contains("unsafe"), "{policy}");
        // The hash of nothing, as everyone knows it.
        assert_eq!(
            hashes(&[""]),
            " 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
        );
    }

    #[test]
    fn data_does_not_end_its_script() {
        let evil = "</script><!--&\u{2028}\u{2029}";
        let text = json(&[evil]).into_string();
        assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [evil]);
    }
}
