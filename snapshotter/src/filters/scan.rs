//! Filters as tokens, with the rules of containerd's scanner (`pkg/filters/scanner.go`).

/// A piece of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// The end.
    End,
    /// A text with its quotes, which match and whose escapes are well formed.
    Quoted(&'a str),
    /// What follows an operator, without quotes.
    Value(&'a str),
    /// A name.
    Field(&'a str),
    /// `,` or `.`.
    Separator,
    /// One or more of `=`, `!` and `~`.
    Operator(&'a str),
    /// A character that starts none of these.
    Other,
    /// What can be no token, and why.
    Illegal(&'static str),
}

/// Reads tokens off a filter.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    input: &'a str,
    position: usize,
    /// An operator was read: what comes next is a value, in which dots and the like are ordinary.
    value: bool,
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, position: 0, value: false }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The next character, which stays.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Reads a token, after any white space.
    pub(super) fn scan(&mut self) -> Token<'a> {
        self.skip(char::is_whitespace);
        let start = self.position;
        let Some(c) = self.next() else { return Token::End };
        match c {
            '\0' => Token::Illegal("unexpected null"),
            char::REPLACEMENT_CHARACTER => Token::Illegal("rune error"),
            '"' | '/' | '|' => match self.quoted(c) {
                Ok(()) => Token::Quoted(self.since(start)),
                Err(reason) => Token::Illegal(reason),
            },
            ',' | '.' => {
                self.value = false;
                Token::Separator
            }
            '=' | '!' | '~' => {
                self.skip(|c| matches!(c, '=' | '!' | '~'));
                self.value = true;
                Token::Operator(self.since(start))
            }
            _ if self.value => {
                self.skip(is_value);
                self.value = false;
                Token::Value(self.since(start))
            }
            c if is_field(c) => {
                self.skip(is_field);
                Token::Field(self.since(start))
            }
            _ => Token::Other,
        }
    }

    /// Reads to the closing quote and past it.
    fn quoted(&mut self, quote: char) -> Result<(), &'static str> {
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(()),
                Some('\\') => self.escape(quote)?,
                None | Some('\n' | '\0' | char::REPLACEMENT_CHARACTER) => {
                    return Err("quoted literal not terminated");
                }
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self, quote: char) -> Result<(), &'static str> {
        let (radix, digits) = match self.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some('0'..='7') => (8, 2),
            Some('x') => (16, 2),
            Some('u') => (16, 4),
            Some('U') => (16, 8),
            _ => return Err("illegal escape sequence"),
        };
        for _ in 0..digits {
            if !self.peek().is_some_and(|c| c.is_digit(radix)) {
                return Err("illegal numeric escape sequence");
            }
            self.next();
        }
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
    }

    fn rest(&self) -> &'a str {
        self.input.get(self.position..).unwrap_or_default()
    }

    fn since(&self, start: usize) -> &'a str {
        self.input.get(start..self.position).unwrap_or_default()
    }
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_value(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control() && c != char::REPLACEMENT_CHARACTER
}
