//! What a browser may run and load of the page: its own scripts and styles, by their hashes, and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// What a page brings along.
pub struct Assets {
    /// In the order in which they apply.
    pub styles: &'static [&'static str],
    /// In the order in which they run.
    pub scripts: &'static [&'static str],
}

const LOOKS: &str = include_str!("../../../assets/report.css");
const FIGURES: &str = include_str!("../../../assets/figures.js");
const SITES: &str = include_str!("../../../assets/sites.js");
const FLAME: &str = include_str!("../../../assets/flame.js");

/// Of a recording's page.
pub const RECORDING: Assets = Assets {
    styles: &[include_str!("../../../assets/uplot/uPlot.min.css"), LOOKS],
    scripts: &[
        include_str!("../../../assets/uplot/uPlot.iife.min.js"),
        FIGURES,
        include_str!("../../../assets/charts.js"),
        SITES,
        FLAME,
    ],
};

/// Of a comparison's, which has no charts.
pub const COMPARISON: Assets = Assets {
    styles: &[LOOKS],
    scripts: &[FIGURES, SITES, FLAME],
};

impl Assets {
    /// The content security policy: nothing from anywhere, no frames, no forms, no handlers and styles in attributes.
    pub fn policy(&self) -> String {
        format!(
            "default-src 'none'; base-uri 'none'; form-action 'none'; style-src{}; script-src{}",
            hashes(self.styles),
            hashes(self.scripts)
        )
    }
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
        let assets = [RECORDING, COMPARISON];
        for text in assets.iter().flat_map(|it| it.styles.iter().chain(it.scripts)) {
            let lower = text.to_lowercase();
            for end in ["</script", "</style", "<!--", "<script", "\r"] {
                assert!(!lower.contains(end), "{end:?}");
            }
        }
    }

    #[test]
    fn nothing_but_our_own_hashes_is_allowed() {
        for assets in [RECORDING, COMPARISON] {
            let policy = assets.policy();
            assert!(policy.starts_with("default-src 'none';"), "{policy}");
            assert_eq!(
                policy.matches("'sha256-").count(),
                assets.styles.len() + assets.scripts.len()
            );
            assert!(!policy.contains("unsafe"), "{policy}");
        }
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
