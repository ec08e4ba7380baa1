//! Logs as containerd's tools expect them: one JSON object a line on stderr, with `level`, `msg`, `time` and the
//! event's fields beside them, not nested, under the names and level names of logrus.

#[cfg(test)]
pub(crate) mod captured;

use std::{fmt, str::FromStr};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
};

/// A level by its name in logrus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// The normal level.
    Info,
    /// What may need attention.
    Warn,
    /// What failed.
    Error,
}

/// No level of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log level {0:?}: use trace, debug, info, warn, error, fatal or panic")]
pub struct UnknownLevel(String);

/// Sends all logs of this process to stderr.
pub fn start(level: Level) {
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber(level, std::io::stderr));
}

/// The subscriber behind [`start`], for any writer.
pub fn subscriber<W>(level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().event_format(Flat).with_writer(writer);
    tracing_subscriber::registry().with(targets(level)).with(layer)
}

/// Ours at `level`, the libraries below at warnings, unless everything was asked for.
fn targets(level: Level) -> Targets {
    let filter = LevelFilter::from(level);
    if level == Level::Trace {
        return Targets::new().with_default(filter);
    }
    let ours = ["snapshotter", "starlingd", "store", "registry", "fusefs", "estargz", "starling"];
    ours.into_iter().fold(Targets::new().with_default(filter.min(LevelFilter::WARN)), |targets, name| {
        targets.with_target(name, filter)
    })
}

/// One flat JSON object for an event.
struct Flat;

impl<S, N> FormatEvent<S, N> for Flat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut object = fields.0;
        object.insert("level".to_owned(), logrus(*event.metadata().level()).into());
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        object.insert("time".to_owned(), time.into());
        object.entry("msg").or_insert_with(|| "".into());
        writeln!(writer, "{}", Value::Object(object))
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // logrus keeps a field that has the name of one of its own as fields.<name>.
        let name = match field.name() {
            "message" => "msg".to_owned(),
            name @ ("level" | "msg" | "time") => format!("fields.{name}"),
            name => name.to_owned(),
        };
        self.0.insert(name, value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// An error with all its causes in one line, each said once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

fn logrus(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::TRACE => "trace",
        tracing::Level::DEBUG => "debug",
        tracing::Level::INFO => "info",
        tracing::Level::WARN => "warning",
        tracing::Level::ERROR => "error",
    }
}

// === impl Level ===

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        match name.to_ascii_lowercase().as_str() {
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            // Nothing is ever logged above an error: the daemon ends with exit code 1 instead.
            "error" | "fatal" | "panic" => Ok(Self::Error),
            _ => Err(UnknownLevel(name.to_owned())),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::TRACE,
            Level::Debug => Self::DEBUG,
            Level::Info => Self::INFO,
            Level::Warn => Self::WARN,
            Level::Error => Self::ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(level: Level, work: impl FnOnce()) -> Vec<Map<String, Value>> {
        captured::logged(level, work).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_one_flat_object_as_logrus_writes_it() {
        let lines = logged(Level::Debug, || {
            tracing::warn!(
                key = "k",
                parent = "p",
                count = 3,
                "remote-snapshot-prepared" = "false",
                "cannot \"do\""
            );
            tracing::debug!(level = "x", "second");
        });
        let [first, second] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(first["level"], "warning");
        assert_eq!(first["msg"], "cannot \"do\"");
        assert_eq!((&first["key"], &first["count"]), (&"k".into(), &3.into()));
        assert_eq!(first["remote-snapshot-prepared"], "false");
        assert!(first["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!((&second["level"], &second["fields.level"]), (&"debug".into(), &"x".into()));
    }

    #[test]
    fn the_level_is_the_least_that_is_logged_and_libraries_are_quieter() {
        let lines = logged(Level::Info, || {
            tracing::debug!("no");
            tracing::info!("yes");
            tracing::info!(target: "h2", "no");
            tracing::warn!(target: "h2", "yes");
        });
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line["msg"] == "yes"));
    }

    #[test]
    fn logrus_names_of_levels_are_known() {
        for (name, level) in [
            ("trace", Level::Trace),
            ("WARNING", Level::Warn),
            ("fatal", Level::Error),
            ("panic", Level::Error),
        ] {
            assert_eq!(name.parse(), Ok(level));
        }
        assert!("loud".parse::<Level>().unwrap_err().to_string().contains("trace, debug, info"));
    }

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("inner"))), "outer: inner");
    }
}
