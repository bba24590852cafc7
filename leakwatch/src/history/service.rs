//! What stays the same when a process is restarted: its name, its cgroup, and which of several of the kind it is. Pure.

use std::collections::{BTreeSet, HashMap};

/// The longest cgroup path that is kept, in bytes; what is longer is cut.
const CGROUP_BYTES_MAX: usize = 512;
/// Digits and dashes that are an ID from this length on: a container's has 64, a UUID 36.
const ID_LETTERS: usize = 32;

/// What a process is a run of. Its texts are plain text of hostile origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service {
    /// The main thread's name when it was first seen.
    pub name: String,
    /// Its memory cgroup, where IDs that change with each start are a `*`; empty where it is not known.
    pub cgroup: String,
    /// Of several at the same time, counted from 0. A process that starts takes the least that is free.
    pub instance: u32,
}

impl Service {
    /// `server` or `server#2`, unescaped.
    #[must_use]
    pub fn title(&self) -> String {
        if self.instance == 0 {
            self.name.clone()
        } else {
            format!("{}#{}", self.name, self.instance)
        }
    }
}

/// The kernel's own limit, bytes.
const NAME_BYTES: usize = 15;

/// A name as the kernel keeps it, which is what services are called by: its first 15 bytes.
#[must_use]
pub fn kept_name(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

/// A cgroup's path as it will be after a restart: a container's ID, a pod's UUID and the number of a session or a transient
/// unit are another then.
#[must_use]
pub fn stable_cgroup(path: &str) -> String {
    let mut stable = String::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        stable.push('/');
        stable.push_str(&stable_segment(segment));
    }
    if stable.is_empty() && !path.is_empty() {
        stable.push('/');
    }
    let mut end = stable.len().min(CGROUP_BYTES_MAX);
    while !stable.is_char_boundary(end) {
        end -= 1;
    }
    stable.truncate(end);
    stable
}

