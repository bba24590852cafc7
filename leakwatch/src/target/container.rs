//! The container that a process runs in, as far as its cgroup tells.

/// The ID in `/proc/PID/cgroup` (its text): 64 hexadecimal digits as Docker, containerd, CRI-O and Podman write them,
/// alone (`/docker/ID`) or as `RUNTIME-ID.scope`. `None` for anything else; the innermost one where they nest.
#[must_use]
pub fn id_from_cgroup(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .find_map(|path| path.rsplit('/').find_map(id_from_segment))
        .map(str::to_owned)
}

fn id_from_segment(segment: &str) -> Option<&str> {
    let segment = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = segment.rsplit(['-', ':']).next()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // Podman's supervisor sits beside the container, not in it.
    (is_id && !segment.contains("conmon")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_known_runtimes() {
        let id = "3f4bd9c8".repeat(8);
        for path in [
            format!("0::/system.slice/docker-{id}.scope"),
            format!("5:memory:/docker/{id}"),
            format!("1:name=systemd:/x\n0::/kubepods/burstable/pod9e/{id}"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("0::/machine.slice/libpod-{id}.scope/container"),
            format!("0::/system.slice/containerd.service/kubepods-besteffort-podx.slice:cri-containerd:{id}"),
            format!("0::/../{id}"),
        ] {
            assert_eq!(id_from_cgroup(&path), Some(id.clone()), "{path}");
        }
    }

    #[test]
    fn anything_else_is_no_container() {
        let id = "3f4bd9c8".repeat(8);
        for path in [
            String::new(),
            "0::/".to_owned(),
            "0::/user.slice/user-1000.slice/session-3.scope".to_owned(),
            format!("0::/docker/{}", &id[1..]),
            format!("0::/docker/{}", id.to_uppercase()),
            format!("0::/machine.slice/libpod-conmon-{id}.scope"),
        ] {
            assert_eq!(id_from_cgroup(&path), None, "{path}");
        }
    }
}
