//! The invariants of the layout, read from the sources. Each is here because breaking it is easy and undoing it is not.

use std::fs;
use std::path::{Path, PathBuf};

const MOST_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below a folder, with its content; `target` left out.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
        for entry in entries.flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if path.is_dir() && !hidden && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text =
                    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no source below {}", folder.display());
    found.sort();
    found
}

/// The lines that are code: no comment, and nothing from the file's own test module on.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

/// Does this line use the crate: as a path, or imported?
fn uses(line: &str, krate: &str) -> bool {
    line.match_indices(krate).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let after = rest.get(krate.len()..).unwrap_or_default();
        let whole = !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        let imported = before.trim_end().ends_with("use") || before.trim_end().ends_with("extern crate");
        whole
            && (after.starts_with("::")
                || imported && !after.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_'))
    })
}

fn breaches(folder: &str, exempt: &str, words: &[&str]) -> Vec<String> {
    let folder = root().join(folder);
    let exempt = root().join(exempt);
    let mut found = Vec::new();
    for (path, text) in sources(&folder) {
        if path.starts_with(&exempt) {
            continue;
        }
        for (number, line) in code(&text) {
            if words.iter().any(|word| uses(line, word)) {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    found
}

#[test]
fn only_probe_imports_aya() {
    assert_eq!(
        breaches(
            "leakwatch/src",
            "leakwatch/src/probe",
            &["aya", "aya_obj", "aya_log"]
        ),
        Vec::<String>::new()
    );
}

#[test]
fn only_unwind_imports_framehop() {
    assert_eq!(
        breaches("leakwatch/src", "leakwatch/src/unwind", &["framehop"]),
        Vec::<String>::new()
    );
}

#[test]
fn only_symbolize_imports_blazesym() {
    assert_eq!(
        breaches("leakwatch/src", "leakwatch/src/symbolize", &["blazesym"]),
        Vec::<String>::new()
    );
}

/// Test modules in files of their own: `tests.rs`, `culprit_tests.rs`, `tests/against_pages.rs`.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        let stem = name.strip_suffix(".rs").unwrap_or(&name);
        stem == "tests" || stem.ends_with("_tests")
    })
}

/// The ledger, the diagnosis, the report's model and the screen are functions over values: no IO, no clock, no runtime.
#[test]
fn the_core_is_pure() {
    const PATHS: &[&str] = &[
        "std::fs",
        "std::net",
        "std::io",
        "std::process",
        "std::time::Instant",
        "Instant::now",
        "SystemTime",
    ];
    const CRATES: &[&str] = &["tokio", "procfs", "rustix", "libc", "tempfile"];
    let mut found = Vec::new();
    let mut seen = 0;
    for (path, text) in sources(&root().join("leakwatch/src")) {
        let inside = path
            .strip_prefix(root().join("leakwatch/src"))
            .expect("it is below");
        let model = inside.starts_with("report/model") || inside == Path::new("report/model.rs");
        // What `top` shows, and what keys do to it.
        let screen = [
            "top/screen",
            "top/state.rs",
            "top/order.rs",
            "top/rows.rs",
            "top/view.rs",
        ]
        .iter()
        .any(|pure| inside.starts_with(pure));
        let core = inside.starts_with("ledger") || inside.starts_with("diagnose") || model || screen;
        if !core || is_test(inside) {
            continue;
        }
        seen += 1;
        for (number, line) in code(&text) {
            // Imports are also written in braces: `use std::{fs, io}`.
            let braced = line.trim_start().starts_with("use std::{")
                && ["fs", "net", "io", "process"].iter().any(|module| {
                    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                        .any(|word| word == *module)
                });
            let impure = PATHS.iter().any(|path| names_path(line, path))
                || CRATES.iter().any(|krate| uses(line, krate));
            if braced || impure {
                found.push(format!("{}:{number}: {}", inside.display(), line.trim()));
            }
        }
    }
    assert!(seen >= 2, "ledger and diagnose were not found");
    assert_eq!(found, Vec::<String>::new());
}

/// Does the line name this path, as a whole word at both ends?
fn names_path(line: &str, path: &str) -> bool {
    let letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(path).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        !before.ends_with(letter) && !rest.get(path.len()..).unwrap_or_default().starts_with(letter)
    })
}

/// The tests know leakwatch by its command line and its recordings, as its users do.
#[test]
fn tests_do_not_import_leakwatch() {
    let manifest = fs::read_to_string(root().join("tests/Cargo.toml")).expect("it is there");
    assert!(
        !manifest.lines().any(|line| line.starts_with("leakwatch")),
        "{manifest}"
    );
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for folder in ["leakwatch", "leakwatch-ebpf", "xtask", "tests"] {
        for (path, text) in sources(&root().join(folder)) {
            let lines = text.lines().count();
            if lines > MOST_LINES {
                long.push(format!("{} has {lines} lines", path.display()));
            }
        }
    }
    assert_eq!(long, Vec::<String>::new(), "divide them by reason to change");
}

/// Names that hide what a part is for.
#[test]
fn no_part_is_called_by_an_empty_word() {
    let mut found = Vec::new();
    for folder in ["leakwatch", "leakwatch-ebpf", "xtask", "tests"] {
        for (path, text) in sources(&root().join(folder)) {
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            if ["utils", "util", "common", "helpers", "helper", "misc"].contains(&stem) {
                found.push(path.display().to_string());
            }
            for (number, line) in code(&text) {
                let type_name = ["struct ", "enum ", "trait "]
                    .iter()
                    .find_map(|word| line.split_once(word))
                    .map(|(_, rest)| rest);
                let type_name =
                    type_name.and_then(|rest| rest.split(|letter: char| !letter.is_alphanumeric()).next());
                if type_name.is_some_and(|name| {
                    name.ends_with("Manager") || name.ends_with("Helper") || name.ends_with("Util")
                }) {
                    found.push(format!("{}:{number}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_readers_of_sources_can_tell() {
    assert!(uses("use aya::maps::RingBuf;", "aya"));
    assert!(uses("    let ring = aya::maps::RingBuf::try_from(map)?;", "aya"));
    assert!(uses("use framehop;", "framehop"));
    assert!(!uses("use crate::playa::maps;", "aya"));
    assert!(!uses("let aya_version = 14;", "aya"));
    assert!(names_path("use std::fs;", "std::fs") && names_path("let now = Instant::now();", "Instant::now"));
    assert!(!names_path("use std::fsync;", "std::fs"));
    assert!(!uses("const LIBC: &str = \"/usr/lib/libc.so.6\";", "libc"));
    assert!(is_test(Path::new("diagnose/culprit_tests.rs")));
    assert!(is_test(Path::new("ledger/tests/pages.rs")) && !is_test(Path::new("ledger/check.rs")));
    let text = "// aya::x\nuse aya::x;\n#[cfg(test)]\nuse aya::y;";
    assert_eq!(code(text).collect::<Vec<_>>(), [(2, "use aya::x;")]);
}
