//! What a value in the configuration file can be, and how it gets into its typed field.
//!
//! A type that implements [`Setting`] says what it accepts, reads it and shows it; the table of keys, the parser and
//! the generated reference all go through it, so that they cannot disagree.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use toml::de::DeValue;

/// A whole number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

/// A whole number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milliseconds(pub u64);

/// A number of bytes, written as an integer or as a string with a unit (`"64MiB"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A field of the configuration that a key can set.
pub(super) trait Setting {
    /// What the reference calls the type.
    fn type_name(&self) -> &'static str;

    /// The value as the file would have it.
    fn show(&self) -> String;

    /// Takes the value from the file; the error says what was expected instead.
    fn read(&mut self, value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> Result<(), String>;
}

/// Reads an integer within `bounds`.
pub(super) fn integer(value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> Result<u64, String> {
    let expected = || match (*bounds.start(), *bounds.end()) {
        (low, u64::MAX) => format!("a whole number of at least {low}"),
        (low, high) => format!("a whole number from {low} to {high}"),
    };
    let DeValue::Integer(text) = value else { return Err(format!("{}, not {}", expected(), found(value))) };
    let number =
        u64::from_str_radix(text.as_str(), text.radix()).ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| format!("{}, not {text}", expected()))
}

/// What a value is, for a message.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

impl Setting for bool {
    fn type_name(&self) -> &'static str {
        "boolean"
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, value: &DeValue<'_>, _: &RangeInclusive<u64>) -> Result<(), String> {
        *self = value.as_bool().ok_or_else(|| format!("true or false, not {}", found(value)))?;
        Ok(())
    }
}

impl Setting for u64 {
    fn type_name(&self) -> &'static str {
        "integer"
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> Result<(), String> {
        *self = integer(value, bounds)?;
        Ok(())
    }
}

impl Setting for Seconds {
    fn type_name(&self) -> &'static str {
        "seconds"
    }

    fn show(&self) -> String {
        self.0.to_string()
    }

    fn read(&mut self, value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> Result<(), String> {
        self.0 = integer(value, bounds)?;
        Ok(())
    }
}

impl Setting for Milliseconds {
    fn type_name(&self) -> &'static str {
        "milliseconds"
    }

    fn show(&self) -> String {
        self.0.to_string()
    }

    fn read(&mut self, value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> Result<(), String> {
        self.0 = integer(value, bounds)?;
        Ok(())
    }
}

impl Setting for ByteSize {
    fn type_name(&self) -> &'static str {
        "bytes"
    }

    fn show(&self) -> String {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => format!("\"{}{name}\"", self.0 / unit),
            None => self.0.to_string(),
        }
    }

    fn read(&mut self, value: &DeValue<'_>, bounds: &RangeInclusive<u64>) -> Result<(), String> {
        let bytes = match value {
            DeValue::String(text) => {
                parse_bytes(text).ok_or_else(|| format!("a size such as \"64MiB\", not {text:?}"))?
            }
            DeValue::Integer(_) => integer(value, &(0..=u64::MAX))?,
            other => {
                return Err(format!("a number of bytes or a size such as \"64MiB\", not {}", found(other)));
            }
        };
        if !bounds.contains(&bytes) {
            let (low, high) = (Self(*bounds.start()).show(), Self(*bounds.end()).show());
            return Err(format!("a size from {low} to {high}, not {bytes}"));
        }
        self.0 = bytes;
        Ok(())
    }
}

impl Setting for String {
    fn type_name(&self) -> &'static str {
        "string"
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }

    fn read(&mut self, value: &DeValue<'_>, _: &RangeInclusive<u64>) -> Result<(), String> {
        *self = value.as_str().ok_or_else(|| format!("a string, not {}", found(value)))?.to_owned();
        Ok(())
    }
}

impl Setting for Option<PathBuf> {
    fn type_name(&self) -> &'static str {
        "path"
    }

    fn show(&self) -> String {
        format!("{:?}", self.as_deref().unwrap_or("".as_ref()))
    }

    fn read(&mut self, value: &DeValue<'_>, _: &RangeInclusive<u64>) -> Result<(), String> {
        let text = value.as_str().ok_or_else(|| format!("a path as a string, not {}", found(value)))?;
        *self = (!text.is_empty()).then(|| PathBuf::from(text));
        match self {
            Some(path) if path.is_relative() => Err(format!("an absolute path, not {text:?}")),
            _ => Ok(()),
        }
    }
}

impl Setting for Vec<String> {
    fn type_name(&self) -> &'static str {
        "list of strings"
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }

    fn read(&mut self, value: &DeValue<'_>, _: &RangeInclusive<u64>) -> Result<(), String> {
        let expected = || format!("a list of strings, not {}", found(value));
        let items = value.as_array().ok_or_else(expected)?;
        *self = items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned).ok_or_else(expected))
            .collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl Seconds {
    /// As the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Milliseconds {
    /// As the standard library has it.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
