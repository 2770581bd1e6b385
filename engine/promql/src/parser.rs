//! Text to tree: a hand-written parser, linear in the text and bounded in depth.
//!
//! 1. `lexer` cuts the text into tokens (operators counted and bounded there).
//! 2. This file climbs precedences over the tokens; `primary` reads what is no operator and the modifiers behind it;
//!    `duration` the arithmetic within brackets and behind `offset`; `literal` evaluates numbers, durations and strings.
//! 3. `check` holds every node to its types, in Prometheus' words, as soon as its children are there; so a tree that exists is well typed.
//!
//! The language is that of Prometheus 3 with every experimental part: duration expressions, `anchored` and `smoothed`, `fill`,
//! quoted UTF-8 names, histogram trimming. Keywords are words like others wherever the grammar leaves no doubt
//! (`sum` alone is a metric). Recursion happens in `Parser::binary` only, which counts its depth.

mod check;
mod duration;
mod lexer;
mod literal;
mod primary;

pub(crate) use self::duration::to_milliseconds;
use crate::limits::ParseLimits;

use model::Matcher;

use self::lexer::{Kind, Token, tokens};
use crate::error::ParseError;
use crate::expr::{Binary, BinaryOp, Cardinality, Expr, ExprKind, Matching, Span};
use crate::functions::Edges;
use crate::limits::LENGTH_CEILING;

/// A parse error before its place is put into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Fault {
        Fault {
            span,
            message: message.into(),
        }
    }
}

/// Parses a query within the default limits.
///
/// Errors: as Prometheus words them, with the place. Cost: linear in the text.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    parse_within(text, &ParseLimits::default())
}

/// Parses a query within given limits.
pub fn parse_within(text: &str, limits: &ParseLimits) -> Result<Expr, ParseError> {
    with_parser(text, limits, |parser| {
        if parser.peek() == Kind::End {
            return Err(Fault::new(Span::default(), "no expression found in input"));
        }
        parser.binary(0)
    })
}

/// Parses what stands in `match[]`: one selector without modifiers. As in Prometheus less is checked than in a query: it may match everything
/// (which is up to the caller to refuse) and have further matchers for the metric's name.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    with_parser(text, &ParseLimits::default(), |parser| {
        parser.open_selectors = true;
        parser.names_again = true;
        let expr = parser.binary(0)?;
        match expr.kind {
            ExprKind::Selector(selector)
                if selector.shift.offset.is_none()
                    && selector.shift.at.is_none()
                    && selector.edges == Edges::Plain =>
            {
                Ok(selector.matchers)
            }
            _ => Err(Fault::new(expr.span, "expected a series selector")),
        }
    })
}

