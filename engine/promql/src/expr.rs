//! The syntax tree: our own, with the place of every node in the text.
//!
//! Types are checked when it is built (`parser`), so whoever walks it may rely on them: a function has as many arguments
//! of the right types as its entry in the table says. `Display` prints as Prometheus does (`/format_query`).
//! Durations stay expressions here; the plan resolves them, since `step()` and `range()` depend on the query.

mod experimental;
mod json;
mod parts;
mod pretty;
mod print;

pub use model::quoted;
pub use print::{duration_text, number_text};

use model::Matcher;

use crate::aggregate::AggregateOp;
use crate::functions::{Edges, Function};
use crate::value::ValueType;

/// A place in the text, bytes, end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

impl Span {
    /// A span from byte positions of a text, whose length is bounded far below 4 GiB.
    pub fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u32,
            end: end as u32,
        }
    }

    /// `line:column` of the first byte, both from 1, columns in bytes. Cost: a scan of the text before it.
    pub fn place(self, text: &str) -> String {
        let before = &text.as_bytes()[..(self.start as usize).min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        format!("{line}:{column}")
    }
}

/// A node with its place.
#[derive(Debug, Clone)]
pub struct Expr {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: ExprKind,
}

impl Expr {
    /// All selectors in it, in the order of the text.
    pub fn selectors(&self) -> Vec<&Selector> {
        let mut found = Vec::new();
        // Depth is bounded by the parser; the stack here is on the heap all the same.
        let mut left = vec![self];
        while let Some(expr) = left.pop() {
            if let ExprKind::Selector(selector) | ExprKind::Matrix { selector, .. } = &expr.kind {
                found.push(selector);
            }
            expr.push_children(&mut left);
        }
        found
    }

    /// Puts what stands directly below it onto a stack, so that it comes off in the order of the text.
    fn push_children<'a>(&'a self, stack: &mut Vec<&'a Expr>) {
        match &self.kind {
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix { .. } => {}
            ExprKind::Subquery(subquery) => stack.push(&subquery.expr),
            ExprKind::Call { args, .. } => stack.extend(args.iter().rev()),
            ExprKind::Aggregate(aggregate) => {
                stack.push(&aggregate.expr);
                stack.extend(&aggregate.parameter);
            }
            ExprKind::Binary(binary) => stack.extend([&binary.right, &binary.left]),
            ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => stack.push(expr),
        }
    }
}

/// The kinds of nodes.
#[derive(Debug, Clone)]
pub enum ExprKind {
    /// A number.
    Number(Number),
    /// A text.
    String(String),
    /// An instant selector.
    Selector(Selector),
    /// A range selector.
    Matrix {
        /// Of which series.
        selector: Selector,
        /// How far back.
        range: Duration,
    },
    /// A subquery.
    Subquery(Box<Subquery>),
    /// A function call.
    Call {
        /// Which; its table entry.
        function: &'static Function,
        /// Arguments as written.
        args: Vec<Expr>,
    },
    /// An aggregation.
    Aggregate(Box<Aggregate>),
    /// A binary operation.
    Binary(Box<Binary>),
    /// `+x` or `-x`.
    Unary {
        /// `-`.
        negative: bool,
        /// Of what.
        expr: Box<Expr>,
    },
    /// Parentheses.
    Paren(Box<Expr>),
}

/// A number as written: `1.5`, or `5m`, which is 300.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    /// Its value.
    pub value: f64,
    /// Written as a duration, and printed as one.
    pub duration: bool,
}

/// Selects series, with the modifiers behind it.
#[derive(Debug, Clone)]
pub struct Selector {
    /// The metric's name, when it stands before the braces or alone in quotes within.
    pub name: Option<String>,
    /// All matchers, the one of the name included, in the order of the text (name first).
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub shift: Shift,
    /// `anchored` or `smoothed`.
    pub edges: Edges,
}

/// The modifiers that move a selector or subquery in time.
#[derive(Debug, Clone, Default)]
pub struct Shift {
    /// `offset`.
    pub offset: Option<Duration>,
    /// `@`.
    pub at: Option<At>,
}

