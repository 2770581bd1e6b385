//! Label matchers: `=`, `!=`, `=~`, `!~`, compiled once.
//!
//! Regular expressions are anchored at both ends, `.` matches a newline too, and they run in linear time (the `regex` crate, given Go's
//! syntax by `re2`). An alternation of plain words is recognised and answered from
//! a set without the regex engine; so is a plain word, and a plain prefix or suffix with `.*` or `.+` at the other end.

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use crate::re2;

/// The four operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// As written in a selector.
    pub fn symbol(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }

    /// True for `!=` and `!~`.
    pub fn is_negative(self) -> bool {
        matches!(self, MatchOp::NotEqual | MatchOp::NotRegex)
    }
}

/// One condition on one label; a missing label counts as the empty value. Cheap to clone.
#[derive(Clone)]
pub struct Matcher {
    op: MatchOp,
    name: Arc<str>,
    value: Arc<str>,
    test: Test,
}

#[derive(Clone)]
enum Test {
    Literal,
    /// Sorted; one of these words.
    Set(Arc<[Box<str>]>),
    /// Starts with the word, and at least `more` bytes follow.
    Prefix {
        word: Box<str>,
        more: usize,
    },
    /// Ends with the word, and at least `more` bytes precede.
    Suffix {
        word: Box<str>,
        more: usize,
    },
    /// At least that many bytes: `.*`, `.+`.
    AtLeast(usize),
    Regex(Arc<Regex>),
}

/// A regular expression that does not compile: why, in the words of Go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MatcherError(String);

impl Matcher {
    /// Compiles a matcher. Errors: a regular expression that is malformed or too large.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Matcher, MatcherError> {
        let test = match op {
            MatchOp::Equal | MatchOp::NotEqual => Test::Literal,
            MatchOp::Regex | MatchOp::NotRegex => compile(value).map_err(MatcherError)?,
        };
        Ok(Matcher {
            op,
            name: Arc::from(name),
            value: Arc::from(value),
            test,
        })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Matcher {
        Matcher {
            op: MatchOp::Equal,
            name: Arc::from(name),
            value: Arc::from(value),
            test: Test::Literal,
        }
    }

    /// The operator.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The label's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text on the right.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label of that value (empty: no such label) passes. Cost: linear in `value`.
    pub fn matches(&self, value: &str) -> bool {
        self.matches_positive(value) != self.op.is_negative()
    }

    /// Whether series without the label pass.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// For `=` and for a `=~` that is an alternation of plain words: the only values that can pass, sorted.
    pub fn only_values(&self) -> Option<Vec<&str>> {
        match (self.op, &self.test) {
            (MatchOp::Equal, _) => Some(vec![&self.value]),
            (MatchOp::Regex, Test::Set(words)) => Some(words.iter().map(|w| &**w).collect()),
            _ => None,
        }
    }

    /// For a `=~` that begins with a plain word: that word. Every value that passes starts with it.
    pub fn literal_prefix(&self) -> Option<&str> {
        match (self.op, &self.test) {
            (MatchOp::Regex, Test::Prefix { word, .. }) => Some(word),
            _ => None,
        }
    }

    /// Whether it is a regular expression that has to be run over every value of its label: no alternation of plain words, no plain prefix or suffix.
    pub fn runs_over_values(&self) -> bool {
        matches!(self.test, Test::Regex(_))
    }

    /// Whether it is a regular expression.
    pub fn is_regex(&self) -> bool {
        matches!(self.op, MatchOp::Regex | MatchOp::NotRegex)
    }

    fn matches_positive(&self, value: &str) -> bool {
        match &self.test {
            Test::Literal => *self.value == *value,
            Test::Set(words) => words.binary_search_by(|w| (**w).cmp(value)).is_ok(),
            Test::Prefix { word, more } => {
                value.starts_with(&**word) && value.len() >= word.len() + more
            }
            Test::Suffix { word, more } => {
                value.ends_with(&**word) && value.len() >= word.len() + more
            }
            Test::AtLeast(more) => value.len() >= *more,
            Test::Regex(regex) => regex.is_match(value),
        }
    }
}