fn with_parser<T>(
    text: &str,
    limits: &ParseLimits,
    run: impl FnOnce(&mut Parser<'_>) -> Result<T, Fault>,
) -> Result<T, ParseError> {
    let length_max = limits.length_max.min(LENGTH_CEILING);
    if text.len() > length_max {
        return Err(ParseError {
            place: "1:1".to_owned(),
            message: format!(
                "query is {} bytes long, more than the {length_max} allowed",
                text.len()
            ),
        });
    }
    let parsed = tokens(text, limits).and_then(|tokens| {
        let mut parser = Parser {
            text,
            tokens,
            at: 0,
            depth: 0,
            open_selectors: false,
            names_again: false,
            limits,
        };
        let value = run(&mut parser)?;
        match parser.peek() {
            Kind::End => Ok(value),
            _ => parser.unexpected("", ""),
        }
    });
    parsed.map_err(|fault| ParseError {
        place: fault.span.place(text),
        message: fault.message,
    })
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Selectors that match everything are let through.
    open_selectors: bool,
    /// A selector may have both a name in front and matchers for the name.
    names_again: bool,
    limits: &'a ParseLimits,
}

impl<'a> Parser<'a> {
    fn token(&self) -> Token {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn peek(&self) -> Kind {
        self.token().kind
    }

    fn peek_second(&self) -> Kind {
        self.tokens
            .get(self.at + 1)
            .map_or(Kind::End, |token| token.kind)
    }

    fn take(&mut self) -> Token {
        let token = self.token();
        self.at += 1;
        token
    }

    fn accept(&mut self, kind: Kind) -> bool {
        let found = self.peek() == kind;
        if found {
            self.at += 1;
        }
        found
    }

    fn slice(&self, span: Span) -> &'a str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// The word that comes next, lower case if it is one; keywords have no case.
    fn word(&self) -> Option<&'a str> {
        let token = self.token();
        (token.kind == Kind::Word).then(|| self.slice(token.span))
    }

    fn is_word(&self, word: &str) -> bool {
        self.word().is_some_and(|w| w.eq_ignore_ascii_case(word))
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.at += 1;
        }
        found
    }

    /// Where the last taken token ends.
    fn last_end(&self) -> usize {
        self.tokens[self.at - 1].span.end as usize
    }

    fn span_from(&self, start: usize) -> Span {
        Span::new(start, self.last_end())
    }

    /// The error for a token that fits nowhere.
    fn unexpected<T>(&self, context: &str, expected: &str) -> Result<T, Fault> {
        let token = self.token();
        let shown =
            |limit: usize| -> String { self.slice(token.span).chars().take(limit).collect() };
        let mut message = "unexpected ".to_owned();
        match token.kind {
            Kind::End => message.push_str("end of input"),
            Kind::Number => message.push_str(&format!("number {:?}", shown(40))),
            Kind::Duration => message.push_str(&format!("duration {:?}", shown(40))),
            Kind::Text => message.push_str(&format!("string {:?}", shown(10))),
            Kind::Word => message.push_str(&describe_word(&shown(200))),
            Kind::LeftParen
            | Kind::RightParen
            | Kind::LeftBrace
            | Kind::RightBrace
            | Kind::LeftBracket
            | Kind::RightBracket
            | Kind::Comma
            | Kind::Colon
            | Kind::Assign => message.push_str(&format!("{:?}", shown(10))),
            _ => message.push_str(&format!("<op:{}>", shown(10))),
        }
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        Err(Fault::new(token.span, message))
    }

    fn expect(&mut self, kind: Kind, context: &str, expected: &str) -> Result<Token, Fault> {
        if self.peek() == kind {
            Ok(self.take())
        } else {
            self.unexpected(context, expected)
        }
    }

    /// Operators of at least `precedence`, and their operands.
    fn binary(&mut self, precedence: u8) -> Result<Expr, Fault> {
        self.depth += 1;
        if self.depth > self.limits.nesting_max {
            return Err(Fault::new(
                self.token().span,
                format!(
                    "query is nested deeper than {} levels",
                    self.limits.nesting_max
                ),
            ));
        }
        let mut left = self.unary()?;
        while let Some(op) = self.operator() {
            if op.precedence() < precedence {
                break;
            }
            let op_span = self.take().span;
            let (returns_bool, matching) = self.modifiers()?;
            // `^` is right associative, all others left.
            let next = op.precedence() + u8::from(op != BinaryOp::Pow);
            let right = self.binary(next)?;
            let span = Span {
                start: left.span.start,
                end: right.span.end,
            };
            left = check::binary(
                span,
                op_span,
                Binary {
                    op,
                    returns_bool,
                    left,
                    right,
                    matching,
                },
            )?;
        }
        self.depth -= 1;
        Ok(left)
    }

    /// The binary operator that comes next, not taken.
    fn operator(&self) -> Option<BinaryOp> {
        Some(match self.peek() {
            Kind::Add => BinaryOp::Add,
            Kind::Sub => BinaryOp::Sub,
            Kind::Mul => BinaryOp::Mul,
            Kind::Div => BinaryOp::Div,
            Kind::Mod => BinaryOp::Mod,
            Kind::Pow => BinaryOp::Pow,
            Kind::EqualEqual => BinaryOp::Eq,
            Kind::NotEqual => BinaryOp::Ne,
            Kind::Less => BinaryOp::Lt,
            Kind::LessEqual => BinaryOp::Le,
            Kind::Greater => BinaryOp::Gt,
            Kind::GreaterEqual => BinaryOp::Ge,
            Kind::TrimUpper => BinaryOp::TrimUpper,
            Kind::TrimLower => BinaryOp::TrimLower,
            Kind::Word => match self.word().map(str::to_ascii_lowercase).as_deref() {
                Some("and") => BinaryOp::And,
                Some("or") => BinaryOp::Or,
                Some("unless") => BinaryOp::Unless,
                Some("atan2") => BinaryOp::Atan2,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Signs, which bind like `*` and so reach over `^`.
    fn unary(&mut self) -> Result<Expr, Fault> {
        let start = self.token().span.start as usize;
        let negative = match self.peek() {
            Kind::Sub => true,
            Kind::Add => false,
            _ => return self.primary(),
        };
        self.take();
        let expr = self.binary(BinaryOp::Pow.precedence())?;
        let span = self.span_from(start);
        check::unary(span, negative, expr)
    }

    /// `bool`, `on`, `ignoring`, `group_left`, `group_right` and `fill`.
    fn modifiers(&mut self) -> Result<(bool, Matching), Fault> {
        let mut matching = Matching::default();
        // A metric may be called `bool`, but then it has to stand in braces.
        let returns_bool = self.accept_word("bool");
        let on = self.is_word("on");
        if on || self.is_word("ignoring") {
            self.take();
            matching.on = on;
            matching.given = true;
            matching.labels = self.label_list()?;
            let left = self.is_word("group_left");
            if left || self.is_word("group_right") {
                self.take();
                matching.cardinality = if left {
                    Cardinality::ManyToOne
                } else {
                    Cardinality::OneToMany
                };
                if self.peek() == Kind::LeftParen {
                    matching.include = self.label_list()?;
                }
            }
        }
        while let (Some(word), Kind::LeftParen) = (self.word(), self.peek_second()) {
            let word = word.to_ascii_lowercase();
            if !matches!(word.as_str(), "fill" | "fill_left" | "fill_right") {
                break;
            }
            let span = self.take().span;
            let value = Some(self.fill_value()?);
            let twice = match word.as_str() {
                "fill_left" => matching.fill_left.is_some(),
                "fill_right" => matching.fill_right.is_some(),
                _ => matching.fill_left.is_some() || matching.fill_right.is_some(),
            };
            if twice {
                return Err(Fault::new(
                    span,
                    format!("unexpected <{word}>: given twice"),
                ));
            }
            if word != "fill_right" {
                matching.fill_left = value;
            }
            if word != "fill_left" {
                matching.fill_right = value;
            }
        }
        Ok((returns_bool, matching))
    }

    fn fill_value(&mut self) -> Result<f64, Fault> {
        self.expect(Kind::LeftParen, "fill modifier", "\"(\"")?;
        let value = self.signed_number("fill modifier", "number")?;
        self.expect(Kind::RightParen, "fill modifier", "\")\"")?;
        Ok(value)
    }

    /// `(a, b, "c d")`, a trailing comma allowed.
    fn label_list(&mut self) -> Result<Vec<String>, Fault> {
        let context = "grouping opts";
        self.expect(Kind::LeftParen, context, "\"(\"")?;
        let mut labels = Vec::new();
        loop {
            if self.accept(Kind::RightParen) {
                return Ok(labels);
            }
            let token = self.token();
            match token.kind {
                Kind::Word if !self.slice(token.span).contains(':') => {
                    labels.push(self.slice(token.span).to_owned());
                }
                // `inf` and `nan` are labels too.
                Kind::Number
                    if self
                        .slice(token.span)
                        .starts_with(|c: char| c.is_alphabetic()) =>
                {
                    labels.push(self.slice(token.span).to_owned());
                }
                Kind::Text => {
                    let label = self.text_of(token)?;
                    if label.is_empty() {
                        return Err(Fault::new(
                            token.span,
                            "invalid label name for grouping: \"\"",
                        ));
                    }
                    labels.push(label);
                }
                _ => return self.unexpected(context, "label"),
            }
            self.take();
            if self.peek() != Kind::RightParen {
                self.expect(Kind::Comma, context, "\",\" or \")\"")?;
            }
        }
    }
}

/// A word as an error names it.
fn describe_word(word: &str) -> String {
    const KEYWORDS: [&str; 10] = [
        "offset",
        "smoothed",
        "anchored",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "bool",
    ];
    let lower = word.to_ascii_lowercase();
    if KEYWORDS.contains(&lower.as_str()) {
        format!("<{word}>")
    } else if matches!(lower.as_str(), "and" | "or" | "unless" | "atan2") {
        format!("<op:{word}>")
    } else if crate::aggregate::AggregateOp::by_name(word).is_some() {
        format!("<aggr:{word}>")
    } else if word.contains(':') {
        format!("metric identifier {word:?}")
    } else {
        format!("identifier {word:?}")
    }
}

#[cfg(test)]
pub(crate) mod generated;
#[cfg(test)]
mod tests;
