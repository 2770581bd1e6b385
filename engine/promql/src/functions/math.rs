//! Functions of single values. Where Go and Rust differ (`max` and `min` with NaN, `sgn` of zero), as Go.

use crate::annotations::Notes;
use crate::value::ABSENT;

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident: $value:ident => $body:expr;)*) => {
        $($(#[$doc])* pub(super) fn $name($value: f64, _: &[f64], _: &mut Notes<'_>) -> f64 { $body })*
    };
}

plain! {
    /// `abs`.
    abs: v => v.abs();
    /// `ceil`.
    ceil: v => v.ceil();
    /// `floor`.
    floor: v => v.floor();
    /// `exp`.
    exp: v => v.exp();
    /// `sqrt`.
    sqrt: v => v.sqrt();
    /// `ln`.
    ln: v => v.ln();
    /// `log2`.
    log2: v => v.log2();
    /// `log10`.
    log10: v => v.log10();
    /// `sin`.
    sin: v => v.sin();
    /// `cos`.
    cos: v => v.cos();
    /// `tan`.
    tan: v => v.tan();
    /// `asin`.
    asin: v => v.asin();
    /// `acos`.
    acos: v => v.acos();
    /// `atan`.
    atan: v => v.atan();
    /// `sinh`.
    sinh: v => v.sinh();
    /// `cosh`.
    cosh: v => v.cosh();
    /// `tanh`.
    tanh: v => v.tanh();
    /// `asinh`.
    asinh: v => asinh_of(v);
    /// `acosh`.
    acosh: v => if v > LARGE { v.ln() + std::f64::consts::LN_2 } else { v.acosh() };
    /// `atanh`.
    atanh: v => v.atanh();
    /// `deg`.
    deg: v => v * 180.0 / std::f64::consts::PI;
    /// `rad`.
    rad: v => v * std::f64::consts::PI / 180.0;
    /// `sgn`: -1, 1, or the value itself where it is zero or NaN.
    sgn: v => if v < 0.0 { -1.0 } else if v > 0.0 { 1.0 } else { v };
}

/// From here on the one below the root of `asinh` and `acosh` is lost, and further on the square overflows.
const LARGE: f64 = (1_u64 << 28) as f64;

fn asinh_of(v: f64) -> f64 {
    match v.abs() > LARGE {
        true => (v.abs().ln() + std::f64::consts::LN_2).copysign(v),
        false => v.asinh(),
    }
}

/// `round`: to the nearest multiple of the argument (1 when missing), halves up.
pub(super) fn round(value: f64, args: &[f64], _: &mut Notes<'_>) -> f64 {
    let inverse = 1.0 / args.first().copied().unwrap_or(1.0);
    (value * inverse + 0.5).floor() / inverse
}

/// `clamp`: nothing when the bounds are in the wrong order.
pub(super) fn clamp(value: f64, args: &[f64], _: &mut Notes<'_>) -> f64 {
    let (low, high) = (args[0], args[1]);
    if high < low {
        return ABSENT;
    }
    larger(low, smaller(high, value))
}

/// `clamp_min`.
pub(super) fn clamp_min(value: f64, args: &[f64], _: &mut Notes<'_>) -> f64 {
    larger(args[0], value)
}

/// `clamp_max`.
pub(super) fn clamp_max(value: f64, args: &[f64], _: &mut Notes<'_>) -> f64 {
    smaller(args[0], value)
}

/// Go's `math.Max`: +Inf wins over NaN, NaN over everything else, 0 over -0.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// Go's `math.Min`: -Inf wins over NaN, NaN over everything else, -0 over 0.
pub(crate) fn smaller(a: f64, b: f64) -> f64 {
    -larger(-a, -b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::Annotations;
    use crate::value::is_absent;

    fn with_notes<T>(run: impl FnOnce(&mut Notes<'_>) -> T) -> T {
        run(&mut Notes {
            annotations: &mut Annotations::default(),
            text: "",
            args: &[],
            metric: "",
        })
    }

    #[test]
    fn halves_are_rounded_up_on_both_sides_of_zero() {
        with_notes(|notes| {
            for (value, to, expected) in [
                (2.5, 1.0, 3.0),
                (-2.5, 1.0, -2.0),
                (0.045, 5.0, 0.0),
                (5.25, 0.1, 5.3),
                (-5.25, 0.1, -5.2),
            ] {
                let got = round(value, &[to], notes);
                assert!((got - expected).abs() < 1e-12, "{value} to {to}: {got}");
            }
            assert_eq!(round(1.5, &[], notes), 2.0);
        });
    }

    #[test]
    fn bounds_in_the_wrong_order_leave_nothing() {
        with_notes(|notes| {
            assert_eq!(clamp(7.0, &[0.0, 5.0], notes), 5.0);
            assert_eq!(clamp(-7.0, &[0.0, 5.0], notes), 0.0);
            assert!(clamp(f64::NAN, &[0.0, 5.0], notes).is_nan());
            assert!(clamp(1.0, &[f64::NAN, 5.0], notes).is_nan());
            assert!(is_absent(clamp(1.0, &[5.0, 0.0], notes)));
        });
    }

    #[test]
    fn infinities_win_over_nan_only_at_their_own_end() {
        assert_eq!(larger(f64::NAN, f64::INFINITY), f64::INFINITY);
        assert!(larger(f64::NAN, f64::NEG_INFINITY).is_nan());
        assert_eq!(smaller(f64::NEG_INFINITY, f64::NAN), f64::NEG_INFINITY);
        assert!(smaller(3.0, f64::NAN).is_nan());
        assert!(smaller(0.0, -0.0).is_sign_negative());
        assert!(larger(-0.0, 0.0).is_sign_positive());
    }

    #[test]
    fn the_sign_of_zero_and_nan_is_themselves() {
        with_notes(|notes| {
            assert_eq!(sgn(-3.0, &[], notes), -1.0);
            assert!(sgn(-0.0, &[], notes).is_sign_negative());
            assert!(sgn(f64::NAN, &[], notes).is_nan());
        });
    }
}