/// The argument of `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Milliseconds.
    Time(i64),
    /// `start()`.
    Start,
    /// `end()`.
    End,
}

/// A length of time.
#[derive(Debug, Clone, PartialEq)]
pub enum Duration {
    /// Plainly written; milliseconds.
    Plain(i64),
    /// Computed from the query's parameters.
    Expr(DurationExpr),
}

/// Arithmetic on durations; everything is in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    /// A number or duration.
    Number(Number),
    /// `step()`: the query's resolution.
    Step,
    /// `range()`: from the query's start to its end.
    Range,
    /// `-x`, `+x`.
    Unary {
        /// `-`.
        negative: bool,
        /// Of what.
        expr: Box<DurationExpr>,
    },
    /// `a + b` and so on; never a comparison.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Left side.
        left: Box<DurationExpr>,
        /// Right side.
        right: Box<DurationExpr>,
    },
    /// `min_of(a, b)`, `max_of(a, b)`.
    Pick {
        /// `max_of`.
        max: bool,
        /// First argument.
        left: Box<DurationExpr>,
        /// Second argument.
        right: Box<DurationExpr>,
    },
    /// Parentheses.
    Paren(Box<DurationExpr>),
}

/// `expr[range:step]`.
#[derive(Debug, Clone)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Expr,
    /// How far back.
    pub range: Duration,
    /// How often; the default resolution when missing.
    pub step: Option<Duration>,
    /// `offset` and `@`.
    pub shift: Shift,
}

/// An aggregation.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// Operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// Parameter of `topk` and the like.
    pub parameter: Option<Expr>,
    /// `by` or `without`; missing means `by ()`.
    pub grouping: Option<Grouping>,
}

/// `by (...)` or `without (...)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grouping {
    /// `without`.
    pub without: bool,
    /// As written.
    pub labels: Vec<String>,
}

/// A binary operation.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Operator.
    pub op: BinaryOp,
    /// `bool` was written.
    pub returns_bool: bool,
    /// Left side.
    pub left: Expr,
    /// Right side.
    pub right: Expr,
    /// How vectors are matched; meaningful between two vectors only.
    pub matching: Matching,
}

/// How the series of two vectors find each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matching {
    /// `on` rather than `ignoring`.
    pub on: bool,
    /// Whether `on` or `ignoring` was written at all.
    pub given: bool,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// How many match how many.
    pub cardinality: Cardinality,
    /// Labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// Value for a series that misses its partner on the left.
    pub fill_left: Option<f64>,
    /// Value for a series that misses its partner on the right.
    pub fill_right: Option<f64>,
}

/// How many series match how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cardinality {
    /// Each has at most one partner.
    #[default]
    OneToOne,
    /// `group_left`.
    ManyToOne,
    /// `group_right`.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// The binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
    /// `</`: the part of a histogram below.
    TrimUpper,
    /// `>/`: the part of a histogram above.
    TrimLower,
}

impl BinaryOp {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Le => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::Ge => ">=",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
        }
    }

    /// Higher binds tighter. Source: the precedence table of Prometheus' grammar.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            BinaryOp::Eq
            | BinaryOp::Ne
            | BinaryOp::Lt
            | BinaryOp::Le
            | BinaryOp::Gt
            | BinaryOp::Ge
            | BinaryOp::TrimUpper
            | BinaryOp::TrimLower => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
            BinaryOp::Pow => 6,
        }
    }

    /// `==` to `>=`.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge
        )
    }

    /// `and`, `or`, `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

impl Expr {
    /// The type of its value.
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix { .. } | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call { function, .. } => function.returns,
            ExprKind::Binary(binary) => {
                match (binary.left.value_type(), binary.right.value_type()) {
                    (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                    _ => ValueType::Vector,
                }
            }
            ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => expr.value_type(),
        }
    }

    /// The expression within any parentheses.
    pub fn unwrap_parens(&self) -> &Expr {
        let mut expr = self;
        while let ExprKind::Paren(inner) = &expr.kind {
            expr = inner;
        }
        expr
    }
}
