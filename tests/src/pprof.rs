//! `go tool pprof`, as Debian's golang has it, for profiles that leakwatch wrote.

use std::path::Path;
use std::process::Command;

/// What it prints of a profile, with nothing left out and sizes to the byte.
#[must_use]
pub fn pprof(path: &Path, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let output = Command::new("go")
        .args(["tool", "pprof", "-nodefraction=0", "-nodecount=0", "-unit=B"])
        .args(arguments)
        .arg(path)
        .env("PPROF_TMPDIR", folder.path())
        .env("HOME", folder.path())
        .env("GOFLAGS", "")
        .output()
        .unwrap_or_else(|error| panic!("go tool pprof (Debian's golang-go) does not run: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A row of `-top`: bytes of the function itself, and with what it called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub function: String,
    pub flat: i64,
    pub cumulated: i64,
}

/// The rows of what `-top` printed: `flat flat% sum% cum cum% name`, sizes as `4096B` or `-4096B`.
#[must_use]
pub fn rows(text: &str) -> Vec<Row> {
    let head = |line: &&str| !line.trim_start().starts_with("flat ");
    let table = text.lines().skip_while(head).skip(1);
    table
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut bytes = |after: usize| {
                let word = words.nth(after).expect("it has five figures");
                // 0 has no unit.
                word.trim_end_matches('B')
                    .parse()
                    .unwrap_or_else(|_| panic!("{word} is no size in bytes\n{text}"))
            };
            let (flat, cumulated) = (bytes(0), bytes(2));
            let name = words.skip(1).collect::<Vec<_>>().join(" ");
            Row {
                function: name.trim_end_matches(" (inline)").to_owned(),
                flat,
                cumulated,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let text = "File: x\nType: live_space\nShowing nodes accounting for 5B, 100% of 5B total\n      flat  flat%   sum%        cum   cum%\n      \
                    12B   240%   240%        12B   240%  operator new(unsigned long)\n     -7B   140%   100%         0     0%  f (inline)\n";
        let row = |function: &str, flat, cumulated| Row {
            function: function.to_owned(),
            flat,
            cumulated,
        };
        assert_eq!(
            rows(text),
            [row("operator new(unsigned long)", 12, 12), row("f", -7, 0)]
        );
    }
}
