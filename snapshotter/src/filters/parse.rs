//! Tokens as filters (`pkg/filters/parser.go`).

use regex::Regex;

use super::{
    Filter, FilterError, Selector, Test,
    quote::unquote,
    scan::{Scanner, Token},
};

struct Parser<'a> {
    input: &'a str,
    scanner: Scanner<'a>,
}

/// Parses one filter.
pub(super) fn filter(input: &str) -> Result<Filter, FilterError> {
    if input.is_empty() {
        return Ok(Filter::default());
    }
    Parser { input, scanner: Scanner::new(input) }.selectors()
}

// === impl Parser ===

impl Parser<'_> {
    fn selectors(&mut self) -> Result<Filter, FilterError> {
        let mut all = vec![self.selector()?];
        loop {
            match self.scanner.peek() {
                None => return Ok(Filter { all }),
                Some(',') => {
                    self.scanner.scan();
                    all.push(self.selector()?);
                }
                Some(_) => return Err(self.error("unexpected input")),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, FilterError> {
        let path = self.path()?;
        if matches!(self.scanner.peek(), None | Some(',')) {
            return Ok(Selector { path, test: Test::Present });
        }
        let test = match self.scanner.scan() {
            Token::Operator("==") => Test::Equal(self.value(false)?),
            Token::Operator("!=") => Test::NotEqual(self.value(false)?),
            Token::Operator("~=") => Test::Matches(Regex::new(&self.value(true)?).ok()),
            Token::Operator(_) => return Err(self.error("unsupported operator")),
            Token::Illegal(reason) => return Err(self.error(reason)),
            _ => return Err(self.error(r#"expected an operator ("=="|"!="|"~=")"#)),
        };
        Ok(Selector { path, test })
    }

    fn path(&mut self) -> Result<Vec<String>, FilterError> {
        let mut path = vec![self.field()?];
        while self.scanner.peek() == Some('.') {
            self.scanner.scan();
            path.push(self.field()?);
        }
        Ok(path)
    }

    fn field(&mut self) -> Result<String, FilterError> {
        match self.scanner.scan() {
            Token::Field(field) => Ok(field.to_owned()),
            Token::Quoted(quoted) => self.unquote(quoted, false),
            Token::Illegal(reason) => Err(self.error(reason)),
            _ => Err(self.error("expected field or quoted")),
        }
    }

    fn value(&mut self, other_quotes: bool) -> Result<String, FilterError> {
        match self.scanner.scan() {
            Token::Value(value) | Token::Field(value) => Ok(value.to_owned()),
            Token::Quoted(quoted) => self.unquote(quoted, other_quotes),
            Token::Illegal(reason) => Err(self.error(reason)),
            _ => Err(self.error("expected value or quoted")),
        }
    }

    fn unquote(&self, quoted: &str, other_quotes: bool) -> Result<String, FilterError> {
        if !other_quotes && !quoted.starts_with('"') {
            return Err(self.error("invalid quote encountered"));
        }
        unquote(quoted).map_err(|reason| self.error(reason))
    }

    fn error(&self, reason: &'static str) -> FilterError {
        let filter = self.input.chars().take(200).collect();
        FilterError { filter, position: self.scanner.position(), reason }
    }
}
