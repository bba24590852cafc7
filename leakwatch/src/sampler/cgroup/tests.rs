use std::fs;

use super::*;
use crate::sampler::living::Child;

/// A host: a `/proc`, and cgroup file systems beside it.
struct Host(tempfile::TempDir);

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Self(folder);
        for (path, text) in files {
            host.write(path, text);
        }
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The mountinfo of a process, with mounts of (root, folder of this host, type and options).
    fn mounts(&self, process: &str, mounts: &[(&str, &str, &str)]) {
        let lines: String = mounts
            .iter()
            .map(|(root, point, kind)| format!("30 24 0:26 {root} {point} rw,nosuid shared:9 - {kind}\n"))
            .collect();
        self.write(&format!("proc/{process}/mountinfo"), &lines);
    }

    fn path(&self, folder: &str) -> String {
        self.0.path().join(folder).to_str().unwrap().to_owned()
    }

    fn read(&self) -> io::Result<CgroupMemory> {
        let root = ProcRoot::new(self.0.path().join("proc"));
        Cgroups::find(&root).memory(&root, 42, &mut Vec::new())
    }
}

const V2: &str = "cgroup2 cgroup2 rw,nsdelegate";
const V1: &str = "cgroup cgroup rw,memory";

#[test]
fn version_2_with_the_tightest_of_several_limits() {
    let host = Host::new(&[
        ("proc/42/cgroup", "0::/a.slice/b.service\n"),
        ("c/memory.stat", "anon 1\n"),
        ("c/a.slice/memory.current", "1900\n"),
        ("c/a.slice/memory.max", "2000\n"),
        ("c/a.slice/b.service/memory.current", "300\n"),
        ("c/a.slice/b.service/memory.max", "1000\n"),
        (
            "c/a.slice/b.service/memory.stat",
            "file 8\nanon 200\nanon_thp 7\n",
        ),
    ]);
    host.mounts("self", &[("/", &host.path("c"), V2)]);
    let mut expected = CgroupMemory {
        version: Version::V2,
        current: 300,
        anonymous: Some(200),
        tightest: Some(Limit {
            limit: 2000,
            used: Some(1900),
            above: 1,
        }),
    };
    assert_eq!(
        host.read().unwrap(),
        expected,
        "the slice has less room, though the higher limit"
    );
    host.write("c/a.slice/memory.max", "max\n");
    expected.tightest = Some(Limit {
        limit: 1000,
        used: Some(300),
        above: 0,
    });
    assert_eq!(host.read().unwrap(), expected);
    host.write("c/a.slice/b.service/memory.max", "max\n");
    expected.tightest = None;
    assert_eq!(host.read().unwrap(), expected);
    // 0 is a limit.
    host.write("c/a.slice/b.service/memory.max", "0\n");
    assert_eq!(
        host.read()
            .unwrap()
            .tightest
            .map(|limit| (limit.limit, limit.room())),
        Some((0, 0))
    );
}

#[test]
fn version_2_without_the_controller_in_the_leaf() {
    let host = Host::new(&[
        ("proc/42/cgroup", "0::/a/b\n"),
        ("c/a/memory.current", "77\n"),
        ("c/a/memory.max", "100\n"),
        ("c/a/b/cgroup.procs", "42\n"),
    ]);
    host.mounts("self", &[("/", &host.path("c"), V2)]);
    let memory = host.read().unwrap();
    assert_eq!((memory.current, memory.anonymous), (77, None));
    assert_eq!(memory.tightest.unwrap().above, 1);
}

#[test]
fn version_1_and_a_hybrid_host() {
    let host = Host::new(&[
        ("proc/42/cgroup", "4:memory:/docker/x\n0::/system.slice\n"),
        ("m/memory.usage_in_bytes", "5000\n"),
        ("m/memory.limit_in_bytes", "9223372036854771712\n"),
        ("m/docker/memory.usage_in_bytes", "400\n"),
        ("m/docker/memory.limit_in_bytes", "9223372036854771712\n"),
        ("m/docker/x/memory.usage_in_bytes", "300\n"),
        ("m/docker/x/memory.limit_in_bytes", "9223372036854710272\n"),
        (
            "m/docker/x/memory.stat",
            "cache 1\nrss 2\ntotal_cache 3\ntotal_rss 40\n",
        ),
        ("u/system.slice/cgroup.procs", "42\n"),
    ]);
    let (m, u) = (host.path("m"), host.path("u"));
    host.mounts("self", &[("/", &u, V2), ("/", &m, V1)]);
    let memory = host.read().unwrap();
    assert_eq!(memory.version, Version::V1);
    assert_eq!(
        (memory.current, memory.anonymous, memory.tightest),
        (300, Some(40), None)
    );

    host.write("m/docker/memory.limit_in_bytes", "500\n");
    let tightest = Limit {
        limit: 500,
        used: Some(400),
        above: 1,
    };
    assert_eq!(host.read().unwrap().tightest, Some(tightest));
    // The parent is not charged for what its children use.
    host.write("m/docker/memory.use_hierarchy", "0\n");
    assert_eq!(host.read().unwrap().tightest, None);
    host.write("m/docker/memory.use_hierarchy", "1\n");
    assert_eq!(host.read().unwrap().tightest, Some(tightest));
}

