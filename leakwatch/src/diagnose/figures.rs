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
