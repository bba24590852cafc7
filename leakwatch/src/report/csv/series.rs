//! What `/proc` said over the window: a line for each sample.

use std::io::{self, Write};

use super::figure;
use crate::report::model::{Recording, Sample};

/// A column, and what stands in it.
type Column = (&'static str, fn(&Sample) -> Option<u64>);

const COLUMNS: [Column; 8] = [
    ("rss_bytes", |sample| sample.rss_bytes),
    ("anonymous_bytes", |sample| sample.anonymous_bytes),
    ("private_dirty_bytes", |sample| sample.private_dirty_bytes),
    ("pss_bytes", |sample| sample.pss_bytes),
    ("swap_bytes", |sample| sample.swap_bytes),
    ("threads", |sample| sample.threads),
    ("fds", |sample| sample.fds),
    ("connections", |sample| sample.connections),
];

/// Writes a head and the samples in the order of time, seconds from the window's start. Only the head where nothing was
/// sampled.
pub fn write(recording: &Recording, to: &mut dyn Write) -> io::Result<()> {
    let mut line = String::from("t_seconds");
    for (name, _) in COLUMNS {
        line.push(',');
        line.push_str(name);
    }
    write!(to, "{line}\r\n")?;
    for sample in recording.series.iter().flatten() {
        line = sample.t.to_string();
        for (_, of) in COLUMNS {
            line.push(',');
            line.push_str(&figure(of(sample)));
        }
        write!(to, "{line}\r\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_line_for_each_sample_and_nothing_for_what_is_absent() {
        let mut recording = sample::empty();
        recording.series = Some(vec![
            Sample {
                t: 0.0,
                rss_bytes: Some(4096),
                connections: Some(0),
                ..Sample::default()
            },
            Sample {
                t: 1.25,
                threads: Some(u64::MAX),
                ..Sample::default()
            },
        ]);
        let mut file = Vec::new();
        write(&recording, &mut file).unwrap();
        assert_eq!(
            String::from_utf8(file).unwrap(),
            "t_seconds,rss_bytes,anonymous_bytes,private_dirty_bytes,pss_bytes,swap_bytes,threads,fds,connections\r\n\
             0,4096,,,,,,,0\r\n1.25,,,,,,18446744073709551615,,\r\n"
        );
    }

    #[test]
    fn without_samples_it_is_a_head() {
        let mut file = Vec::new();
        write(&sample::empty(), &mut file).unwrap();
        assert_eq!(file.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
