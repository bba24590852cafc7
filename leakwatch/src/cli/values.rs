//! From an argument's text to a value, or to one sentence on what is wrong with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use leakwatch_ebpf::wire::STACK_BYTES_MAX;

/// The kernel's own bound on 64-bit machines (`PID_MAX_LIMIT`).
const PID_MAX: u32 = 4 * 1024 * 1024;
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const DURATION_MIN: Duration = Duration::from_millis(100);
const STACK_BYTES_MIN: u32 = 1024;
const RING_BYTES_MAX: u32 = 1 << 30;

pub fn pid(text: &str) -> Result<u32, String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.strip_prefix('-').is_some_and(digits) {
        return Err("a PID is a positive number".to_owned());
    }
    if !digits(text) {
        return Err("a PID is digits only; --name finds a process by its name".to_owned());
    }
    match text.parse() {
        Ok(0) => Err("0 is no process".to_owned()),
        Ok(pid) if pid <= PID_MAX => Ok(pid),
        _ => Err(format!("no PID of Linux is above {PID_MAX}")),
    }
}

/// `10s`, `5m`, `1h 30m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = any_duration(text)?;
    if duration.is_zero() {
        Err("in no time nothing grows: give at least 100ms".to_owned())
    } else if duration < DURATION_MIN {
        Err("too short to see growth: give at least 100ms".to_owned())
    } else if duration > DURATION_MAX {
        Err("over 7 days: a recording is made for a window of minutes".to_owned())
    } else {
        Ok(duration)
    }
}

fn any_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err("a duration is positive".to_owned());
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let spelled = if is_number {
        format!("{text}s")
    } else {
        text.to_owned()
    };
    humantime::parse_duration(&spelled)
        .map_err(|error| format!("not a duration such as 10s, 5m or 1h: {error}"))
}

/// From one round to the next: 100ms to a day.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = any_duration(text)?;
    if (DURATION_MIN..=Duration::from_secs(24 * 3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("give 100ms to 1day".to_owned())
    }
}

/// Of a watch, which may go on for years: 100ms to ten of them.
pub fn span(text: &str) -> Result<Duration, String> {
    let span = any_duration(text)?;
    if (DURATION_MIN..=Duration::from_secs(10 * 366 * 24 * 3600)).contains(&span) {
        Ok(span)
    } else {
        Err("give 100ms to 10years".to_owned())
    }
}

/// Where to listen: `9464`, `:9464` (loopback), `192.0.2.1:9464`, `[::1]:9464`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        "not a port such as 9464, nor an address such as 192.0.2.1:9464 or [::1]:9464".to_owned()
    })
}

/// The demo's service leaks on purpose, so its window is kept short.
pub fn demo_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration > Duration::from_secs(120) {
        return Err("the demo's service leaks some 6 MiB a second: give at most 2 minutes".to_owned());
    }
    Ok(duration)
}

/// Bytes: `4096`, `64KiB`, `16M`, `1G`; units are binary (`K`, `KB` and `KiB` are 1024).
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err("not a size such as 4096, 64KiB or 16M".to_owned()),
    };
    if number.is_empty() {
        return Err("not a size such as 4096, 64KiB or 16M".to_owned());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "too large a size".to_owned())
}

pub fn stack_bytes(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if bytes < STACK_BYTES_MIN => Err("under 1KiB hardly a stack reaches its root".to_owned()),
        Ok(bytes) if bytes as usize <= STACK_BYTES_MAX && bytes % 8 == 0 => Ok(bytes),
        Ok(bytes) if bytes as usize <= STACK_BYTES_MAX => {
            Err("the stack is copied in words: give a multiple of 8".to_owned())
        }
        _ => Err(format!("the most is {}KiB", STACK_BYTES_MAX / 1024)),
    }
}

pub fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    let page = procfs::page_size();
    match u32::try_from(bytes) {
        Ok(ring) if ring.is_power_of_two() && bytes >= page && ring <= RING_BYTES_MAX => Ok(ring),
        Ok(ring) if ring.is_power_of_two() && bytes < page => {
            Err(format!("the kernel asks for whole pages of {page} bytes"))
        }
        Ok(ring) if ring <= RING_BYTES_MAX => {
            Err("the kernel asks for a power of two, such as 16MiB or 64MiB".to_owned())
        }
        _ => Err("the most is 1GiB".to_owned()),
    }
}

/// How many rows; 0 would be a report without an answer.
pub fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("give at least 1".to_owned()),
        Ok(rows) => Ok(rows),
        Err(_) => Err("not a number of rows".to_owned()),
    }
}

/// Bytes of a history; below this not even its tables have room.
pub fn history_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < 1 << 20 => Err("give at least 1MiB".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Points of one service.
pub fn points(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(points @ 2..=100_000) => Ok(points),
        _ => Err("give 2 to 100000".to_owned()),
    }
}

/// A part of processor time, given in percent; in parts per million.
pub fn allocs_budget(text: &str) -> Result<u32, String> {
    const PARTS_OF_PERCENT: f64 = 1e4;
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(percent) if (0.01..=100.0).contains(&percent) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 100 and a million"
            )]
            let parts = (percent * PARTS_OF_PERCENT).round() as u32;
            Ok(parts)
        }
        _ => Err("expected a percentage from 0.01 to 100".to_owned()),
    }
}

