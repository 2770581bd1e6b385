//! Regular expressions as Go has them (RE2's syntax with Perl's classes), brought into the syntax of the `regex` crate.
//!
//! The two look alike and differ where users notice: `\d`, `\w`, `\s` and `\b` know ASCII only in Go; a `{` that begins no repetition stands for
//! itself (`/api/{id}/.*`), and so do `[`, `&&`, `--` and `~~` within a class, which the crate takes for nested classes and set operations;
//! `\<` is a `<`; there are `\Q..\E` and octal escapes. What Go refuses is refused here, in its words: `a**`, `a{1001}`, `(?x)`, `\u`.
//!
//! One pass over the text, which keeps everything else as it is; the crate has the last word. Source: Go `regexp/syntax/parse.go`.

use regex::{Captures, Regex, RegexBuilder};

/// Compiled programs above this many bytes are refused; the default of the `regex` crate, said here so that it is ours.
const REGEX_SIZE_MAX: usize = 10 << 20;

/// A repetition may ask for that many at most.
const REPEAT_MAX: u32 = 1000;

/// Compiles an expression that has to match the whole of a text, and in which `.` matches a newline too.
///
/// Errors: `error parsing regexp: missing closing ): ...` and the like.
pub fn anchored(pattern: &str) -> Result<Regex, String> {
    build(pattern, |translated| format!("^(?s:{translated})$"))
}

/// Compiles an expression that may match anywhere in a text, as Go's `MatchString` looks for it.
///
/// Errors: as [`anchored`].
pub fn anywhere(pattern: &str) -> Result<Regex, String> {
    build(pattern, |translated| format!("(?:{translated})"))
}

fn build(pattern: &str, whole: fn(String) -> String) -> Result<Regex, String> {
    let translated = translate(pattern).map_err(|e| format!("error parsing regexp: {e}"))?;
    RegexBuilder::new(&whole(translated))
        .size_limit(REGEX_SIZE_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                "error parsing regexp: expression nests too deeply or is too large".to_owned()
            }
            error => format!("error parsing regexp: {error}"),
        })
}

/// Appends a template with `$1`, `$name`, `${1}` and `${name}` replaced by what the groups matched, nothing where there is no such group.
///
/// As Go: a name is the longest run of letters, digits and `_`; a number has no leading zero; `$$` is a `$`, and so is one that no name follows.
pub fn expand(captures: &Captures<'_>, template: &str, out: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('{');
        let text = inner.unwrap_or(rest);
        let part = |c: char| c == '_' || c.is_alphanumeric();
        let name = &text[..text.find(|c| !part(c)).unwrap_or(text.len())];
        let after = &text[name.len()..];
        let after = match inner {
            Some(_) => after.strip_prefix('}'),
            None => Some(after),
        };
        let Some(after) = after.filter(|_| !name.is_empty()) else {
            out.push('$');
            continue;
        };
        rest = after;
        let is_number = name.bytes().all(|b| b.is_ascii_digit());
        let group = match is_number && (name.len() == 1 || !name.starts_with('0')) {
            true => name.parse().ok().and_then(|number| captures.get(number)),
            false => captures.name(name),
        };
        out.push_str(group.map_or("", |group| group.as_str()));
    }
    out.push_str(rest);
}

/// What stands before a place, as far as a repetition there is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing that could be repeated.
    Nothing,
    /// Something that can.
    Atom,
    /// A repetition, which begins at this byte and cannot be repeated.
    Repetition(usize),
}

struct Translation<'t> {
    text: &'t str,
    /// Byte of the next character.
    at: usize,
    out: String,
    before: Before,
    open_groups: usize,
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut translation = Translation {
        text: pattern,
        at: 0,
        out: String::with_capacity(pattern.len() + 16),
        before: Before::Nothing,
        open_groups: 0,
    };
    while translation.at < pattern.len() {
        translation.step()?;
    }
    match translation.open_groups {
        0 => Ok(translation.out),
        _ => Err(format!("missing closing ): `{pattern}`")),
    }
}

