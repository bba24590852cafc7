//! Figures as a reader wants them: steady units, one decimal. Pure.

/// `712.0 MiB`: one decimal from KiB on.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut shown = "B";
    for unit in UNITS {
        // 1023.95 and more would be shown as 1024.0.
        if shown != "B" && value < 1023.95 {
            break;
        }
        value /= 1024.0;
        shown = unit;
    }
    format!("{value:.1} {shown}")
}

/// With its sign, `+` too.
#[must_use]
pub fn signed(amount: i64) -> String {
    match amount {
        0 => "0 B".to_owned(),
        1.. => format!("+{}", bytes(amount.unsigned_abs())),
        _ => format!("-{}", bytes(amount.unsigned_abs())),
    }
}

/// With a sign only where it is negative.
#[must_use]
pub fn amount(amount: i64) -> String {
    if amount < 0 {
        signed(amount)
    } else {
        bytes(amount.unsigned_abs())
    }
}

/// `98 %`; what is not nothing is not shown as nothing.
#[must_use]
pub fn whole_percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.5 {
        "<1 %".to_owned()
    } else {
        format!("{percent:.0} %")
    }
}

/// Milliseconds below a tenth of a second.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.1 {
        format!("{:.1} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

/// As a reader says it, in the two largest units: `45 s`, `12 min`, `3 h 20 min`, `5 d 4 h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds >= 1e10 {
        return "centuries".to_owned();
    }
    if seconds < 10.0 {
        return self::seconds(seconds.max(0.0));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 10 and 10^10"
    )]
    let whole = seconds.round() as u64;
    const UNITS: [(u64, &str); 5] = [
        (365 * 86_400, "y"),
        (86_400, "d"),
        (3600, "h"),
        (60, "min"),
        (1, "s"),
    ];
    let largest = UNITS.iter().position(|(unit, _)| whole >= *unit).unwrap_or(4);
    let mut left = whole;
    let mut parts = Vec::new();
    for (unit, name) in UNITS.iter().skip(largest).take(2) {
        let count = left / unit;
        left %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join(" ")
}

/// Bytes that were reckoned, with a sign only where they are negative.
#[must_use]
pub fn reckoned(bytes: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is only shown")]
    let whole = bytes.round() as i64;
    amount(whole)
}

/// `3.1 KiB to 4.4 KiB`; one figure where the two are shown alike.
#[must_use]
pub fn reckoned_range(low: f64, high: f64) -> String {
    let (low, high) = (reckoned(low), reckoned(high));
    if low == high {
        low
    } else {
        format!("{low} to {high}")
    }
}

/// `2.1 MiB/s`.
#[must_use]
pub fn per_second(rate: f64) -> String {
    format!("{}/s", reckoned(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_two_units() {
        let shown = [
            0.05,
            9.0,
            45.4,
            60.0,
            125.0,
            12_000.0,
            446_400.0,
            40e6,
            f64::INFINITY,
        ]
        .map(duration);
        assert_eq!(
            shown,
            [
                "50.0 ms",
                "9.0 s",
                "45 s",
                "1 min",
                "2 min 5 s",
                "3 h 20 min",
                "5 d 4 h",
                "1 y 97 d",
                "centuries"
            ]
        );
        assert_eq!(per_second(-2048.2), "-2.0 KiB/s");
    }

    #[test]
    fn a_range_that_is_shown_alike_is_one_figure() {
        assert_eq!(reckoned_range(3174.0, 4505.0), "3.1 KiB to 4.4 KiB");
        assert_eq!(reckoned_range(24_570.0, 24_580.0), "24.0 KiB");
    }
}
