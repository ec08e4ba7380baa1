//! `WWW-Authenticate`, in which a registry says how to authenticate.
//!
//! The grammar is RFC 9110, section 11.6.1: several challenges may share one header, parameters are
//! tokens or quoted strings. Only `Bearer` (distribution token authentication) and `Basic` are of use;
//! of several the better one is taken, Bearer first, as containerd does.

/// A way to authenticate that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token from `realm`.
    Bearer(BearerChallenge),
    /// User name and password with each request.
    Basic,
}

/// The parameters of a Bearer challenge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BearerChallenge {
    /// The URL of the token service.
    pub realm: String,
    /// What the token service calls the registry.
    pub service: Option<String>,
    /// The scopes that the request needs, separated by spaces.
    pub scope: Option<String>,
    /// Why the token that was sent is of no use (`invalid_token`, `insufficient_scope`).
    pub error: Option<String>,
}

/// The longest header that is read; a longer one is cut, as no registry needs it.
const MAX_HEADER: usize = 16 * 1024;

impl Challenge {
    /// The best challenge in the values of all `WWW-Authenticate` headers of an answer.
    pub fn best<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut basic = false;
        for value in values {
            for (scheme, parameters) in Parser::new(value).challenges() {
                if scheme.eq_ignore_ascii_case("bearer") {
                    let bearer = BearerChallenge::from_parameters(parameters);
                    if !bearer.realm.is_empty() {
                        return Some(Self::Bearer(bearer));
                    }
                } else if scheme.eq_ignore_ascii_case("basic") {
                    basic = true;
                }
            }
        }
        basic.then_some(Self::Basic)
    }
}

impl BearerChallenge {
    fn from_parameters(parameters: Vec<(String, String)>) -> Self {
        let mut challenge = Self::default();
        for (name, value) in parameters {
            match name.to_ascii_lowercase().as_str() {
                "realm" => challenge.realm = value,
                "service" => challenge.service = Some(value),
                "scope" => challenge.scope = Some(value),
                "error" => challenge.error = Some(value),
                _ => {}
            }
        }
        challenge
    }
}

/// A cursor over one header value.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn new(value: &'a [u8]) -> Self {
        Self { rest: value.get(..MAX_HEADER).unwrap_or(value) }
    }

    /// `scheme [name=value *(, name=value)] *(, scheme …)`. A word followed by `=` is a parameter of the
    /// scheme before it, any other word begins a challenge; what fits neither ends the header.
    fn challenges(mut self) -> Vec<(String, Vec<(String, String)>)> {
        let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
        loop {
            self.skip(b", \t");
            let word = self.token();
            if word.is_empty() {
                return challenges;
            }
            self.skip(b" \t");
            if self.rest.first() == Some(&b'=') {
                self.rest = self.rest.get(1..).unwrap_or_default();
                self.skip(b" \t");
                let value = self.value();
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word, value));
                }
            } else {
                challenges.push((word, Vec::new()));
            }
        }
    }

    fn skip(&mut self, set: &[u8]) {
        let n = self.rest.iter().take_while(|b| set.contains(b)).count();
        self.rest = self.rest.get(n..).unwrap_or_default();
    }

    fn token(&mut self) -> String {
        let part = |b: &&u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        let n = self.rest.iter().take_while(part).count();
        let (token, rest) = self.rest.split_at(n);
        self.rest = rest;
        String::from_utf8_lossy(token).into_owned()
    }

    fn value(&mut self) -> String {
        if self.rest.first() != Some(&b'"') {
            // Some registries leave out the quotes around URLs, which are no tokens: read to the comma.
            let n = self.rest.iter().take_while(|b| !b", \t".contains(b)).count();
            let (value, rest) = self.rest.split_at(n);
            self.rest = rest;
            return String::from_utf8_lossy(value).into_owned();
        }
        let mut value = Vec::new();
        let mut bytes = self.rest.iter().enumerate().skip(1);
        let mut end = self.rest.len();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    end = at + 1;
                    break;
                }
                b'\\' => value.extend(bytes.next().map(|(_, escaped)| *escaped)),
                other => value.push(*other),
            }
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        String::from_utf8_lossy(&value).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(value: &str) -> BearerChallenge {
        match Challenge::best([value.as_bytes()]) {
            Some(Challenge::Bearer(bearer)) => bearer,
            other => panic!("{value}: {other:?}"),
        }
    }

    #[test]
    fn reads_a_bearer_challenge() {
        let found = bearer(
            r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull,push",error="invalid_token""#,
        );
        assert_eq!(found.realm, "https://auth.example.com/token");
        assert_eq!(found.service.as_deref(), Some("registry.example.com"));
        assert_eq!(found.scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(found.error.as_deref(), Some("invalid_token"));
    }

    #[test]
    fn tolerates_case_spaces_escapes_and_missing_quotes() {
        assert_eq!(bearer(r#"bEARER  Realm = "https://x/\"q\"" , x=y"#).realm, "https://x/\"q\"");
        assert_eq!(bearer("Bearer realm=https://x/token,service=s").realm, "https://x/token");
        assert_eq!(bearer(r#"Bearer realm="https://x/token"#).realm, "https://x/token");
    }

    #[test]
    fn takes_the_better_of_several() {
        let bearer = r#"Basic realm="b", Bearer realm="https://x/""#;
        assert!(matches!(Challenge::best([bearer.as_bytes()]), Some(Challenge::Bearer(_))));
        let separate: [&[u8]; 3] = [b"Digest realm=d", b"Basic realm=b", b"Bearer realm=\"https://x/\""];
        assert!(matches!(Challenge::best(separate), Some(Challenge::Bearer(_))));
        assert_eq!(Challenge::best([b"Negotiate, Basic".as_slice()]), Some(Challenge::Basic));
        assert_eq!(Challenge::best([b"Bearer".as_slice(), b"Basic"]), Some(Challenge::Basic));
        assert_eq!(Challenge::best([b"Digest realm=d".as_slice(), b"", b"=", b",,"]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(values: Vec<Vec<u8>>) {
            let _ = Challenge::best(values.iter().map(Vec::as_slice));
        }

        #[test]
        fn quoted_strings_keep_every_character(realm in "[ -~]{1,40}", service in "[ -~]{0,40}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{}\",service=\"{}\"", quote(&realm), quote(&service));
            let found = bearer(&header);
            prop_assert_eq!(found.realm, realm);
            prop_assert_eq!(found.service, Some(service));
        }
    }
}
