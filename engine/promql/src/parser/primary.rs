//! What is no operator: literals, selectors, calls, aggregations, parentheses, and the modifiers behind them.

use model::{METRIC_NAME, MatchOp, Matcher};

use super::lexer::Kind;
use super::{Fault, Parser, check};
use crate::aggregate::AggregateOp;
use crate::expr::{
    Aggregate, At, Duration, Expr, ExprKind, Grouping, Number, Selector, Shift, Span, Subquery,
};
use crate::functions::{self as function, Edges, EngineFunction, Function, lookup};

/// Words that cannot be the name of a metric outside of braces.
const RESERVED: [&str; 5] = ["bool", "on", "ignoring", "group_left", "group_right"];

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Result<Expr, Fault> {
        let token = self.token();
        let start = token.span.start as usize;
        let kind = match token.kind {
            Kind::LeftParen => {
                self.take();
                let inner = self.binary(0)?;
                self.expect(Kind::RightParen, "", "")?;
                ExprKind::Paren(Box::new(inner))
            }
            Kind::Number | Kind::Duration => ExprKind::Number(self.number_or_duration()?),
            Kind::Text => {
                self.take();
                ExprKind::String(self.text_of(token)?)
            }
            Kind::LeftBrace => ExprKind::Selector(self.selector(None)?),
            Kind::Word => {
                return self.worded();
            }
            _ => return self.unexpected("", ""),
        };
        let span = self.span_from(start);
        self.postfix(Expr { span, kind })
    }

    /// A call, an aggregation or a metric's name: what follows the word decides.
    fn worded(&mut self) -> Result<Expr, Fault> {
        let token = self.token();
        let start = token.span.start as usize;
        let word = self.slice(token.span);
        let next = self.peek_second();
        if let Some(op) = AggregateOp::by_name(word) {
            let grouped = next == Kind::Word
                && self.tokens.get(self.at + 1).is_some_and(|t| {
                    let word = self.slice(t.span);
                    word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("without")
                });
            if next == Kind::LeftParen || grouped {
                self.take();
                let aggregate = self.aggregation(op, start)?;
                return self.postfix(aggregate);
            }
        } else if next == Kind::LeftParen && !word.contains(':') {
            // Names of functions have a case, but `start`, `end`, `step`, `range` and the like are keywords and have none.
            let lower = word.to_ascii_lowercase();
            let keyword = matches!(
                lower.as_str(),
                "start" | "end" | "step" | "range" | "min_of" | "max_of"
            );
            let Some(function) = lookup(if keyword { &lower } else { word }) else {
                return Err(Fault::new(
                    token.span,
                    format!("unknown function with name {word:?}"),
                ));
            };
            self.take();
            let call = self.call(function, start)?;
            return self.postfix(call);
        }
        if RESERVED.iter().any(|r| word.eq_ignore_ascii_case(r))
            || word.eq_ignore_ascii_case("atan2")
        {
            return self.unexpected("", "");
        }
        self.take();
        let selector = self.selector(Some((word.to_owned(), token.span)))?;
        let span = self.span_from(start);
        self.postfix(Expr {
            span,
            kind: ExprKind::Selector(selector),
        })
    }

    fn call(&mut self, function: &'static Function, start: usize) -> Result<Expr, Fault> {
        let info = matches!(function.kind, function::Kind::Engine(EngineFunction::Info));
        let args = self.arguments(info)?;
        let span = self.span_from(start);
        check::call(span, function, args)
    }

    /// `(a, b)`; at least the parentheses. With `info` the second argument may be a selector that selects everything.
    fn arguments(&mut self, info: bool) -> Result<Vec<Expr>, Fault> {
        self.expect(Kind::LeftParen, "", "")?;
        let mut args = Vec::new();
        if self.accept(Kind::RightParen) {
            return Ok(args);
        }
        loop {
            self.open_selectors = info && args.len() == 1;
            let arg = self.binary(0);
            self.open_selectors = false;
            args.push(arg?);
            if self.accept(Kind::RightParen) {
                return Ok(args);
            }
            let comma = self.expect(Kind::Comma, "", "")?;
            if self.peek() == Kind::RightParen {
                return Err(Fault::new(
                    comma.span,
                    "trailing commas not allowed in function call args",
                ));
            }
        }
    }

    fn aggregation(&mut self, op: AggregateOp, start: usize) -> Result<Expr, Fault> {
        let mut grouping = self.grouping()?;
        if self.peek() != Kind::LeftParen {
            return self.unexpected("aggregation", "");
        }
        let mut args = self.arguments(false)?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let span = self.span_from(start);
        if args.is_empty() {
            return Err(Fault::new(
                span,
                "no arguments for aggregate expression provided",
            ));
        }
        let wanted = 1 + usize::from(op.has_parameter());
        if args.len() != wanted {
            return Err(Fault::new(
                span,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                    args.len()
                ),
            ));
        }
        let expr = args.pop().expect("counted above");
        check::aggregate(
            span,
            Aggregate {
                op,
                expr,
                parameter: args.pop(),
                grouping,
            },
        )
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, Fault> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.take();
        Ok(Some(Grouping {
            without,
            labels: self.label_list()?,
        }))
    }

    /// The braces of a selector, if there are any, after its name, if it has one.
    fn selector(&mut self, name: Option<(String, Span)>) -> Result<Selector, Fault> {
        let start = match &name {
            Some((_, span)) => span.start as usize,
            None => self.token().span.start as usize,
        };
        let mut matchers = Vec::new();
        if let Some((name, _)) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        let mut quoted_name: Option<String> = None;
        if self.accept(Kind::LeftBrace) {
            let context = "label matching";
            loop {
                if self.accept(Kind::RightBrace) {
                    break;
                }
                let token = self.token();
                let label = match token.kind {
                    Kind::Word => self.slice(token.span).to_owned(),
                    Kind::Text => self.text_of(token)?,
                    _ => return self.unexpected(context, "identifier or \"}\""),
                };
                self.take();
                let op = match self.peek() {
                    Kind::Assign => MatchOp::Equal,
                    Kind::NotEqual => MatchOp::NotEqual,
                    Kind::Match => MatchOp::Regex,
                    Kind::NotMatch => MatchOp::NotRegex,
                    Kind::Comma | Kind::RightBrace if token.kind == Kind::Text => {
                        matchers.push(Matcher::equal(METRIC_NAME, &label));
                        if quoted_name.is_some() || name.is_some() {
                            let first = name.as_ref().map_or_else(
                                || quoted_name.clone().unwrap_or_default(),
                                |n| n.0.clone(),
                            );
                            return Err(Fault::new(
                                Span::new(start, token.span.end as usize),
                                format!(
                                    "metric name must not be set twice: {first:?} or {label:?}"
                                ),
                            ));
                        }
                        quoted_name = Some(label);
                        self.accept(Kind::Comma);
                        continue;
                    }
                    _ => return self.unexpected(context, "label matching operator"),
                };
                self.take();
                let value_token = self.token();
                if value_token.kind != Kind::Text {
                    return self.unexpected(context, "string");
                }
                let value = self.text_of(value_token)?;
                self.take();
                let span = Span {
                    start: token.span.start,
                    end: value_token.span.end,
                };
                let matcher = Matcher::new(op, &label, &value)
                    .map_err(|error| Fault::new(span, error.to_string()))?;
                matchers.push(matcher);
                if self.peek() != Kind::RightBrace {
                    self.expect(Kind::Comma, context, "\",\" or \"}\"")?;
                }
            }
        }
        let span = self.span_from(start);
        if !self.names_again
            && let Some((name, _)) = &name
            && let Some(second) = matchers[1..].iter().find(|m| m.name() == METRIC_NAME)
        {
            return Err(Fault::new(
                span,
                format!(
                    "metric name must not be set twice: {name:?} or {:?}",
                    second.value()
                ),
            ));
        }
        Ok(Selector {
            name: name.map(|(name, _)| name).or(quoted_name),
            matchers,
            shift: Shift::default(),
            edges: Edges::Plain,
        })
    }

    /// Ranges, subqueries, `offset`, `@`, `anchored` and `smoothed`, as many as there are.
    fn postfix(&mut self, mut expr: Expr) -> Result<Expr, Fault> {
        loop {
            if self.peek() == Kind::LeftBracket {
                expr = self.bracket(expr)?;
            } else if self.is_word("offset") {
                self.take();
                let offset = self.offset_duration()?;
                let end = self.last_end() as u32;
                let shift = shift_of(&mut expr, "offset")?;
                // An offset of zero is as none, so it may be followed by another.
                if !matches!(shift.offset, None | Some(Duration::Plain(0))) {
                    return Err(Fault::new(
                        expr.span,
                        "offset may not be set multiple times",
                    ));
                }
                shift.offset = Some(offset);
                expr.span.end = end;
            } else if self.peek() == Kind::At {
                self.take();
                let at = self.at_argument(expr.span)?;
                let end = self.last_end() as u32;
                let shift = shift_of(&mut expr, "@")?;
                if shift.at.is_some() {
                    return Err(Fault::new(
                        expr.span,
                        "@ <timestamp> may not be set multiple times",
                    ));
                }
                shift.at = Some(at);
                expr.span.end = end;
            } else if self.is_word("anchored") {
                self.take();
                set_edges(&mut expr, Edges::Anchored)?;
                expr.span.end = self.last_end() as u32;
            } else if self.is_word("smoothed") {
                self.take();
                set_edges(&mut expr, Edges::Smoothed)?;
                expr.span.end = self.last_end() as u32;
            } else {
                break;
            }
        }
        if !self.open_selectors {
            check::selector(&expr)?;
        }
        Ok(expr)
    }

    fn bracket(&mut self, expr: Expr) -> Result<Expr, Fault> {
        let open = self.take().span;
        let start = expr.span.start as usize;
        let range = self.bracket_duration("subquery or range", "duration")?;
        if self.accept(Kind::Colon) {
            let step = if self.peek() == Kind::RightBracket {
                None
            } else {
                Some(self.bracket_duration("subquery selector", "duration or \"]\"")?)
            };
            self.expect(Kind::RightBracket, "subquery selector", "\"]\"")?;
            check::selector(&expr)?;
            let span = self.span_from(start);
            return check::subquery(
                span,
                Subquery {
                    expr,
                    range,
                    step,
                    shift: Shift::default(),
                },
            );
        }
        self.expect(Kind::RightBracket, "subquery or range", "\":\" or \"]\"")?;
        let bracket = Span {
            start: open.start,
            end: self.last_end() as u32,
        };
        let span = self.span_from(start);
        let ExprKind::Selector(selector) = expr.kind else {
            return Err(Fault::new(
                bracket,
                "ranges only allowed for vector selectors",
            ));
        };
        if selector.shift.offset.is_some() {
            return Err(Fault::new(
                bracket,
                "no offset modifiers allowed before range",
            ));
        }
        if selector.shift.at.is_some() {
            return Err(Fault::new(bracket, "no @ modifiers allowed before range"));
        }
        Ok(Expr {
            span,
            kind: ExprKind::Matrix { selector, range },
        })
    }

    fn at_argument(&mut self, before: Span) -> Result<At, Fault> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.is_word(word) && self.peek_second() == Kind::LeftParen {
                self.take();
                self.take();
                self.expect(Kind::RightParen, "@", "timestamp")?;
                return Ok(at);
            }
        }
        let seconds = self.signed_number("@", "timestamp")?;
        if !seconds.is_finite() || seconds >= i64::MAX as f64 || seconds <= i64::MIN as f64 {
            return Err(Fault::new(
                before,
                match seconds == f64::INFINITY {
                    true => "timestamp out of bounds for @ modifier: +Inf".to_owned(),
                    false if seconds.is_infinite() => {
                        "timestamp out of bounds for @ modifier: -Inf".to_owned()
                    }
                    false => format!("timestamp out of bounds for @ modifier: {seconds:.6}"),
                },
            ));
        }
        // Beyond 292 million years the conversion saturates; there are no samples either way.
        Ok(At::Time((seconds * 1000.0).round() as i64))
    }

    /// A number or a duration, taken.
    pub(super) fn number_or_duration(&mut self) -> Result<Number, Fault> {
        let token = self.take();
        if token.kind == Kind::Number {
            Ok(Number {
                value: self.number_of(token)?,
                duration: false,
            })
        } else {
            Ok(Number {
                value: self.milliseconds_of(token)? as f64 / 1000.0,
                duration: true,
            })
        }
    }

    /// A number or duration with at most one sign before it.
    pub(super) fn signed_number(&mut self, context: &str, expected: &str) -> Result<f64, Fault> {
        let negative = self.peek() == Kind::Sub;
        if negative || self.peek() == Kind::Add {
            self.take();
        }
        if !matches!(self.peek(), Kind::Number | Kind::Duration) {
            return self.unexpected(context, expected);
        }
        let value = self.number_or_duration()?.value;
        Ok(if negative { -value } else { value })
    }
}

fn shift_of<'e>(expr: &'e mut Expr, modifier: &str) -> Result<&'e mut Shift, Fault> {
    match &mut expr.kind {
        ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => Ok(&mut selector.shift),
        ExprKind::Subquery(subquery) => Ok(&mut subquery.shift),
        _ => Err(Fault::new(
            expr.span,
            format!(
                "{modifier} modifier must be preceded by an instant vector selector or range vector selector or a subquery"
            ),
        )),
    }
}

fn set_edges(expr: &mut Expr, edges: Edges) -> Result<(), Fault> {
    let name = match edges {
        Edges::Smoothed => "smoothed",
        _ => "anchored",
    };
    let fault = |message: String| Err(Fault::new(expr.span, message));
    match &mut expr.kind {
        ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } => {
            if selector.edges != Edges::Plain && selector.edges != edges {
                return fault("anchored and smoothed modifiers cannot be used together".to_owned());
            }
            selector.edges = edges;
            Ok(())
        }
        ExprKind::Subquery(_) => fault(format!("{name} modifier is not supported for subqueries")),
        _ => fault(format!("{name} modifier not implemented")),
    }
}