#[test]
fn from_within_a_container_that_shares_the_pids_of_the_host() {
    let host = Host::new(&[
        ("proc/42/cgroup", "0::/../../system.slice/x.service\n"),
        ("own/memory.current", "1\n"),
        (
            "proc/1/root/sys/fs/cgroup/system.slice/x.service/memory.current",
            "300\n",
        ),
        ("proc/1/root/sys/fs/cgroup/system.slice/memory.current", "900\n"),
        ("proc/1/root/sys/fs/cgroup/system.slice/memory.max", "1000\n"),
    ]);
    // The container's own mount shows itself alone, and another cgroup is not to be taken for its root.
    host.mounts("self", &[("/", &host.path("own"), V2)]);
    assert_eq!(host.read().unwrap_err().kind(), io::ErrorKind::NotFound);
    host.mounts("1", &[("/../..", "/sys/fs/cgroup", V2)]);
    let memory = host.read().unwrap();
    assert_eq!(
        (memory.current, memory.tightest.map(|limit| limit.room())),
        (300, Some(100))
    );
    // The host's tree, mounted into the container.
    host.mounts(
        "self",
        &[
            ("/", &host.path("own"), V2),
            ("/../..", &host.path("proc/1/root/sys/fs/cgroup"), V2),
        ],
    );
    fs::remove_file(host.0.path().join("proc/1/mountinfo")).unwrap();
    assert_eq!(host.read().unwrap(), memory);
}

#[test]
fn a_container_of_its_own_namespace_seen_by_the_host() {
    let id = "3f4bd9c8".repeat(8);
    let scope = format!("system.slice/docker-{id}.scope");
    let host = Host::new(&[
        ("proc/42/cgroup", &format!("0::/{scope}\n")),
        (&format!("c/{scope}/memory.current"), "300\n"),
        (&format!("c/{scope}/memory.max"), "536870912\n"),
    ]);
    host.mounts("self", &[("/", &host.path("c"), V2)]);
    assert_eq!(host.read().unwrap().tightest.unwrap().limit, 512 << 20);
}

#[test]
fn what_is_absent_is_not_zero() {
    let absent = |files: &[(&str, &str)]| {
        let host = Host::new(files);
        host.mounts("self", &[("/", &host.path("c"), V2)]);
        host.read().unwrap_err().kind()
    };
    // The root cgroup, a removed one, none, a controller that is not mounted, a file cut short.
    assert_eq!(
        absent(&[("proc/42/cgroup", "0::/\n"), ("c/cgroup.procs", "")]),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        absent(&[("proc/42/cgroup", "0::/a (deleted)\n")]),
        io::ErrorKind::NotFound
    );
    assert_eq!(absent(&[("proc/42/cgroup", "")]), io::ErrorKind::NotFound);
    assert_eq!(
        absent(&[("proc/42/cgroup", "4:memory:/a\n")]),
        io::ErrorKind::NotFound
    );
    let cut = [("proc/42/cgroup", "0::/a\n"), ("c/a/memory.current", "30")];
    assert_eq!(absent(&cut), io::ErrorKind::NotFound);
    let error = Host::new(&[]).read().unwrap_err();
    assert!(error.to_string().contains("proc/42/cgroup"), "{error}");
}

/// Puts a child into a cgroup of its own with a limit, where this user may.
#[test]
fn a_child_with_a_limit() {
    let root = ProcRoot::default();
    let cgroups = Cgroups::find(&root);
    let member = Membership::read(&root, std::process::id(), &mut Vec::new()).unwrap();
    let accounts = member.memory().map(|(version, _)| version);
    let Some(mount) = cgroups.mounts.iter().find(|mount| {
        let top = mount.place(b"/").filter(|_| Some(mount.version) == accounts);
        top.is_some_and(|place| place.folder.join("cgroup.procs").exists())
    }) else {
        eprintln!("no cgroup file system with the host's root: not tested");
        return;
    };
    let name = format!("/leakwatch-test-{}", std::process::id());
    let folder = mount.place(name.as_bytes()).unwrap().folder;
    let files = mount.version.files();
    if fs::create_dir(&folder).is_err() || fs::write(folder.join(files.limit), "268435456").is_err() {
        let _ = fs::remove_dir(&folder);
        eprintln!("no cgroup can be made, or has no memory controller: not tested");
        return;
    }
    let mut child = Child::shell("");
    let moved = fs::write(folder.join("cgroup.procs"), child.pid().to_string());
    child.step();
    let memory = cgroups.memory(&root, child.pid(), &mut Vec::new());
    child.reap();
    // The kernel may still be about to empty it.
    let removed = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        fs::remove_dir(&folder).is_ok()
    });
    moved.unwrap();
    let memory = memory.unwrap();
    let tightest = memory.tightest.unwrap();
    assert_eq!(
        (memory.version, tightest.limit, tightest.above),
        (mount.version, 256 << 20, 0)
    );
    assert!(memory.anonymous.unwrap() <= memory.current, "{memory:?}");
    assert!(removed);
}