fn stable_segment(segment: &str) -> String {
    for (before, after) in [("session-", ".scope"), ("run-", ".scope"), ("run-", ".service")] {
        let middle = segment
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after));
        if middle.is_some_and(|middle| middle.bytes().any(|byte| byte.is_ascii_digit())) {
            return format!("{before}*{after}");
        }
    }
    // An ID is hexadecimal; UUIDs have dashes in it, or what systemd makes of them.
    let mut out = String::new();
    let mut rest = segment;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|letter: char| !(letter.is_ascii_hexdigit() || matches!(letter, '-' | '_')))
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        if let Some(at) = id_start(run) {
            out.push_str(run.get(..at).unwrap_or_default());
            out.push('*');
        } else {
            out.push_str(run);
        }
        rest = after;
        if run.is_empty() {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

/// Where an ID begins in a run of hexadecimal digits, dashes and underscores; `None` where there is none.
fn id_start(run: &str) -> Option<usize> {
    // What stands before an ID and is hexadecimal by chance (the `d-` of `cri-containerd-`) is kept.
    let start = run.find(['-', '_']).map_or(0, |dash| {
        let digits = |text: &str| text.bytes().filter(u8::is_ascii_hexdigit).count();
        let (before, after) = run.split_at(dash + 1);
        if before.len() < 9 && digits(after) >= ID_LETTERS {
            dash + 1
        } else {
            0
        }
    });
    let digits = run.get(start..)?.bytes().filter(u8::is_ascii_hexdigit).count();
    (digits >= ID_LETTERS).then_some(start)
}

/// Which instances of each service are running.
#[derive(Debug, Default)]
pub struct Instances {
    taken: HashMap<(String, String), Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    numbers: BTreeSet<u32>,
    /// All below are taken: thousands may have the same name.
    least: u32,
}

impl Instances {
    /// The least instance of this kind that is free, from now on taken.
    pub fn take(&mut self, name: &str, cgroup: &str) -> Service {
        let taken = self
            .taken
            .entry((name.to_owned(), cgroup.to_owned()))
            .or_default();
        let instance = (taken.least..)
            .find(|number| !taken.numbers.contains(number))
            .unwrap_or(u32::MAX);
        taken.numbers.insert(instance);
        taken.least = instance.saturating_add(1);
        Service {
            name: name.to_owned(),
            cgroup: cgroup.to_owned(),
            instance,
        }
    }

    /// Takes this very one; whether it was free.
    pub fn take_again(&mut self, service: &Service) -> bool {
        let key = (service.name.clone(), service.cgroup.clone());
        self.taken
            .entry(key)
            .or_default()
            .numbers
            .insert(service.instance)
    }

    /// Its process is gone.
    pub fn free(&mut self, service: &Service) {
        let key = (service.name.clone(), service.cgroup.clone());
        if let Some(taken) = self.taken.get_mut(&key) {
            taken.numbers.remove(&service.instance);
            taken.least = taken.least.min(service.instance);
            if taken.numbers.is_empty() {
                self.taken.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cgroup_is_the_same_after_a_restart() {
        let id = "3f4bd9c8".repeat(8);
        let uuid = "9e7bd1c4-0d3f-4a6e-8c55-1d9e4f0b2a77";
        for (path, stable) in [
            ("/system.slice/nginx.service", "/system.slice/nginx.service"),
            ("/", "/"),
            ("", ""),
            ("/user.slice/session-12.scope", "/user.slice/session-*.scope"),
            ("/system.slice/run-u123.service", "/system.slice/run-*.service"),
            (
                "/system.slice/run-parts.service",
                "/system.slice/run-parts.service",
            ),
            (
                "/user.slice/user-1000.slice/app-dead.beef",
                "/user.slice/user-1000.slice/app-dead.beef",
            ),
            (&format!("/docker/{id}"), "/docker/*"),
            (
                &format!("/system.slice/docker-{id}.scope"),
                "/system.slice/docker-*.scope",
            ),
            (
                &format!("/k/cri-containerd-{id}.scope"),
                "/k/cri-containerd-*.scope",
            ),
            (
                &format!("/kubepods/burstable/pod{uuid}/{id}"),
                "/kubepods/burstable/po*/*",
            ),
            (
                &format!("/kubepods.slice/kubepods-pod{}.slice", uuid.replace('-', "_")),
                "/kubepods.slice/kubepods-po*.slice",
            ),
        ] {
            assert_eq!(stable_cgroup(path), stable, "{path}");
        }
        assert!(stable_cgroup(&format!("/{}", "é".repeat(4000))).len() <= CGROUP_BYTES_MAX);
    }

    #[test]
    fn a_name_is_cut_as_the_kernel_cuts_it() {
        assert_eq!(kept_name("a-name-that-is-long"), "a-name-that-is-");
        assert_eq!(kept_name("short"), "short");
        assert!(kept_name(&"é".repeat(20)).len() <= 15);
    }

    #[test]
    fn a_restart_takes_the_instance_that_was_freed() {
        let mut instances = Instances::default();
        let services: Vec<Service> = (0..3).map(|_| instances.take("server", "/x")).collect();
        let numbers: Vec<u32> = services.iter().map(|service| service.instance).collect();
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(instances.take("server", "/y").instance, 0);
        instances.free(&services[1]);
        assert_eq!(instances.take("server", "/x"), services[1]);
        assert!(!instances.take_again(&services[2]));
        instances.free(&services[2]);
        assert!(instances.take_again(&services[2]));
        assert_eq!(services[2].title(), "server#2");
        assert_eq!(services[0].title(), "server");
    }

    proptest! {
        #[test]
        fn any_path_is_cut_and_settles(path in "\\PC{0,80}") {
            let stable = stable_cgroup(&path);
            prop_assert!(stable.len() <= CGROUP_BYTES_MAX);
            prop_assert_eq!(stable_cgroup(&stable), stable);
        }
    }
}
