//! What the host does to pages behind a program's back. It decides what a page fault can tell: where a fault may bring
//! in more pages than one, where it may bring in none, and where a page may be there without being in memory.

use std::fs;
use std::path::{Path, PathBuf};

const HUGE: &str = "sys/kernel/mm/transparent_hugepage";

/// When the kernel gives anonymous memory transparent huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    #[default]
    Never,
    /// Where the program asked for them (`MADV_HUGEPAGE`).
    Madvise,
    Always,
}

/// The host's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// Huge pages that one entry of the page middle directory maps (2 MiB where pages have 4 KiB).
    pub huge_pages: HugePages,
    /// Some size of huge page below that can be given: such pages look like ordinary ones in the page map, and one
    /// fault brings several.
    pub multi_size: bool,
    /// The kernel unmaps pages for a moment to see which node uses them: the fault that follows brings no page in.
    pub numa_balancing: bool,
    /// Pages can be swapped out, and come back by a fault.
    pub swap: bool,
}

impl Paging {
    /// Reads `ROOT/sys` and `ROOT/proc`; the host's own root is `/`. What is absent is off.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let huge = root.join(HUGE);
        let general = setting(&text(huge.join("enabled")), HugePages::Never).unwrap_or_default();
        let largest = text(huge.join("hpage_pmd_size"))
            .trim()
            .parse()
            .map_or(0, |bytes: u64| bytes / 1024);
        // Since Linux 6.8 each size has a setting of its own, by which the general one may be meant.
        let sizes: Vec<(u64, HugePages)> = fs::read_dir(&huge)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let kib = size_kib(entry.file_name().to_str()?)?;
                Some((kib, setting(&text(entry.path().join("enabled")), general)?))
            })
            .collect();
        Self {
            huge_pages: sizes
                .iter()
                .find(|(kib, _)| *kib == largest)
                .map_or(general, |(_, setting)| *setting),
            multi_size: sizes
                .iter()
                .any(|(kib, setting)| *kib < largest && *setting != HugePages::Never),
            numa_balancing: text(root.join("proc/sys/kernel/numa_balancing"))
                .trim()
                .parse()
                .is_ok_and(|mode: u32| mode != 0)
                && has_several(&text(root.join("sys/devices/system/node/online"))),
            // A headline, and a line for each area.
            swap: text(root.join("proc/swaps"))
                .lines()
                .skip(1)
                .any(|line| !line.trim().is_empty()),
        }
    }
}

/// The word in brackets of a line such as `always inherit [madvise] never`; `general` is what can be inherited. `None`
/// where there is no such word, or one of a kernel newer than this.
fn setting(text: &str, general: HugePages) -> Option<HugePages> {
    let (_, rest) = text.split_once('[')?;
    let (word, _) = rest.split_once(']')?;
    match word {
        "never" => Some(HugePages::Never),
        "madvise" => Some(HugePages::Madvise),
        "always" => Some(HugePages::Always),
        "inherit" => Some(general),
        _ => None,
    }
}

/// `hugepages-64kB` -> 64.
fn size_kib(folder: &str) -> Option<u64> {
    folder
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()
}

/// Whether a list such as `0-1,4` names more than one number.
fn has_several(list: &str) -> bool {
    list.contains([',', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        fn read(&self) -> Paging {
            Paging::read(self.0.path())
        }
    }

    #[test]
    fn a_host_of_which_nothing_is_known() {
        assert_eq!(Host::new(&[]).read(), Paging::default());
    }

    #[test]
    fn the_setting_is_the_word_in_brackets() {
        for (text, expected) in [
            ("[always] madvise never\n", HugePages::Always),
            ("always [madvise] never\n", HugePages::Madvise),
            ("always madvise [never]\n", HugePages::Never),
            ("always madvise never\n", HugePages::Never),
            ("[sometimes] never\n", HugePages::Never),
        ] {
            let host = Host::new(&[("sys/kernel/mm/transparent_hugepage/enabled", text)]);
            assert_eq!(host.read().huge_pages, expected, "{text}");
            assert!(!host.read().multi_size);
        }
    }

    #[test]
    fn sizes_below_the_largest_are_multi_size() {
        let of = |general: &str, small: &str, large: &str| {
            Host::new(&[
                ("sys/kernel/mm/transparent_hugepage/enabled", general),
                ("sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n"),
                (
                    "sys/kernel/mm/transparent_hugepage/hugepages-32kB/enabled",
                    "always inherit madvise [never]\n",
                ),
                ("sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled", small),
                (
                    "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled",
                    large,
                ),
            ])
            .read()
        };
        let (never, inherit) = (
            "always inherit madvise [never]\n",
            "always [inherit] madvise never\n",
        );
        let madvise = "always inherit [madvise] never\n";
        let always = "[always] madvise never\n";

        let usual = of(always, never, inherit);
        assert_eq!((usual.huge_pages, usual.multi_size), (HugePages::Always, false));
        // The size's own word goes before the general one.
        let own = of(always, madvise, never);
        assert_eq!((own.huge_pages, own.multi_size), (HugePages::Never, true));
        let inherited = of(always, inherit, inherit);
        assert_eq!(
            (inherited.huge_pages, inherited.multi_size),
            (HugePages::Always, true)
        );
        let off = of("always madvise [never]\n", inherit, inherit);
        assert_eq!((off.huge_pages, off.multi_size), (HugePages::Never, false));
    }

    #[test]
    fn balancing_needs_a_second_node() {
        let of = |mode: &str, online: &str| {
            Host::new(&[
                ("proc/sys/kernel/numa_balancing", mode),
                ("sys/devices/system/node/online", online),
            ])
            .read()
            .numa_balancing
        };
        assert!(of("1\n", "0-1\n") && of("2\n", "0,3\n"));
        assert!(!of("0\n", "0-1\n") && !of("1\n", "0\n") && !of("", "0-1\n"));
    }

    #[test]
    fn swap_is_a_line_below_the_headline() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let area = format!("{head}/dev/dm-1   partition\t8388604\t\t0\t\t-2\n");
        assert!(Host::new(&[("proc/swaps", &area)]).read().swap);
        assert!(!Host::new(&[("proc/swaps", head)]).read().swap);
    }

    /// The paths are the kernel's: where it has the files, they are found.
    #[test]
    fn this_host_can_be_read() {
        let here = Paging::read(Path::new("/"));
        let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        let own_size = Path::new("/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled");
        if enabled.contains("[always]") && !own_size.exists() {
            assert_eq!(here.huge_pages, HugePages::Always);
        }
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        assert_eq!(here.swap, swaps.lines().count() > 1);
    }
}