/// Snapshots a second; the target's time bounds them too, so that more would not come anyway.
pub fn sample_budget(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("give at least 1; --faults never watches no page faults".to_owned()),
        Ok(budget) => Ok(budget),
        Err(_) => Err("not a number of snapshots a second".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn budgets() {
        assert_eq!(allocs_budget("1"), Ok(10_000));
        assert_eq!(allocs_budget("0.5%"), Ok(5_000));
        for wrong in ["0", "-1", "101", "", "%", "NaN", "inf", "1 per cent"] {
            assert!(allocs_budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pids() {
        assert_eq!(pid("1"), Ok(1));
        assert_eq!(pid("4194304"), Ok(PID_MAX));
        assert_eq!(pid("0042"), Ok(42));
        for (text, part) in [
            ("0", "no process"),
            ("000", "no process"),
            ("-1", "positive"),
            ("-0", "positive"),
            ("", "digits only"),
            ("-", "digits only"),
            ("+5", "digits only"),
            ("5 ", "digits only"),
            ("redis", "--name"),
            ("12a", "digits only"),
            ("0x10", "digits only"),
            ("٣", "digits only"),
            ("4194305", "above"),
            ("4294967296", "above"),
            ("99999999999999999999999", "above"),
        ] {
            let error = pid(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7d"), Ok(DURATION_MAX));
        for (text, part) in [
            ("0", "no time"),
            ("0s", "no time"),
            ("-5", "positive"),
            ("-5s", "positive"),
            ("1ns", "too short"),
            ("8d", "over 7 days"),
            ("604801", "over 7 days"),
            ("99999999999999999999s", "not a duration"),
            ("99999999999999999999y", "not a duration"),
            ("", "not a duration"),
            ("s", "not a duration"),
            ("five", "not a duration"),
            ("1..5", "not a duration"),
            ("inf", "not a duration"),
            ("1e9", "not a duration"),
        ] {
            let error = duration(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(demo_duration("121").unwrap_err().contains("2 minutes"));
        assert_eq!(demo_duration("120"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn spans_intervals_and_addresses() {
        assert_eq!(interval("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(span("30d"), Ok(Duration::from_secs(30 * 86400)));
        for wrong in ["0", "1ms", "2d", "-1", "x"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
        assert!(span("11years").is_err());
        let text = |wanted: &str| address(wanted).map(|address| address.to_string());
        assert_eq!(text("9464").as_deref(), Ok("127.0.0.1:9464"));
        assert_eq!(text(":9464").as_deref(), Ok("127.0.0.1:9464"));
        assert_eq!(text("localhost:1").as_deref(), Ok("127.0.0.1:1"));
        assert_eq!(text("0.0.0.0:80").as_deref(), Ok("0.0.0.0:80"));
        assert_eq!(text("[::1]:80").as_deref(), Ok("[::1]:80"));
        for wrong in ["", "99999", "x", "1.2.3.4", "example.com:80"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("16 mib"), Ok(16 << 20));
        assert_eq!(size("1g"), Ok(1 << 30));
        for text in [
            "",
            "K",
            "-1",
            "1.5M",
            "1T",
            "1KiBB",
            "99999999999999999999",
            "17179869184G",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_stack_and_the_ring_have_bounds() {
        assert_eq!(stack_bytes("32KiB"), Ok(32768));
        assert_eq!(stack_bytes("64K"), Ok(65536));
        assert!(stack_bytes("65K").unwrap_err().contains("64KiB"));
        assert!(stack_bytes("8G").unwrap_err().contains("64KiB"));
        assert!(stack_bytes("0").unwrap_err().contains("1KiB"));
        assert!(stack_bytes("1025").unwrap_err().contains("multiple of 8"));
        assert_eq!(ring_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(ring_bytes("1G"), Ok(1 << 30));
        assert!(ring_bytes("48MiB").unwrap_err().contains("power of two"));
        assert!(ring_bytes("0").unwrap_err().contains("power of two"));
        assert!(ring_bytes("1024").unwrap_err().contains("pages"));
        assert!(ring_bytes("2G").unwrap_err().contains("1GiB"));
        assert!(ring_bytes("3G").unwrap_err().contains("1GiB"));
        assert_eq!(rows("1"), Ok(1));
        assert!(rows("0").is_err() && rows("-1").is_err() && rows("x").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_accepted_is_in_bounds(text in "\\PC{0,24}") {
            if let Ok(pid) = pid(&text) {
                prop_assert!((1..=PID_MAX).contains(&pid));
            }
            if let Ok(duration) = duration(&text) {
                prop_assert!(duration >= DURATION_MIN && duration <= DURATION_MAX);
            }
            let _ = (size(&text), stack_bytes(&text), ring_bytes(&text), rows(&text));
        }

        #[test]
        fn a_size_means_its_number_times_its_unit(number in 0_u64..1 << 30, unit in 0_usize..4) {
            let spelled = format!("{number}{}", ["", "K", "MiB", "g"][unit]);
            prop_assert_eq!(size(&spelled), Ok(number << (10 * unit)));
        }
    }
}