impl<'t> Translation<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Takes the text if it comes next.
    fn take(&mut self, text: &str) -> bool {
        let comes = self.rest().starts_with(text);
        self.at += if comes { text.len() } else { 0 };
        comes
    }

    /// The text from a byte to where the pass stands, with what is wrong about it.
    fn wrong<T>(&self, what: &str, from: usize) -> Result<T, String> {
        Err(format!("{what}: `{}`", &self.text[from..self.at]))
    }

    /// A character that stands for itself, within a class or outside.
    fn put_literal(&mut self, c: char) {
        if c.is_alphanumeric() {
            self.out.push(c);
        } else {
            self.out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
        }
    }

    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.before = Before::Atom;
    }

    fn step(&mut self) -> Result<(), String> {
        let start = self.at;
        match self.next().expect("there is more") {
            '(' => self.group(start),
            ')' if self.open_groups == 0 => Err(format!("unexpected ): `{}`", self.text)),
            ')' => {
                self.open_groups -= 1;
                self.atom(")");
                Ok(())
            }
            '|' => {
                self.out.push('|');
                self.before = Before::Nothing;
                Ok(())
            }
            c @ ('*' | '+' | '?') => {
                self.out.push(c);
                self.repetition(start)
            }
            '{' => match self.counts()? {
                true => self.repetition(start),
                false => {
                    self.literal('{');
                    Ok(())
                }
            },
            '[' => self.class(start),
            '\\' => self.escape(start),
            c @ ('.' | '^' | '$') => {
                self.out.push(c);
                self.before = Before::Atom;
                Ok(())
            }
            c => {
                self.literal(c);
                Ok(())
            }
        }
    }

    fn literal(&mut self, c: char) {
        self.put_literal(c);
        self.before = Before::Atom;
    }

    /// The operator itself has been taken and put; it began at `start`.
    fn repetition(&mut self, start: usize) -> Result<(), String> {
        let end = self.at;
        if self.take("?") {
            self.out.push('?');
        }
        match self.before {
            Before::Nothing => {
                self.at = end;
                self.wrong("missing argument to repetition operator", start)
            }
            Before::Repetition(first) => self.wrong("invalid nested repetition operator", first),
            Before::Atom => {
                self.before = Before::Repetition(start);
                Ok(())
            }
        }
    }

    /// Behind a `{`: takes and puts `n}`, `n,}` or `n,m}` and tells that it is one; else takes nothing.
    fn counts(&mut self) -> Result<bool, String> {
        let (start, Some(end)) = (self.at - 1, self.rest().find('}')) else {
            return Ok(false);
        };
        let inner = &self.rest()[..end];
        let (least, most) = match inner.split_once(',') {
            None => (inner, Some(inner)),
            Some((least, "")) => (least, None),
            Some((least, most)) => (least, Some(most)),
        };
        let is_count = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_digit())
                && (text.len() == 1 || !text.starts_with('0'))
        };
        if !is_count(least) || !most.is_none_or(is_count) {
            return Ok(false);
        }
        self.at += end + 1;
        let count = |text: &str| text.parse().unwrap_or(u32::MAX);
        let (low, high) = (count(least), most.map_or(count(least), count));
        if low > REPEAT_MAX || high > REPEAT_MAX || low > high {
            return self.wrong("invalid repeat count", start);
        }
        self.out.push_str(&self.text[start..self.at]);
        Ok(true)
    }

    /// `(`, `(?i:`, `(?i)`, `(?P<name>`, `(?<name>`.
    fn group(&mut self, start: usize) -> Result<(), String> {
        if !self.take("?") {
            self.out.push('(');
            self.open_groups += 1;
            self.before = Before::Nothing;
            return Ok(());
        }
        if self.take("P") || self.peek() == Some('<') {
            let named = self.take("<");
            let name = self.rest().split('>').next().unwrap_or_default();
            let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
            // `(?<=` and `(?<!` look behind.
            if !named && self.text[..self.at].ends_with('P') || !name.chars().all(word) {
                self.next();
                return self.wrong("invalid named capture", start);
            }
            if name.is_empty() || name.len() == self.rest().len() {
                self.at = self.text.len();
                return self.wrong("invalid named capture", start);
            }
            self.at += name.len() + 1;
            self.out.push_str(&format!("(?P<{name}>"));
            self.open_groups += 1;
            self.before = Before::Nothing;
            return Ok(());
        }
        loop {
            match self.next() {
                Some('i' | 'm' | 's' | 'U' | '-') => {}
                Some(':') => {
                    self.open_groups += 1;
                    break;
                }
                Some(')') if self.at > start + 3 => break,
                None => return Err(format!("missing closing ): `{}`", self.text)),
                Some(_) => return self.wrong("invalid or unsupported Perl syntax", start),
            }
        }
        self.out.push_str(&self.text[start..self.at]);
        self.before = Before::Nothing;
        Ok(())
    }

    /// Behind a `\` outside of a class.
    fn escape(&mut self, start: usize) -> Result<(), String> {
        if self.take("Q") {
            let quoted = self.rest().split("\\E").next().unwrap_or_default();
            self.at = (self.at + quoted.len() + 2).min(self.text.len());
            quoted.chars().for_each(|c| self.literal(c));
            return Ok(());
        }
        for (name, text) in [
            ("A", r"\A"),
            ("z", r"\z"),
            ("b", r"(?-u:\b)"),
            ("B", r"(?-u:\B)"),
        ] {
            if self.take(name) {
                self.atom(text);
                return Ok(());
            }
        }
        if let Some(class) = self.perl_class() {
            self.atom(class);
            return Ok(());
        }
        if self.property(start)? {
            self.before = Before::Atom;
            return Ok(());
        }
        let c = self.escaped(start)?;
        self.literal(c);
        Ok(())
    }

    /// `\d` and its kin, which are those of ASCII.
    fn perl_class(&mut self) -> Option<&'static str> {
        let class = match self.peek()? {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            's' => r"[\t\n\x0C\r ]",
            'S' => r"[^\t\n\x0C\r ]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            _ => return None,
        };
        self.at += 1;
        Some(class)
    }

    /// `\pL`, `\p{Greek}`, `\P{^Greek}`: takes and puts it, if it is one.
    fn property(&mut self, start: usize) -> Result<bool, String> {
        let Some(sign @ ('p' | 'P')) = self.peek() else {
            return Ok(false);
        };
        self.at += 1;
        let range = "invalid character class range";
        let Some(first) = self.next() else {
            return self.wrong(range, start);
        };
        let mut name = &self.text[self.at - first.len_utf8()..self.at];
        if first == '{' {
            let Some(end) = self.rest().find('}') else {
                self.at = self.text.len();
                return self.wrong(range, start);
            };
            name = &self.rest()[..end];
            self.at += end + 1;
        }
        let (name, negated) = match name.strip_prefix('^') {
            Some(name) => (name, sign == 'p'),
            None => (name, sign == 'P'),
        };
        if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphabetic()) {
            return self.wrong(range, start);
        }
        let sign = if negated { 'P' } else { 'p' };
        self.out.push_str(&format!("\\{sign}{{{name}}}"));
        Ok(true)
    }

    /// Behind a `\`: the one character that is meant.
    fn escaped(&mut self, start: usize) -> Result<char, String> {
        let Some(c) = self.next() else {
            return Err("trailing backslash at end of expression: ``".to_owned());
        };
        let is_octal = |c: Option<char>| c.is_some_and(|c| c.is_digit(8));
        let code = match c {
            // A single digit but 0 would be a reference back.
            '1'..='7' if !is_octal(self.peek()) => None,
            '0'..='7' => {
                let mut code = u32::from(c) - u32::from('0');
                for _ in 0..2 {
                    if is_octal(self.peek()) {
                        let digit = self.next().expect("it was peeked at");
                        code = code * 8 + u32::from(digit) - u32::from('0');
                    }
                }
                Some(code)
            }
            'x' => self.hexadecimal(),
            'a' => Some(7),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            c if c.is_ascii_punctuation() || c == ' ' => Some(u32::from(c)),
            _ => None,
        };
        match code.and_then(char::from_u32) {
            Some(c) => Ok(c),
            None => self.wrong("invalid escape sequence", start),
        }
    }

    /// Behind `\x`: two digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let digits = match self.take("{") {
            true => {
                let end = self.rest().find('}')?;
                let digits = &self.rest()[..end];
                self.at += end + 1;
                digits
            }
            false => {
                let digits = self.rest().get(..2)?;
                self.at += 2;
                digits
            }
        };
        let valid = digits.bytes().all(|b| b.is_ascii_hexdigit());
        valid.then(|| u32::from_str_radix(digits, 16).ok())?
    }

    /// Behind a `[`.
    fn class(&mut self, start: usize) -> Result<(), String> {
        self.out.push('[');
        if self.take("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            match self.peek() {
                None => return Err(format!("missing closing ]: `{}`", &self.text[start..])),
                Some(']') if !first => break,
                Some(_) => self.class_item(start)?,
            }
            first = false;
        }
        self.at += 1;
        self.atom("]");
        Ok(())
    }

    /// A named class, an escaped class, a range or a character.
    fn class_item(&mut self, class: usize) -> Result<(), String> {
        let start = self.at;
        if self.rest().starts_with("[:")
            && let Some(end) = self.rest().find(":]")
        {
            self.at += end + 2;
            const NAMES: [&str; 14] = [
                "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print",
                "punct", "space", "upper", "word", "xdigit",
            ];
            let named = &self.text[start..self.at];
            let name = named[2..named.len() - 2].trim_start_matches('^');
            if !NAMES.contains(&name) {
                return self.wrong("invalid character class range", start);
            }
            self.out.push_str(named);
            return Ok(());
        }
        if self.take("\\") {
            if let Some(class) = self.perl_class() {
                self.out.push_str(class);
                return Ok(());
            }
            if self.property(start)? {
                return Ok(());
            }
            self.at = start;
        }
        let low = self.class_char(class)?;
        let is_range = self.rest().starts_with('-')
            && self.rest()[1..].chars().next().is_some_and(|c| c != ']');
        self.put_literal(low);
        if is_range {
            self.at += 1;
            let high = self.class_char(class)?;
            if high < low {
                return self.wrong("invalid character class range", start);
            }
            self.out.push('-');
            self.put_literal(high);
        }
        Ok(())
    }

    fn class_char(&mut self, class: usize) -> Result<char, String> {
        let start = self.at;
        match self.next() {
            Some('\\') => self.escaped(start),
            Some(c) => Ok(c),
            None => Err(format!("missing closing ]: `{}`", &self.text[class..])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(pattern: &str, yes: &[&str], no: &[&str]) {
        let regex = anchored(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        for text in yes {
            assert!(regex.is_match(text), "{pattern} matches {text:?}");
        }
        for text in no {
            assert!(!regex.is_match(text), "{pattern} does not match {text:?}");
        }
    }

    /// Story: found by giving both engines the same expressions and a real Prometheus the last word.
    #[test]
    fn what_go_takes_means_what_it_means_there() {
        matches(r"\d", &["5"], &["\u{663}", "a"]);
        matches(r"\D", &["\u{663}"], &["5"]);
        matches(r"\w+", &["a_1"], &["é", "日本", "σ"]);
        matches(r"\W", &["é"], &["a"]);
        matches(r"\s", &[" ", "\t"], &["\u{a0}", "\u{b}"]);
        matches(r"[\d_]+|[^\D]", &["5_"], &["\u{663}"]);
        matches(r".*\bb", &["é b", "éb"], &["ab"]);
        matches(r"a\Bb", &["ab"], &["a b"]);
        matches("/api/{id}/.*", &["/api/{id}/x"], &["/api/1/x"]);
        matches("a{|a{2|a{,2}|{}", &["a{", "a{2", "a{,2}", "{}"], &["aa"]);
        matches("a{01}", &["a{01}"], &["a"]);
        matches("a{2}b{1,}c{0,1}", &["aab", "aabbc"], &["ab"]);
        matches("[[]", &["["], &["a"]);
        matches("[]a]|[^]b]", &["]", "a", "c"], &["b"]);
        matches("[a&&b]+", &["a&b"], &["c"]);
        matches("[~~]|[&-~]", &["~", "a"], &["!"]);
        matches("[a-]|[-b]|[+-]", &["a", "-", "b", "+"], &["c"]);
        matches(r"[a\-b]", &["a", "-", "b"], &["c"]);
        matches("[[=a=]]", &["a]", "=]", "[]"], &["a"]);
        matches("[[:alpha:]_[:^ascii:]]", &["a", "_", "é"], &["1"]);
        matches(r"x\<y\>", &["x<y>"], &["xy"]);
        matches(r"\Qa.b(\E+", &["a.b(((", "a.b("], &["axb("]);
        matches(r"\Qa.b", &["a.b"], &["axb"]);
        matches(r"\101\x42\x{43}\012", &["ABC\n"], &["abc"]);
        matches(r"\p{Greek}\pL\P{Greek}\p{^Greek}", &["σab1"], &["abc1"]);
        matches("(?i)foo|(?-i:bar)", &["FOO", "bar"], &["Bar"]);
        matches("(?i:K)", &["k", "\u{212a}"], &["j"]);
        matches("(?P<a>x)(?<b>y)", &["xy"], &["x"]);
        matches("a.c|^d$|()|e|", &["a\nc", "d", "", "e"], &["f"]);
        matches("(?U)a*?b", &["aab"], &["c"]);
        matches(r"\.\-\/\ \}", &[".-/ }"], &["x"]);
        matches("日本+ ", &["日本本 "], &["日 "]);
    }

    #[test]
    fn templates_are_filled_in_as_go_does() {
        let regex = anchored("(?P<n>.)(.)(x)?").unwrap();
        let captures = regex.captures("ab").unwrap();
        for (template, wanted) in [
            ("$1-$2-$0", "a-b-ab"),
            ("${1}x$1x$n.${n}", "axa.a"),
            ("$3$4$9${nope}|", "|"),
            ("$$1 $ ${ ${1 ${} ${-1} $-", "$1 $ ${ ${1 ${} ${-1} $-"),
            ("$01$\u{661}|", "|"),
            ("é$", "é$"),
        ] {
            let mut out = String::new();
            expand(&captures, template, &mut out);
            assert_eq!(out, wanted, "{template}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_in_its_words() {
        for (pattern, wanted) in [
            ("a**", "invalid nested repetition operator: `**`"),
            ("a*+b", "invalid nested repetition operator: `*+`"),
            ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("a{99999999999}", "invalid repeat count: `{99999999999}`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("a|+b", "missing argument to repetition operator: `+`"),
            ("({1})", "missing argument to repetition operator: `{1}`"),
            ("(a", "missing closing ): `(a`"),
            ("a)(b", "unexpected ): `a)(b`"),
            ("x[a", "missing closing ]: `[a`"),
            ("[]", "missing closing ]: `[]`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("[a--b]", "invalid character class range: `a--`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?)", "invalid or unsupported Perl syntax: `(?)`"),
            (r"\u0041", r"invalid escape sequence: `\u`"),
            (r"\1", r"invalid escape sequence: `\1`"),
            (r"\C", r"invalid escape sequence: `\C`"),
            (r"\x{110000}", r"invalid escape sequence: `\x{110000}`"),
            (r"\xg", r"invalid escape sequence: `\x`"),
            (r"a\", "trailing backslash at end of expression: ``"),
            (r"\p{}", r"invalid character class range: `\p{}`"),
        ] {
            let error = anchored(pattern).unwrap_err();
            assert_eq!(error, format!("error parsing regexp: {wanted}"));
        }
        assert!(anchored("(?P<").is_err() && anchored("(?P=a)").is_err());
        assert!(anchored("(?<=a)b").is_err() && anchored(r"\p{Foo}").is_err());
        assert!(anchored("((a{100}){100}){100}").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_compiled_or_refused(pattern in r"[\[\](){}|*+?^$\\a-cdwsbQEp0-9,:&~<>é.-]{0,12}") {
            let _ = anchored(&pattern);
        }

        /// A quoted text matches itself and nothing else.
        #[test]
        fn a_quoted_text_is_itself(text in "[^\\\\]{0,8}") {
            let regex = anchored(&format!("\\Q{text}\\E")).unwrap();
            proptest::prop_assert!(regex.is_match(&text));
            let longer = format!("{text}x");
            proptest::prop_assert!(!regex.is_match(&longer));
        }
    }
}
