//! Thresholds as they are written: in options, and in a small TOML file.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::printable::printable;
use super::values;
use crate::watch::thresholds::{Rise, Thresholds};

/// The largest file that is read, bytes.
const FILE_MAX: u64 = 1 << 20;

/// Bytes an hour; `None` is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateBound(pub Option<f64>);
/// Over the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RiseBound(pub Option<Rise>);
/// To the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeBound(pub Option<Duration>);
/// How many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CountBound(pub Option<u64>);

fn is_off(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("off")
}

/// `16MiB`, also as `16MiB/h`; `off`.
pub fn rate(text: &str) -> Result<RateBound, String> {
    if is_off(text) {
        return Ok(RateBound(None));
    }
    let size = text.trim();
    let size = size.strip_suffix("/h").unwrap_or(size);
    #[expect(clippy::cast_precision_loss, reason = "a size in memory")]
    match values::size(size)? {
        0 => Err("0 bytes an hour is no bound: give off for none".to_owned()),
        bytes => Ok(RateBound(Some(bytes as f64))),
    }
}

/// `200MiB`, `50%`, `off`.
pub fn rise(text: &str) -> Result<RiseBound, String> {
    if is_off(text) {
        return Ok(RiseBound(None));
    }
    if let Some(percent) = text.trim().strip_suffix('%') {
        return match percent.trim().parse::<f64>() {
            Ok(percent) if (1.0..=100_000.0).contains(&percent) => {
                Ok(RiseBound(Some(Rise::Share(percent / 100.0))))
            }
            _ => Err("expected a percentage from 1 to 100000".to_owned()),
        };
    }
    match values::size(text)? {
        0 => Err("0 bytes is no bound: give off for none".to_owned()),
        bytes => Ok(RiseBound(Some(Rise::Bytes(bytes)))),
    }
}

/// `24h`, `off`.
pub fn time(text: &str) -> Result<TimeBound, String> {
    if is_off(text) {
        return Ok(TimeBound(None));
    }
    values::span(text).map(|time| TimeBound(Some(time)))
}

/// `500`, `off`.
pub fn count(text: &str) -> Result<CountBound, String> {
    if is_off(text) {
        return Ok(CountBound(None));
    }
    match text.trim().parse() {
        Ok(0) => Err("0 is no bound: give off for none".to_owned()),
        Ok(count) => Ok(CountBound(Some(count))),
        Err(_) => Err("not a number, nor off".to_owned()),
    }
}

/// What was said of bounds in one place; `None` where nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    pub rate: Option<RateBound>,
    pub rise: Option<RiseBound>,
    pub time_to_limit: Option<TimeBound>,
    pub descriptors: Option<CountBound>,
    pub threads: Option<CountBound>,
    pub connections: Option<CountBound>,
    pub baseline: Option<Duration>,
}

impl Said {
    /// These bounds, where something was said, else those.
    #[must_use]
    pub fn over(&self, base: Thresholds) -> Thresholds {
        Thresholds {
            rate: self.rate.map_or(base.rate, |it| it.0),
            rise: self.rise.map_or(base.rise, |it| it.0),
            time_to_limit: self.time_to_limit.map_or(base.time_to_limit, |it| it.0),
            descriptors: self.descriptors.map_or(base.descriptors, |it| it.0),
            threads: self.threads.map_or(base.threads, |it| it.0),
            connections: self.connections.map_or(base.connections, |it| it.0),
        }
    }
}

/// A value of the file: a text, or a number where a bare number means something.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Number(u64),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    rate: Option<Value>,
    rise: Option<Value>,
    time_to_limit: Option<Value>,
    descriptors: Option<Value>,
    threads: Option<Value>,
    connections: Option<Value>,
    baseline: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    thresholds: Table,
    #[serde(default)]
    service: BTreeMap<String, Table>,
}

fn parsed<T>(
    table: &str,
    key: &str,
    value: Option<&Value>,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    value
        .map(|value| parse(&value.text()).map_err(|why| format!("[{table}] {key}: {why}")))
        .transpose()
}

