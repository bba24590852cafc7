//! Recordings of version 1 as earlier commits wrote them: they are read, and rendered in every format.
//!
//! `first` is the first shape that there was; then the heap came, births, and samples of `/proc` with a trend. A shape of its
//! own goes here whenever the model gains a section.

use super::formats::{FORMATS, Rendered};
use super::json;
use super::text;

const OLDER: [(&str, &[u8]); 4] = [
    ("first", include_bytes!("first.json")),
    ("heap", include_bytes!("heap.json")),
    ("births", include_bytes!("births.json")),
    ("series", include_bytes!("series.json")),
];

#[test]
fn what_earlier_versions_wrote_is_read_and_rendered() {
    for (name, bytes) in OLDER {
        let recording = json::read(bytes, name).unwrap();
        assert!(!recording.call_sites.is_empty(), "{name}");
        let live = recording.call_sites[0].live_bytes;
        for format in FORMATS {
            let mut file = Vec::new();
            format
                .write(&recording, &text::Options::default(), &mut file)
                .unwrap();
            assert!(file.len() > 50, "{name}{}", format.ending);
        }
        let mut again = Vec::new();
        json::write(&recording, &mut again).unwrap();
        let again = json::read(&again, name).unwrap();
        assert_eq!(again, recording, "{name}");
        assert_eq!(again.call_sites[0].live_bytes, live);
        let shown = recording.text(&text::Options::default());
        assert!(shown.contains("handle_upload"), "{name}: {shown}");
    }
}

/// Each lacks what came later; else it would test nothing.
#[test]
fn the_shapes_differ() {
    let keys = |bytes: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let keys = value.as_object().unwrap().keys().cloned();
        keys.collect::<std::collections::BTreeSet<_>>()
    };
    for pair in OLDER.windows(2) {
        let (before, after) = (keys(pair[0].1), keys(pair[1].1));
        assert!(
            before.len() < after.len() && before.is_subset(&after),
            "{}",
            pair[1].0
        );
    }
}
