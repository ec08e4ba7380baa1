//! The walk over a configuration file: finds the key behind each value, or the nearest known name.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, Problem, Warning,
    keys::{self, Key, Standing},
};

/// Reads `text` on top of `config`.
pub(super) fn read(text: &str, config: &mut Config) -> Result<Vec<Warning>, (usize, Problem)> {
    let line =
        |span: Range<usize>| text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1);
    let document = DeTable::parse(text).map_err(|error| {
        (error.span().map_or(1, line), Problem::Syntax { message: error.message().to_owned() })
    })?;
    let mut walk = Walk { config, warnings: Vec::new() };
    walk.table("", document.get_ref()).map_err(|(span, problem)| (line(span), problem))?;
    let warning =
        |(span, key, why): (Range<usize>, &'static str, &'static str)| Warning { line: line(span), key, why };
    let mut warnings: Vec<_> = walk.warnings.into_iter().map(warning).collect();
    warnings.sort_by_key(|warning| warning.line);
    Ok(warnings)
}

struct Walk<'c> {
    config: &'c mut Config,
    warnings: Vec<(Range<usize>, &'static str, &'static str)>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), (Range<usize>, Problem)> {
        for (name, value) in table {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            match keys::find(&path) {
                Some(key) => self.value(key, value).map_err(|problem| (name.span(), problem))?,
                None => self.inner(&path, name.span(), value.get_ref())?,
            }
        }
        Ok(())
    }

    fn inner(
        &mut self,
        path: &str,
        span: Range<usize>,
        value: &DeValue<'_>,
    ) -> Result<(), (Range<usize>, Problem)> {
        let known = keys::is_table(path);
        match value {
            DeValue::Table(inner) if known => self.table(path, inner),
            _ if known => {
                Err((span, Problem::Value { key: path.to_owned(), expected: "a table".to_owned() }))
            }
            other => {
                let nearest = keys::nearest(path, other.is_table());
                Err((span, Problem::UnknownKey { key: path.to_owned(), nearest }))
            }
        }
    }

    fn value(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>) -> Result<(), Problem> {
        let bad = |expected| Problem::Value { key: key.path.to_owned(), expected };
        match &key.standing {
            Standing::Works { field, bounds } => {
                field(self.config).read(value.get_ref(), bounds).map_err(bad)
            }
            Standing::Ignored { kind, why } => {
                kind.check(value.get_ref()).map_err(bad)?;
                self.warnings.push((value.span(), key.path, why));
                Ok(())
            }
        }
    }
}
