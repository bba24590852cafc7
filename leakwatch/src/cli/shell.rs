//! Completions and manual pages, of the very command line that is parsed.

use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Arguments;
use super::exit::UsageError;
use super::printable::printable;

/// The command line without what is hidden: some shells would offer that too.
fn offered() -> Command {
    let whole = Arguments::command();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let mut offered = Command::new("leakwatch")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommands(shown.cloned());
    if let Some(about) = whole.get_about() {
        offered = offered.about(about.clone());
    }
    if let Some(about) = whole.get_long_about() {
        offered = offered.long_about(about.clone());
    }
    if let Some(after) = whole.get_after_help() {
        offered = offered.after_help(after.clone());
    }
    offered
}

/// The completion script of a shell.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut offered(), "leakwatch", &mut script);
    script
}

/// One page of the manual: of `command`, else of leakwatch itself.
///
/// # Errors
///
/// A [`UsageError`] when there is no such command.
pub fn page(command: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let all = pages();
    let wanted = match command {
        None => "leakwatch".to_owned(),
        Some(command) => format!("leakwatch-{command}"),
    };
    let Some(found) = all.iter().find(|page| name(page) == wanted) else {
        let commands: Vec<&str> = all
            .iter()
            .filter_map(|page| name(page).strip_prefix("leakwatch-"))
            .collect();
        return Err(UsageError(format!(
            "there is no command {} to have a page; there are {}",
            printable(command.unwrap_or_default()),
            commands.join(", ")
        ))
        .into());
    };
    rendered(found)
}

/// Writes every page into `folder`, which is made if it is not there.
///
/// # Errors
///
/// When one cannot be written; the error names it.
pub fn write_pages(folder: &Path) -> anyhow::Result<()> {
    let named = |path: &Path| printable(&path.to_string_lossy());
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", named(folder)))?;
    for page in pages() {
        let path = folder.join(format!("{}.1", name(&page)));
        std::fs::write(&path, rendered(&page)?).with_context(|| format!("cannot write {}", named(&path)))?;
    }
    Ok(())
}

/// leakwatch, and each of its commands; what is hidden has no page.
fn pages() -> Vec<Command> {
    let mut whole = offered();
    whole.build();
    let mut pages = vec![whole.clone()];
    pages.extend(whole.get_subcommands().cloned());
    pages
}

/// `leakwatch`, or `leakwatch-COMMAND`.
fn name(page: &Command) -> &str {
    page.get_display_name().unwrap_or(page.get_name())
}

fn rendered(page: &Command) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let man = Man::new(page.clone()).source(concat!("leakwatch ", env!("CARGO_PKG_VERSION")));
    man.render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let names: Vec<String> = pages().iter().map(|page| name(page).to_owned()).collect();
        assert!(names.contains(&"leakwatch-record".to_owned()), "{names:?}");
        assert!(
            !names.iter().any(|name| name.contains("demo-service")),
            "{names:?}"
        );
        let page = String::from_utf8(page(Some("record")).unwrap()).unwrap();
        for part in [
            ".TH",
            "leakwatch\\-record",
            "\\-\\-allocs\\-budget",
            "Exit status",
        ] {
            assert!(page.contains(part), "no {part} in\n{page}");
        }
    }

    #[test]
    fn a_page_of_no_command_is_told() {
        let error = page(Some("recrod\u{1b}")).unwrap_err();
        assert!(error.is::<UsageError>());
        let line = error.to_string();
        assert!(line.contains("record, ") && !line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn pages_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("man1");
        write_pages(&inner).unwrap();
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), pages().len());
        assert!(
            std::fs::read_to_string(inner.join("leakwatch.1"))
                .unwrap()
                .contains(".SH NAME")
        );
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(write_pages(&folder.path().join("file")).is_err());
    }

    #[test]
    fn every_shell_has_its_script() {
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let script = String::from_utf8(completions(shell)).unwrap();
            assert!(script.contains("allocs-budget"), "{shell} completes no options");
            assert!(!script.contains("demo-service"), "{shell} offers what is hidden");
        }
    }
}
