//! What of a sample is kept. The table below is all there is to know of it: columns, units, names.

use crate::sampler::sample::Sample;

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Kept in KiB, as /proc counts.
    Bytes,
    Count,
    /// A count that only rises while the process lives.
    Total,
}

/// The figures of one sample; absent is `None`, never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub rss_bytes: Option<u64>,
    pub anonymous_bytes: Option<u64>,
    pub file_bytes: Option<u64>,
    pub shared_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub data_bytes: Option<u64>,
    pub page_table_bytes: Option<u64>,
    pub pss_bytes: Option<u64>,
    pub private_dirty_bytes: Option<u64>,
    pub cgroup_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub descriptors: Option<u64>,
    pub connections: Option<u64>,
    pub close_wait: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
}

/// One row of the table.
#[derive(Debug)]
pub struct Metric {
    /// Of the JSON and the CSV.
    pub name: &'static str,
    /// Of the file.
    pub column: &'static str,
    pub unit: Unit,
    /// For who reads the metric elsewhere.
    pub about: &'static str,
    pub get: fn(&Figures) -> Option<u64>,
    pub set: fn(&mut Figures, Option<u64>),
}

macro_rules! metric {
    ($field:ident, $column:literal, $unit:ident, $about:literal) => {
        Metric {
            name: stringify!($field),
            column: $column,
            unit: Unit::$unit,
            about: $about,
            get: |figures| figures.$field,
            set: |figures, value| figures.$field = value,
        }
    };
}

/// Every metric that is kept.
pub const METRICS: [Metric; 16] = [
    metric!(rss_bytes, "rss_kib", Bytes, "Resident memory"),
    metric!(
        anonymous_bytes,
        "anonymous_kib",
        Bytes,
        "Resident anonymous memory"
    ),
    metric!(
        file_bytes,
        "file_kib",
        Bytes,
        "Resident memory that files are behind"
    ),
    metric!(shared_bytes, "shared_kib", Bytes, "Resident shared memory"),
    metric!(swap_bytes, "swap_kib", Bytes, "Anonymous memory swapped out"),
    metric!(
        data_bytes,
        "data_kib",
        Bytes,
        "Private writable address space, touched or not"
    ),
    metric!(
        page_table_bytes,
        "page_table_kib",
        Bytes,
        "Page tables of the process"
    ),
    metric!(
        pss_bytes,
        "pss_kib",
        Bytes,
        "Resident memory, shared pages by their share"
    ),
    metric!(
        private_dirty_bytes,
        "private_dirty_kib",
        Bytes,
        "Resident memory that is private and dirty"
    ),
    metric!(
        cgroup_bytes,
        "cgroup_kib",
        Bytes,
        "Memory of the cgroup, file cache included"
    ),
    metric!(threads, "threads", Count, "Threads"),
    metric!(descriptors, "descriptors", Count, "Open file descriptors"),
    metric!(connections, "connections", Count, "TCP and Unix connections"),
    metric!(
        close_wait,
        "close_wait",
        Count,
        "TCP connections that the peer has closed and the process has not"
    ),
    metric!(
        minor_faults,
        "minor_faults",
        Total,
        "Page faults that needed no disk"
    ),
    metric!(
        major_faults,
        "major_faults",
        Total,
        "Page faults that waited for a disk"
    ),
];

impl Figures {
    #[must_use]
    pub fn of(sample: &Sample) -> Self {
        let totals = &sample.totals;
        let sockets = sample.sockets.ok();
        let rollup = sample.rollup.ok();
        Self {
            rss_bytes: totals.rss,
            anonymous_bytes: totals.rss_anonymous,
            file_bytes: totals.rss_file,
            shared_bytes: totals.rss_shmem,
            swap_bytes: totals.swap,
            data_bytes: totals.data,
            page_table_bytes: totals.page_tables,
            pss_bytes: rollup.and_then(|rollup| rollup.pss),
            private_dirty_bytes: rollup.and_then(|rollup| rollup.private_dirty),
            cgroup_bytes: sample.cgroup.ok().map(|cgroup| cgroup.current),
            threads: totals.threads,
            descriptors: sample.descriptors.ok(),
            connections: sockets
                .map(|sockets| sockets.tcp.connections().saturating_add(sockets.unix.connected)),
            close_wait: sockets.map(|sockets| sockets.tcp.close_wait),
            minor_faults: Some(sample.stat.minor_faults),
            major_faults: Some(sample.stat.major_faults),
        }
    }

    /// Anonymous memory, resident or swapped out: what leaks. Bytes.
    #[must_use]
    pub fn anonymous_and_swap(&self) -> Option<u64> {
        self.anonymous_bytes?.checked_add(self.swap_bytes.unwrap_or(0))
    }
}

impl Unit {
    /// As the file has it.
    #[must_use]
    pub fn to_column(self, value: u64) -> i64 {
        let kept = match self {
            Self::Bytes => value >> 10,
            Self::Count | Self::Total => value,
        };
        i64::try_from(kept).unwrap_or(i64::MAX)
    }

    /// Back again; what no size is (a file may be damaged) is none.
    #[must_use]
    pub fn of_column(self, kept: i64) -> Option<u64> {
        let kept = u64::try_from(kept).ok()?;
        match self {
            Self::Bytes => kept.checked_mul(1024),
            Self::Count | Self::Total => Some(kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_metric_reads_what_it_writes_and_nothing_else() {
        for (index, metric) in METRICS.iter().enumerate() {
            let mut figures = Figures::default();
            (metric.set)(&mut figures, Some(4096));
            for (other, another) in METRICS.iter().enumerate() {
                let expected = (index == other).then_some(4096);
                assert_eq!(
                    (another.get)(&figures),
                    expected,
                    "{} {}",
                    metric.name,
                    another.name
                );
            }
            let kept = metric.unit.to_column(4096);
            assert_eq!(metric.unit.of_column(kept), Some(4096));
            assert_eq!(metric.unit.of_column(-1), None);
        }
        let columns: HashSet<&str> = METRICS.iter().map(|metric| metric.column).collect();
        assert_eq!(columns.len(), METRICS.len());
        assert_eq!(Unit::Bytes.of_column(i64::MAX), None);
        assert_eq!(Unit::Count.to_column(u64::MAX), i64::MAX);
    }

    #[test]
    fn what_leaks_may_be_swapped_out() {
        let figures = Figures {
            anonymous_bytes: Some(5),
            swap_bytes: Some(7),
            ..Figures::default()
        };
        assert_eq!(figures.anonymous_and_swap(), Some(12));
        assert_eq!(Figures::default().anonymous_and_swap(), None);
    }
}
