//! Plots as SVG, small multiples: one column for each target, one row for each quantity, all plots of a row on one scale.

use std::fmt::Write as _;

/// Of a plot, in SVG units.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 120.0;
/// Room for numbers at the left and below.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 18.0;
const TOP: f64 = 8.0;

/// A quantity over the time of a run.
pub(super) struct Plot<'a> {
    pub(super) bin_seconds: f64,
    pub(super) points: &'a [Option<f64>],
    /// Where the load ended.
    pub(super) mark_seconds: f64,
    /// The colour's class.
    pub(super) class: &'a str,
}

/// The scale of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// From zero, or from a power of ten, to a round number over everything.
    pub(super) fn over<'a>(
        values: impl Iterator<Item = &'a Option<f64>>,
        logarithmic: bool,
    ) -> Scale {
        let values: Vec<f64> = values
            .flatten()
            .copied()
            .filter(|v| v.is_finite())
            .collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        if !logarithmic {
            return Scale {
                low: 0.0,
                high: round_up(most),
                logarithmic,
            };
        }
        let least = values
            .iter()
            .copied()
            .filter(|v| *v > 0.0)
            .fold(f64::INFINITY, f64::min);
        let low = if least.is_finite() {
            least.log10().floor()
        } else {
            0.0
        };
        let high = if most > 0.0 { most.log10().ceil() } else { 0.0 };
        Scale {
            low,
            high: high.max(low + 1.0),
            logarithmic,
        }
    }

    /// Where a value stands, from 0 at the bottom to 1 at the top.
    fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            value.max(1e-9).log10()
        } else {
            value
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Values at which a line is drawn.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            return (self.low as i32..=self.high as i32)
                .map(|power| 10f64.powi(power))
                .collect();
        }
        (0..=2)
            .map(|half| self.high * f64::from(half) / 2.0)
            .collect()
    }
}

/// 1, 2, 4, 6, 8 or 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    let step = steps
        .into_iter()
        .find(|step| step * power >= value * 0.999_999);
    step.unwrap_or(10.0) * power
}

/// Draws one plot. `unit` makes numbers of the left side.
pub(super) fn draw(plot: &Plot<'_>, scale: &Scale, unit: fn(f64) -> String, title: &str) -> String {
    let span = (plot.bin_seconds * plot.points.len() as f64).max(1e-9);
    let x = |seconds: f64| LEFT + (WIDTH - LEFT - 6.0) * (seconds / span).clamp(0.0, 1.0);
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - scale.place(value));
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    // Writing to a string does not fail.
    for tick in scale.ticks() {
        let (at, label) = (y(tick), unit(tick));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{label}</text>",
            WIDTH - 6.0,
            LEFT - 5.0,
            at + 3.5
        );
    }
    for part in [0.0, 0.5, 1.0] {
        let seconds = span * part;
        let anchor = if part == 1.0 { "end" } else { "middle" };
        let text = if seconds > 0.0 && seconds < 10.0 {
            format!("{seconds:.1}")
        } else {
            format!("{seconds:.0}")
        };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"{anchor}\">{text} s</text>",
            x(seconds),
            HEIGHT - 4.0
        );
    }
    if plot.mark_seconds > 0.0 {
        let at = x(plot.mark_seconds);
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>",
            HEIGHT - BOTTOM
        );
    }
    for piece in pieces(plot.points) {
        let mut path = String::new();
        for (index, value) in &piece {
            let middle = (*index as f64 + 0.5) * plot.bin_seconds;
            let _ = write!(path, "{:.1},{:.1} ", x(middle), y(*value));
        }
        if let [(index, value)] = piece[..] {
            let middle = (index as f64 + 0.5) * plot.bin_seconds;
            let (x, y) = (x(middle), y(value));
            let _ = write!(
                svg,
                "<circle class=\"dot {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.5\"/>",
                plot.class
            );
        } else {
            let _ = write!(
                svg,
                "<polyline class=\"line {}\" points=\"{}\"/>",
                plot.class,
                path.trim_end()
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Runs of points that are there. A gap of one is bridged: between two slow answers there is none.
fn pieces(points: &[Option<f64>]) -> Vec<Vec<(usize, f64)>> {
    let mut pieces: Vec<Vec<(usize, f64)>> = Vec::new();
    for (index, value) in points.iter().enumerate() {
        let Some(value) = value else { continue };
        match pieces.last_mut() {
            Some(piece) if piece.last().is_some_and(|(last, _)| index - last <= 2) => {
                piece.push((index, *value));
            }
            _ => pieces.push(vec![(index, *value)]),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_reach_over_everything() {
        for (value, expected) in [
            (0.0, 1.0),
            (3.1, 4.0),
            (1.0, 1.0),
            (612.0, 800.0),
            (0.09, 0.1),
        ] {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}");
        }
        let scale = Scale::over([Some(3.0), None, Some(250.0)].iter(), true);
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!((scale.place(1.0), scale.place(1000.0)), (0.0, 1.0));
        let empty = Scale::over([None].iter(), false);
        assert_eq!(empty.ticks(), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn a_gap_of_one_point_is_bridged_and_a_longer_one_is_not() {
        let points = [Some(1.0), None, Some(2.0), None, None, Some(3.0)];
        let lengths: Vec<usize> = pieces(&points).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1]);
    }
}
