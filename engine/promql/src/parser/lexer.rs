//! Text to tokens, in one pass and with the bound on operators.
//!
//! Words are not told apart here (`sum`, `by`, `offset` may be metric names too): the parser decides by place. Numbers, durations
//! and strings are recognised but not evaluated. Source for what is a number or a word: `promql/parser/lex.go`.

use crate::expr::Span;
use crate::parser::{Fault, ParseLimits};

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word; with a colon in it when it can only be a metric's name.
    Word,
    Number,
    Duration,
    /// With its quotes.
    Text,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    /// `=`
    Assign,
    /// `=~`
    Match,
    /// `!~`
    NotMatch,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    EqualEqual,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
    End,
}

impl Kind {
    fn is_operator(self) -> bool {
        matches!(
            self,
            Kind::Add
                | Kind::Sub
                | Kind::Mul
                | Kind::Div
                | Kind::Mod
                | Kind::Pow
                | Kind::EqualEqual
                | Kind::Less
                | Kind::LessEqual
                | Kind::Greater
                | Kind::GreaterEqual
                | Kind::TrimUpper
                | Kind::TrimLower
        )
    }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    parens: usize,
    in_braces: bool,
    in_brackets: bool,
    operators: usize,
    limits: &'a ParseLimits,
    tokens: Vec<Token>,
}

/// All tokens of `text`, the last one [`Kind::End`]. Cost: linear.
pub(super) fn tokens(text: &str, limits: &ParseLimits) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        parens: 0,
        in_braces: false,
        in_brackets: false,
        operators: 0,
        limits,
        tokens: Vec::with_capacity(16),
    };
    while lexer.step()? {}
    Ok(lexer.tokens)
}

fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn fault<T>(&self, start: usize, message: String) -> Result<T, Fault> {
        Err(Fault {
            span: Span::new(start, self.at.max(start + 1)),
            message,
        })
    }

    fn unexpected<T>(&self, place: &str) -> Result<T, Fault> {
        let c = self.text[self.at..].chars().next().unwrap_or('\0');
        self.fault(self.at, format!("unexpected character{place}: {c:?}"))
    }

    /// Names what follows, at the place of the `!`, as Prometheus.
    fn lonely_bang<T>(&self, place: &str) -> Result<T, Fault> {
        let c = self.text[self.at + 1..].chars().next().unwrap_or('\0');
        let message = format!("unexpected character after '!'{place}: {c:?}");
        self.fault(self.at, message)
    }

    fn push(&mut self, kind: Kind, start: usize) -> Result<(), Fault> {
        if kind.is_operator() {
            self.count_operator(start)?;
        }
        self.tokens.push(Token {
            kind,
            span: Span::new(start, self.at),
        });
        Ok(())
    }

    fn count_operator(&mut self, start: usize) -> Result<(), Fault> {
        self.operators += 1;
        if self.operators > self.limits.operators_max {
            return self.fault(
                start,
                format!(
                    "query has more than {} operators",
                    self.limits.operators_max
                ),
            );
        }
        Ok(())
    }

    /// One token, or white space, or a comment. False at the end.
    fn step(&mut self) -> Result<bool, Fault> {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let start = self.at;
        if start >= self.bytes.len() {
            if self.in_braces {
                return self.fault(start, "unexpected end of input inside braces".to_owned());
            }
            if self.in_brackets {
                return self.fault(start, "unclosed left bracket".to_owned());
            }
            if self.parens > 0 {
                return self.fault(start, "unclosed left parenthesis".to_owned());
            }
            self.tokens.push(Token {
                kind: Kind::End,
                span: Span::new(start, start),
            });
            return Ok(false);
        }
        let b = self.peek(0);
        if b == b'#' {
            while !matches!(self.peek(0), b'\n' | b'\r') && self.at < self.bytes.len() {
                self.at += 1;
            }
        } else if b == b'"' || b == b'\'' || b == b'`' {
            self.text_token(b)?;
        } else if self.in_braces {
            self.inside_braces(b)?;
        } else {
            self.outside(b)?;
        }
        Ok(true)
    }

    fn one(&mut self, kind: Kind) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        self.push(kind, start)
    }

    fn two(&mut self, kind: Kind) -> Result<(), Fault> {
        let start = self.at;
        self.at += 2;
        self.push(kind, start)
    }

    fn inside_braces(&mut self, b: u8) -> Result<(), Fault> {
        match (b, self.peek(1)) {
            (b'}', _) => {
                self.in_braces = false;
                self.one(Kind::RightBrace)
            }
            (b'{', _) => self.fault(self.at, "unexpected left brace '{'".to_owned()),
            (b',', _) => self.one(Kind::Comma),
            (b'=', b'~') => self.two(Kind::Match),
            (b'=', _) => self.one(Kind::Assign),
            (b'!', b'~') => self.two(Kind::NotMatch),
            (b'!', b'=') => self.two(Kind::NotEqual),
            (b'!', _) => self.lonely_bang(" inside braces"),
            _ if is_word_start(b) => self.word(false),
            _ => self.unexpected(" inside braces"),
        }
    }

    fn outside(&mut self, b: u8) -> Result<(), Fault> {
        match (b, self.peek(1)) {
            (b',', _) => self.one(Kind::Comma),
            (b'*', _) => self.one(Kind::Mul),
            (b'/', _) => self.one(Kind::Div),
            (b'%', _) => self.one(Kind::Mod),
            (b'+', _) => self.one(Kind::Add),
            (b'-', _) => self.one(Kind::Sub),
            (b'^', _) => self.one(Kind::Pow),
            (b'@', _) => self.one(Kind::At),
            (b'=', b'=') => self.two(Kind::EqualEqual),
            (b'=', b'~') => self.fault(self.at, "unexpected character after '=': '~'".to_owned()),
            (b'=', _) => self.one(Kind::Assign),
            (b'!', b'=') => {
                self.count_operator(self.at)?;
                self.two(Kind::NotEqual)
            }
            (b'!', _) => self.lonely_bang(""),
            (b'<', b'=') => self.two(Kind::LessEqual),
            (b'<', b'/') => self.two(Kind::TrimUpper),
            (b'<', _) => self.one(Kind::Less),
            (b'>', b'=') => self.two(Kind::GreaterEqual),
            (b'>', b'/') => self.two(Kind::TrimLower),
            (b'>', _) => self.one(Kind::Greater),
            (b'(', _) => {
                self.parens += 1;
                self.one(Kind::LeftParen)
            }
            (b')', _) => {
                if self.parens == 0 {
                    // Prometheus reads it first, and names the place behind it.
                    return self.fault(self.at + 1, "unexpected right parenthesis ')'".to_owned());
                }
                self.parens -= 1;
                self.one(Kind::RightParen)
            }
            (b'{', _) => {
                self.in_braces = true;
                self.one(Kind::LeftBrace)
            }
            (b'[', _) => {
                if self.in_brackets {
                    return self.fault(self.at, "unexpected left bracket '['".to_owned());
                }
                self.in_brackets = true;
                self.one(Kind::LeftBracket)
            }
            (b']', _) => {
                if !self.in_brackets {
                    return self.fault(self.at, "unexpected right bracket ']'".to_owned());
                }
                self.in_brackets = false;
                self.one(Kind::RightBracket)
            }
            (b':', _) if self.in_brackets => self.one(Kind::Colon),
            (b'.', d) if d.is_ascii_digit() => self.number(),
            _ if b.is_ascii_digit() => self.number(),
            _ if is_word_start(b) || b == b':' => self.word(!self.in_brackets),
            _ => self.unexpected(""),
        }
    }

    fn word(&mut self, colons: bool) -> Result<(), Fault> {
        let start = self.at;
        while is_word(self.peek(0)) || (colons && self.peek(0) == b':') {
            self.at += 1;
        }
        let word = &self.text[start..self.at];
        let kind = if !self.in_braces
            && (word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan"))
        {
            Kind::Number
        } else {
            if !self.in_braces
                && ["and", "or", "unless", "atan2"]
                    .iter()
                    .any(|w| word.eq_ignore_ascii_case(w))
            {
                self.count_operator(start)?;
            }
            Kind::Word
        };
        self.push(kind, start)
    }

    /// A number or a duration: what follows the digits decides.
    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.scan_number() {
            return self.push(Kind::Number, start);
        }
        self.at = start;
        if self.scan_duration() {
            return self.push(Kind::Duration, start);
        }
        while is_word(self.peek(0)) || self.peek(0) == b'.' {
            self.at += 1;
        }
        let shown: String = self.text[start..self.at].chars().take(40).collect();
        self.fault(start, format!("bad number or duration syntax: {shown:?}"))
    }

    fn scan_number(&mut self) -> bool {
        if self.peek(0) == b'0' && matches!(self.peek(1), b'x' | b'X') {
            self.at += 2;
            let digits = self.at;
            while self.peek(0).is_ascii_hexdigit() || self.peek(0) == b'_' {
                self.at += 1;
            }
            return self.at > digits && !is_word(self.peek(0)) && self.peek(0) != b'.';
        }
        let mut dot = false;
        loop {
            match self.peek(0) {
                b'0'..=b'9' => {}
                b'_' if self.peek(1).is_ascii_digit() => {}
                b'.' if !dot && self.peek(1) != b'.' => dot = true,
                b'e' | b'E' => {
                    let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
                    if !self.peek(1 + sign).is_ascii_digit() {
                        return false;
                    }
                    self.at += 1 + sign;
                    while self.peek(0).is_ascii_digit() {
                        self.at += 1;
                    }
                    break;
                }
                _ => break,
            }
            self.at += 1;
        }
        !is_word(self.peek(0)) && self.peek(0) != b'.'
    }

    fn scan_duration(&mut self) -> bool {
        loop {
            let digits = self.at;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
            if self.at == digits {
                return false;
            }
            match (self.peek(0), self.peek(1)) {
                (b'm', b's') => self.at += 2,
                (b's' | b'm' | b'h' | b'd' | b'w' | b'y', _) => self.at += 1,
                _ => return false,
            }
            if !is_word(self.peek(0)) {
                return true;
            }
        }
    }

    fn text_token(&mut self, quote: u8) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        loop {
            if self.at >= self.bytes.len() {
                let message = if quote == b'`' {
                    "unterminated raw string"
                } else {
                    "unterminated quoted string"
                };
                return self.fault(start, message.to_owned());
            }
            match self.peek(0) {
                b if b == quote => break,
                b'\n' if quote != b'`' => {
                    return self.fault(start, "unterminated quoted string".to_owned());
                }
                b'\\' if quote != b'`' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.push(Kind::Text, start)
    }
}
