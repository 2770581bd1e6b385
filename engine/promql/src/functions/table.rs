//! Every function of the language: types, shape and code, sorted by name.

use crate::functions::Kind::{self, Columns, Engine, Map};
use crate::functions::{ColumnFn, EngineFunction, Function, RangeFn, RangeFunction};
use crate::functions::{
    classic, date, labels, math, native, over_time, rate, regression, scalars, slide,
};
use crate::value::ValueType::{self, Matrix, Scalar, String, Vector};

/// Finds a function by its name.
pub(crate) fn lookup(name: &str) -> Option<&'static Function> {
    FUNCTIONS
        .binary_search_by(|function| function.name.cmp(name))
        .ok()
        .map(|i| &FUNCTIONS[i])
}

const fn function(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i8,
    returns: ValueType,
    kind: Kind,
) -> Function {
    Function {
        name,
        args,
        variadic,
        returns,
        experimental: false,
        kind,
    }
}

const fn experimental(function: Function) -> Function {
    Function {
        experimental: true,
        ..function
    }
}

/// `f(v, s...)`, a value at a time.
const fn map(
    name: &'static str,
    args: &'static [ValueType],
    eval: crate::functions::MapFn,
) -> Function {
    function(name, args, 0, Vector, Map(eval))
}

/// `f(m)`.
const fn range(name: &'static str, args: &'static [ValueType], eval: RangeFn) -> Function {
    over(name, args, plain(eval))
}

const fn over(name: &'static str, args: &'static [ValueType], range: RangeFunction) -> Function {
    function(name, args, 0, Vector, Kind::Range(range))
}

const fn plain(eval: RangeFn) -> RangeFunction {
    RangeFunction {
        eval,
        keeps_name: false,
        counter: false,
        anchored: false,
        smoothed: false,
        column: None,
        check: None,
    }
}

/// A function of change that knows what to do with the samples beside the range.
const fn edged(eval: RangeFn, counter: bool, smoothed: bool) -> RangeFunction {
    RangeFunction {
        counter,
        anchored: true,
        smoothed,
        ..plain(eval)
    }
}

/// The same, and all windows of a column at once.
const fn sliding(column: ColumnFn, range: RangeFunction) -> RangeFunction {
    RangeFunction {
        column: Some(column),
        ..range
    }
}

const fn named(eval: RangeFn) -> RangeFunction {
    RangeFunction {
        keeps_name: true,
        ..plain(eval)
    }
}