fn compile(pattern: &str) -> Result<Test, String> {
    if let Some(test) = without_engine(pattern) {
        return Ok(test);
    }
    re2::anchored(pattern).map(|regex| Test::Regex(Arc::new(regex)))
}

/// What needs no regex engine: words joined by `|`, and a word before or after `.*` or `.+`.
fn without_engine(pattern: &str) -> Option<Test> {
    let plain = |s: &str| {
        !s.contains([
            '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$', '\\',
        ])
    };
    for (wild, more) in [(".*", 0), (".+", 1)] {
        if pattern == wild {
            return Some(Test::AtLeast(more));
        }
        if let Some(word) = pattern.strip_suffix(wild).filter(|w| plain(w)) {
            return Some(Test::Prefix {
                word: word.into(),
                more,
            });
        }
        if let Some(word) = pattern.strip_prefix(wild).filter(|w| plain(w)) {
            return Some(Test::Suffix {
                word: word.into(),
                more,
            });
        }
    }
    let mut words: Vec<Box<str>> = Vec::new();
    for word in pattern.split('|') {
        if !plain(word) {
            return None;
        }
        words.push(word.into());
    }
    words.sort_unstable();
    words.dedup();
    Some(Test::Set(words.into()))
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Matcher) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.op, &self.name, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.symbol(), self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn regex(pattern: &str) -> Matcher {
        Matcher::new(MatchOp::Regex, "x", pattern).unwrap()
    }

    #[test]
    fn regular_expressions_are_anchored_and_the_dot_matches_a_newline() {
        assert!(regex("a.c").matches("a\nc"));
        assert!(regex(".+").matches("a\nb"));
        assert!(!regex("b").matches("abc"));
        assert!(!regex("a|b").matches("ab"));
        assert!(regex("(a|b)+").matches("ab"));
        assert!(regex("(?i:foo)").matches("FOO"));
        assert!(regex("").matches("") && !regex("").matches("x"));
    }

    #[test]
    fn a_malformed_expression_is_named() {
        let error = Matcher::new(MatchOp::Regex, "job", "a)(b")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "error parsing regexp: unexpected ): `a)(b`");
    }

    #[test]
    fn negative_matchers_pass_series_without_the_label() {
        assert!(
            Matcher::new(MatchOp::NotEqual, "x", "a")
                .unwrap()
                .matches_empty()
        );
        assert!(
            !Matcher::new(MatchOp::NotEqual, "x", "")
                .unwrap()
                .matches_empty()
        );
        assert!(
            Matcher::new(MatchOp::NotRegex, "x", "a.*")
                .unwrap()
                .matches_empty()
        );
    }

    #[test]
    fn words_are_offered_to_the_index() {
        assert_eq!(regex("b|a|b").only_values(), Some(vec!["a", "b"]));
        assert_eq!(regex("a.+").literal_prefix(), Some("a"));
        assert_eq!(regex("a.b").only_values(), None);
        assert!(regex("/api/{id}").matches("/api/{id}"));
    }

    proptest! {
        #[test]
        fn fast_paths_answer_as_the_engine_does(
            word in "[a-c/]{0,3}", other in "[a-c]{0,2}", form in 0..6, value in "[a-c/\n]{0,6}",
        ) {
            let pattern = match form {
                0 => format!("{word}.*"),
                1 => format!("{word}.+"),
                2 => format!(".*{word}"),
                3 => format!(".+{word}"),
                4 => format!("{word}|{other}"),
                _ => word.clone(),
            };
            let engine = Regex::new(&format!("^(?s:{pattern})$")).unwrap();
            prop_assert_eq!(regex(&pattern).matches(&value), engine.is_match(&value), "{}", pattern);
        }
    }
}
