//! Which images a pattern means: a host whose labels may be globs, a port, and the beginning of a path
//! (k8s.io/kubernetes `pkg/credentialprovider/keyring.go`, `URLsMatch`).

/// Keys beyond this length are no host and path.
pub(crate) const MAX_KEY: usize = 4096;

/// A host whose labels may be globs, a port and a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    labels: Vec<String>,
    port: String,
    path: String,
}

// === impl Pattern ===

impl Pattern {
    /// Reads a pattern without a scheme; `None` if it has no host or a malformed glob.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, path) = text.find('/').map_or((text, ""), |slash| text.split_at(slash));
        if host.is_empty() || text.len() > MAX_KEY {
            return None;
        }
        let (name, port) = split_port(host);
        let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
        labels.iter().all(|label| glob(label, "").is_some()).then(|| Self {
            labels,
            port: port.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether it means the repository at this host.
    pub(crate) fn matches(&self, host: &str, repository: &str) -> bool {
        let (name, port) = split_port(host);
        let mut labels = name.split('.');
        let same = self
            .labels
            .iter()
            .all(|pattern| labels.next().is_some_and(|label| glob(pattern, label) == Some(true)));
        let path = self.path.strip_prefix('/').unwrap_or(&self.path);
        same && labels.next().is_none() && self.port == port && repository.starts_with(path)
    }
}

/// A host's name and its port, which may be empty.
fn split_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    // Brackets with a colon in them are an address, others are a glob.
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    (address.filter(|address| address.contains(':')).unwrap_or(name), port)
}

/// Whether `text` matches: `*` is any text, `?` one character, `[a-z]` and `[^a-z]` one of a class, and a
/// backslash takes the meaning away. `None` if the pattern is malformed, found whatever the text is.
fn glob(pattern: &str, text: &str) -> Option<bool> {
    let tokens = tokens(pattern)?;
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut token) = (0, 0);
    // Where to go on if what follows the last `*` does not match: one character later.
    let mut again: Option<(usize, usize)> = None;
    while at < text.len() {
        match (tokens.get(token), text.get(at)) {
            (Some(Token::Any), _) => {
                again = Some((token + 1, at));
                token += 1;
                continue;
            }
            (Some(Token::One(class)), Some(&c)) if class.has(c) => {
                (at, token) = (at + 1, token + 1);
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = again else { return Some(false) };
        again = Some((after, from + 1));
        (token, at) = (after, from + 1);
    }
    let rest = tokens.get(token..).unwrap_or_default();
    Some(rest.iter().all(|token| matches!(token, Token::Any)))
}

#[derive(Debug)]
enum Token {
    Any,
    One(Class),
}

#[derive(Debug)]
struct Class {
    ranges: Vec<(char, char)>,
    negated: bool,
}

impl Class {
    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.negated
    }
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One(Class { ranges: Vec::new(), negated: true }),
            '[' => Token::One(class(&mut rest)?),
            '\\' => literal(rest.next()?),
            c => literal(c),
        });
    }
    Some(tokens)
}

fn literal(c: char) -> Token {
    Token::One(Class { ranges: vec![(c, c)], negated: false })
}

/// The rest of a class, its bracket being open.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Class> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match rest.next()? {
            ']' if !ranges.is_empty() => return Some(Class { ranges, negated }),
            // A class is never empty, and neither bracket nor dash begins a range.
            ']' | '-' => return None,
            '\\' => rest.next()?,
            c => c,
        };
        let high = match rest.next_if_eq(&'-') {
            None => low,
            Some(_) => match rest.next()? {
                ']' | '-' => return None,
                '\\' => rest.next()?,
                c => c,
            },
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, image: &str) -> bool {
        let (host, repository) = image.split_once('/').unwrap_or((image, ""));
        Pattern::parse(pattern).is_some_and(|pattern| pattern.matches(host, repository))
    }

    #[test]
    fn patterns_match_images_as_kubelets_do() {
        // The examples of Kubernetes' documentation of `matchImages`, and of its own tests.
        for (pattern, image, expected) in [
            ("*.io", "registry.io/a", true),
            ("*.io", "registry.io:80/a", false),
            ("*.io:8080", "registry.io:8080/a", true),
            ("*.k8s.io", "registry.k8s.io/a", true),
            ("*.k8s.io", "app.registry.k8s.io/a", false),
            ("*.*.k8s.io", "app.registry.k8s.io/a", true),
            ("k8s.*.io", "k8s.gcr.io/a", true),
            ("app*.k8s.io", "app1.k8s.io/a", true),
            (
                "123456789.dkr.ecr.us-east-1.amazonaws.com",
                "123456789.dkr.ecr.us-east-1.amazonaws.com/a",
                true,
            ),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com/a/b", true),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com.cn/a/b", false),
            ("*.azurecr.io", "azurecr.io/a", false),
            ("gcr.io", "gcr.io/a", true),
            ("registry.io:8080/path", "registry.io:8080/path/image", true),
            ("registry.io:8080/path", "registry.io:8080/pathology", true),
            ("registry.io:8080/path", "registry.io:8080/other", false),
            ("registry.io/path/", "registry.io/path/image", true),
            ("[::1]:5000", "[::1]:5000/a", true),
            ("[::1]:5000", "[::1]:5001/a", false),
            ("r[a-e]gistry.io", "registry.io/a", true),
            ("r[^a-e]gistry.io", "registry.io/a", false),
            ("r?gistry.io", "registry.io/a", true),
            ("[", "[/a", false),
            ("", "/a", false),
        ] {
            assert_eq!(matches(pattern, image), expected, "{pattern} for {image}");
        }
    }

    /// What a pattern of `*` and letters means, told by splitting.
    fn simple(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| simple(rest, &text[skip..])),
            Some((c, rest)) => text.first() == Some(c) && simple(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn stars_mean_what_a_simple_matcher_says(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(glob(&pattern, &text), Some(simple(&p, &t)));
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = "*a".repeat(500) + "b";
        let began = std::time::Instant::now();
        assert_eq!(glob(&pattern, &"a".repeat(2000)), Some(false));
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }
}