static FUNCTIONS: [Function; 89] = [
    map("abs", &[Vector], math::abs),
    function("absent", &[Vector], 0, Vector, Columns(labels::absent)),
    function(
        "absent_over_time",
        &[Matrix],
        0,
        Vector,
        Engine(EngineFunction::AbsentOverTime),
    ),
    map("acos", &[Vector], math::acos),
    map("acosh", &[Vector], math::acosh),
    map("asin", &[Vector], math::asin),
    map("asinh", &[Vector], math::asinh),
    map("atan", &[Vector], math::atan),
    map("atanh", &[Vector], math::atanh),
    over(
        "avg_over_time",
        &[Matrix],
        sliding(slide::avg, plain(over_time::avg)),
    ),
    map("ceil", &[Vector], math::ceil),
    over("changes", &[Matrix], edged(rate::changes, false, false)),
    map("clamp", &[Vector, Scalar, Scalar], math::clamp),
    map("clamp_max", &[Vector, Scalar], math::clamp_max),
    map("clamp_min", &[Vector, Scalar], math::clamp_min),
    map("cos", &[Vector], math::cos),
    map("cosh", &[Vector], math::cosh),
    range("count_over_time", &[Matrix], over_time::count),
    function(
        "day_of_month",
        &[Vector],
        1,
        Vector,
        Columns(date::day_of_month),
    ),
    function(
        "day_of_week",
        &[Vector],
        1,
        Vector,
        Columns(date::day_of_week),
    ),
    function(
        "day_of_year",
        &[Vector],
        1,
        Vector,
        Columns(date::day_of_year),
    ),
    function(
        "days_in_month",
        &[Vector],
        1,
        Vector,
        Columns(date::days_in_month),
    ),
    map("deg", &[Vector], math::deg),
    over("delta", &[Matrix], edged(rate::delta, false, true)),
    range("deriv", &[Matrix], regression::deriv),
    experimental(over(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        RangeFunction {
            check: Some(regression::check_factors),
            ..plain(regression::double_exponential_smoothing)
        },
    )),
    experimental(function("end", &[], 0, Scalar, Engine(EngineFunction::End))),
    map("exp", &[Vector], math::exp),
    experimental(over("first_over_time", &[Matrix], named(over_time::first))),
    map("floor", &[Vector], math::floor),
    function(
        "histogram_avg",
        &[Vector],
        0,
        Vector,
        Columns(native::summary),
    ),
    function(
        "histogram_count",
        &[Vector],
        0,
        Vector,
        Columns(native::summary),
    ),
    function(
        "histogram_fraction",
        &[Scalar, Scalar, Vector],
        0,
        Vector,
        Columns(classic::histogram_fraction),
    ),
    function(
        "histogram_quantile",
        &[Scalar, Vector],
        0,
        Vector,
        Columns(classic::histogram_quantile),
    ),
    experimental(function(
        "histogram_quantiles",
        &[Vector, String, Scalar],
        9,
        Vector,
        Columns(classic::histogram_quantiles),
    )),
    function(
        "histogram_stddev",
        &[Vector],
        0,
        Vector,
        Columns(native::summary),
    ),
    function(
        "histogram_stdvar",
        &[Vector],
        0,
        Vector,
        Columns(native::summary),
    ),
    function(
        "histogram_sum",
        &[Vector],
        0,
        Vector,
        Columns(native::summary),
    ),
    function("hour", &[Vector], 1, Vector, Columns(date::hour)),
    range("idelta", &[Matrix], rate::idelta),
    over(
        "increase",
        &[Matrix],
        sliding(slide::increase, edged(rate::increase, true, true)),
    ),
    experimental(function(
        "info",
        &[Vector, Vector],
        1,
        Vector,
        Engine(EngineFunction::Info),
    )),
    range("irate", &[Matrix], rate::irate),
    function(
        "label_join",
        &[Vector, String, String, String],
        -1,
        Vector,
        Columns(labels::label_join),
    ),
    function(
        "label_replace",
        &[Vector, String, String, String, String],
        0,
        Vector,
        Columns(labels::label_replace),
    ),
    over("last_over_time", &[Matrix], named(over_time::last)),
    map("ln", &[Vector], math::ln),
    map("log10", &[Vector], math::log10),
    map("log2", &[Vector], math::log2),
    experimental(range("mad_over_time", &[Matrix], over_time::mad)),
    experimental(function(
        "max_of",
        &[Scalar, Scalar],
        0,
        Scalar,
        Columns(scalars::max_of),
    )),
    over(
        "max_over_time",
        &[Matrix],
        sliding(slide::max, plain(over_time::max)),
    ),
    experimental(function(
        "min_of",
        &[Scalar, Scalar],
        0,
        Scalar,
        Columns(scalars::min_of),
    )),
    over(
        "min_over_time",
        &[Matrix],
        sliding(slide::min, plain(over_time::min)),
    ),
    function("minute", &[Vector], 1, Vector, Columns(date::minute)),
    function("month", &[Vector], 1, Vector, Columns(date::month)),
    function("pi", &[], 0, Scalar, Columns(scalars::pi)),
    range(
        "predict_linear",
        &[Matrix, Scalar],
        regression::predict_linear,
    ),
    range("present_over_time", &[Matrix], over_time::present),
    range("quantile_over_time", &[Scalar, Matrix], over_time::quantile),
    map("rad", &[Vector], math::rad),
    experimental(function(
        "range",
        &[],
        0,
        Scalar,
        Engine(EngineFunction::Range),
    )),
    over(
        "rate",
        &[Matrix],
        sliding(slide::rate, edged(rate::rate, true, true)),
    ),
    over("resets", &[Matrix], edged(rate::resets, false, false)),
    function("round", &[Vector, Scalar], 1, Vector, Map(math::round)),
    function("scalar", &[Vector], 0, Scalar, Columns(scalars::scalar)),
    map("sgn", &[Vector], math::sgn),
    map("sin", &[Vector], math::sin),
    map("sinh", &[Vector], math::sinh),
    function("sort", &[Vector], 0, Vector, Columns(labels::sort)),
    experimental(function(
        "sort_by_label",
        &[Vector, String],
        -1,
        Vector,
        Columns(labels::sort_by_label),
    )),
    experimental(function(
        "sort_by_label_desc",
        &[Vector, String],
        -1,
        Vector,
        Columns(labels::sort_by_label_desc),
    )),
    function(
        "sort_desc",
        &[Vector],
        0,
        Vector,
        Columns(labels::sort_desc),
    ),
    map("sqrt", &[Vector], math::sqrt),
    experimental(function(
        "start",
        &[],
        0,
        Scalar,
        Engine(EngineFunction::Start),
    )),
    range("stddev_over_time", &[Matrix], over_time::stddev),
    range("stdvar_over_time", &[Matrix], over_time::stdvar),
    experimental(function(
        "step",
        &[],
        0,
        Scalar,
        Engine(EngineFunction::Step),
    )),
    over(
        "sum_over_time",
        &[Matrix],
        sliding(slide::sum, plain(over_time::sum)),
    ),
    map("tan", &[Vector], math::tan),
    map("tanh", &[Vector], math::tanh),
    function("time", &[], 0, Scalar, Columns(scalars::time)),
    function(
        "timestamp",
        &[Vector],
        0,
        Vector,
        Engine(EngineFunction::Timestamp),
    ),
    experimental(range(
        "ts_of_first_over_time",
        &[Matrix],
        over_time::ts_of_first,
    )),
    experimental(range(
        "ts_of_last_over_time",
        &[Matrix],
        over_time::ts_of_last,
    )),
    experimental(range(
        "ts_of_max_over_time",
        &[Matrix],
        over_time::ts_of_max,
    )),
    experimental(range(
        "ts_of_min_over_time",
        &[Matrix],
        over_time::ts_of_min,
    )),
    function("vector", &[Scalar], 0, Vector, Columns(scalars::vector)),
    function("year", &[Vector], 1, Vector, Columns(date::year)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_name_is_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in &FUNCTIONS {
            assert_eq!(lookup(function.name).map(|f| f.name), Some(function.name));
        }
        assert!(lookup("RATE").is_none());
        assert!(lookup("").is_none());
    }

    #[test]
    fn arguments_fit_the_shape_of_their_function() {
        for function in &FUNCTIONS {
            let ranges = function.args.iter().filter(|t| **t == Matrix).count();
            let name = function.name;
            match &function.kind {
                Kind::Range(_) => assert_eq!(ranges, 1, "{name}"),
                Kind::Map(_) => assert_eq!(function.args.first(), Some(&Vector), "{name}"),
                Kind::Columns(_) => assert_eq!(ranges, 0, "{name}"),
                Kind::Engine(_) => {}
            }
        }
    }
}