impl Table {
    fn said(&self, name: &str) -> Result<Said, String> {
        Ok(Said {
            rate: parsed(name, "rate", self.rate.as_ref(), rate)?,
            rise: parsed(name, "rise", self.rise.as_ref(), rise)?,
            time_to_limit: parsed(name, "time_to_limit", self.time_to_limit.as_ref(), time)?,
            descriptors: parsed(name, "descriptors", self.descriptors.as_ref(), count)?,
            threads: parsed(name, "threads", self.threads.as_ref(), count)?,
            connections: parsed(name, "connections", self.connections.as_ref(), count)?,
            baseline: parsed(name, "baseline", self.baseline.as_ref(), values::span)?,
        })
    }
}

/// What a file says: of all, and of services by their name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub general: Said,
    pub by_service: HashMap<String, Said>,
}

/// Reads the file.
///
/// # Errors
/// One line: what is wrong in it, and where.
pub fn read(path: &Path) -> Result<Config, String> {
    let shown = printable(&path.to_string_lossy());
    let mut text = String::new();
    let file = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot read the configuration {shown}: {error}"))?;
    if file as u64 > FILE_MAX {
        return Err(format!("{shown} is larger than any configuration (1 MiB)"));
    }
    parse(&text).map_err(|why| format!("{shown}: {why}"))
}

fn parse(text: &str) -> Result<Config, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        // Its own text spreads over lines, with the place drawn below.
        let line = error.span().map_or(1, |span| {
            1 + text.get(..span.start).unwrap_or_default().matches('\n').count()
        });
        format!("line {line}: {}", printable(error.message()))
    })?;
    let general = file.thresholds.said("thresholds")?;
    let mut by_service = HashMap::new();
    for (name, table) in &file.service {
        let said = table.said(&format!("service.{}", printable(name)))?;
        if said.baseline.is_some() {
            return Err(format!(
                "[service.{}] baseline: it is for all services, in [thresholds]",
                printable(name)
            ));
        }
        by_service.insert(name.clone(), said);
    }
    Ok(Config { general, by_service })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_in_words() {
        assert_eq!(rate("16MiB/h"), Ok(RateBound(Some(f64::from(16 << 20)))));
        assert_eq!(rate("off"), Ok(RateBound(None)));
        assert_eq!(rise("50%"), Ok(RiseBound(Some(Rise::Share(0.5)))));
        assert_eq!(rise("1K"), Ok(RiseBound(Some(Rise::Bytes(1024)))));
        assert_eq!(time("1h"), Ok(TimeBound(Some(Duration::from_secs(3600)))));
        assert_eq!(count("OFF"), Ok(CountBound(None)));
        for wrong in ["", "0", "x", "-1"] {
            assert!(
                rate(wrong).is_err() && rise(wrong).is_err() && count(wrong).is_err(),
                "{wrong}"
            );
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert!(rise("0%").is_err() && rise("NaN%").is_err());
    }

    #[test]
    fn a_file_and_what_goes_before_what() {
        let config = parse(
            "[thresholds]\nrate = \"100MiB\"\nthreads = 500\nrise = \"off\"\nbaseline = \"4h\"\n\
             [service.\"a b\"]\nrate = \"off\"\ndescriptors = \"9\"\n",
        )
        .unwrap();
        assert_eq!(config.general.baseline, Some(Duration::from_secs(4 * 3600)));
        let general = config.general.over(Thresholds::default());
        assert_eq!(general.rate, Some(f64::from(100 << 20)));
        assert_eq!((general.threads, general.descriptors), (Some(500), None));
        assert_eq!(general.time_to_limit, Thresholds::default().time_to_limit);
        let own = config.by_service["a b"].over(general);
        assert_eq!(
            (own.rate, own.threads, own.descriptors),
            (None, Some(500), Some(9))
        );
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_wrong_is_one_line_with_its_place() {
        for (text, part) in [
            ("[thresholds]\nrat = 5\n", "line 2"),
            ("[thresholds\n", "line 1"),
            ("[thresholds]\nrate = \"much\"\n", "[thresholds] rate: not a size"),
            ("[thresholds]\nthreads = -5\n", "line 2"),
            (
                "[service.x]\nthreads = \"0\"\n",
                "[service.x] threads: 0 is no bound",
            ),
            ("[service.x]\nbaseline = \"1h\"\n", "for all services"),
            ("[service.\"\\u001b[2J\"]\nrate = \"x\"\n", "\\u{1b}"),
            ("x = 1\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(part) && !error.contains('\n') && !error.contains('\x1b'),
                "{text}: {error}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(
            read(&folder.path().join("none.toml"))
                .unwrap_err()
                .contains("cannot read the configuration")
        );
    }
}
