//! A target that names itself to hurt whoever prints it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use leakwatch_tests::programs::{self, Program};
use leakwatch_tests::record::Record;
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};

#[test]
fn names_never_reach_the_terminal_raw() {
    if !kernel::required() {
        return;
    }
    let program = Program::c("hostile");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // A file name with a line break, escape sequences, markup, a separator of folded stacks, and no UTF-8.
    let name = OsStr::from_bytes(b"evil\nleak: no\x1b[2J\x1b]0;x\x07<b>;\"\\ 7\xff");
    let copy = folder.path().join(name);
    programs::copy(&program.path, &copy);
    let mut command = Command::new(&copy);
    command.arg("\x1b[31mred\r\nleak: no");
    let mut target = Target::start_command(command);
    let (truth, outcome) = Record::of(target.pid()).watch(&mut target);

    expect::printable(&outcome);
    assert!(
        !outcome
            .stdout
            .lines()
            .chain(outcome.stderr.lines())
            .any(|line| line.starts_with("leak: no")),
        "a line of the target's own making\n{outcome}"
    );
    expect::first(&outcome, "keep_hostile");
    assert_eq!(outcome.recording().held_by("keep_hostile"), truth.committed_bytes);
    for file in ["x.txt", "x.folded"] {
        let text = outcome.text_of(file);
        assert!(
            !text.chars().any(|letter| letter.is_control() && letter != '\n'),
            "{file}: {text:?}"
        );
        assert!(
            !text.lines().any(|line| line.starts_with("leak: no")),
            "{file}: {text:?}"
        );
    }
    // A separator inside a name would make two frames of one.
    for line in outcome.text_of("x.folded").lines() {
        let weight = line.rsplit_once(' ').map(|(_, weight)| weight.parse::<u64>());
        assert!(matches!(weight, Some(Ok(_))), "{line:?}");
        assert!(!line.contains("<b>;"), "{line:?}");
    }
}
