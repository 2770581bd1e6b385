//! Points become samples of series.
//!
//! | point | series |
//! | --- | --- |
//! | gauge | one |
//! | sum, cumulative | one: a counter where it only goes up, else a gauge |
//! | histogram, cumulative | `_count`, `_sum` where there is one, `_bucket` by `le`; or a native one with custom buckets |
//! | exponential histogram, cumulative | a native histogram |
//! | summary | `_count`, `_sum`, one by `quantile` |
//!
//! Counts that begin somewhere have a start timestamp. A point without a recorded value is a stale marker in each of its series. What
//! tells a difference since the last point (delta) is refused, or stored as it is where that is allowed; then its type is unknown.
//! A resource that has more than its identity is described by `target_info`, over the time of its points.

use std::cell::RefCell;
use std::collections::HashSet;

use model::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, Histogram, HistogramSample, Metadata, MetricType,
};

use super::attributes::{Attributes, Keys, Layers, Unusable, find};
use super::buckets::{Side, exponential_index};
use super::names::{self, Kind};
use super::output::{EMPTY, Exemplar, Label, Output, Sample, Symbol, Times};
use super::read::{children, fields, hold, hold_attribute, varints};
use super::{Options, Translated};
use crate::proto::Malformed;
use crate::remote_write::encode;

/// Between two samples of `target_info`: half of what a query looks back, so that it is found all the time.
const TARGET_INFO_STEP_MS: i64 = 150_000;

/// Samples of `target_info` of one resource, the newest: two days of it.
const TARGET_INFO_MAX: i64 = 1_200;

/// Characters of an exemplar's labels; the attributes of one that has more are left out. Source: OpenMetrics.
const EXEMPLAR_CHARS_MAX: usize = 128;

/// The width of the zero bucket where a sender does not say it. Source: Prometheus.
const ZERO_THRESHOLD: f64 = 1e-128;

const SCALE_MIN: i32 = -4;
const SCALE_MAX: i32 = 8;

/// Flag of a point that stands for none.
const NO_RECORDED_VALUE: u64 = 1;

/// How the points of a metric are to be understood. Source: `AggregationTemporality`.
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// Numbers of fields in `Metric`.
const GAUGE: u32 = 5;
const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;
const EXPONENTIAL: u32 = 10;
const SUMMARY: u32 = 11;

pub(super) fn translate(body: &[u8], options: &Options) -> Result<Translated, Malformed> {
    let mut out = Output::new(options.bytes_max);
    let well_known = ["__name__", "le", "quantile", "job", "instance"];
    let mut symbols = [EMPTY; 5];
    for (symbol, name) in symbols.iter_mut().zip(well_known) {
        *symbol = out.symbol(name.as_bytes())?;
    }
    let [name, le, quantile, job, instance] = symbols;
    let mut translation = Translation {
        options,
        out,
        keys: Keys::default(),
        told: HashSet::new(),
        points: 0,
        refused: 0,
        refusal: None,
        words: Words {
            name,
            le,
            quantile,
            job,
            instance,
        },
    };
    children(body, 1, |resource| translation.resource(resource))?;
    let (request, metadata, taken) = translation.out.finish();
    Ok(Translated {
        request,
        metadata,
        points: translation.points,
        taken,
        refused: translation.refused,
        refusal: translation.refusal,
    })
}

/// Names of labels that are not a sender's.
#[derive(Debug, Clone, Copy)]
struct Words {
    name: Symbol,
    le: Symbol,
    quantile: Symbol,
    job: Symbol,
    instance: Symbol,
}

struct Translation<'a, 'o> {
    options: &'o Options,
    out: Output,
    keys: Keys<'a>,
    /// Metrics that the metadata tells of already.
    told: HashSet<Symbol>,
    points: u64,
    refused: u64,
    refusal: Option<String>,
    words: Words,
}

/// The metric at work.
struct Metric<'a> {
    name: &'a str,
    /// As Prometheus has it.
    family: String,
    metadata: Metadata,
    /// What its points tell began somewhere.
    counts: bool,
    delta: bool,
    /// The symbols of the names of its series, by their ends.
    symbols: RefCell<Vec<(&'static str, Symbol)>>,
}

/// The times of a resource's points, milliseconds.
struct Range {
    first: i64,
    last: i64,
}

/// What all kinds of points have.
#[derive(Debug, Default)]
struct Point<'a> {
    attributes: Attributes<'a>,
    start: u64,
    time: u64,
    flags: u64,
    count: u64,
    sum: Option<f64>,
    exemplars: Vec<&'a [u8]>,
}

impl Point<'_> {
    fn is_stale(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }

    /// Its value, or the marker where there is none.
    fn or_stale(&self, value: f64) -> Sample<'static> {
        match self.is_stale() {
            true => Sample::Float(model::stale_nan()),
            false => Sample::Float(value),
        }
    }

    fn times(&self, metric: &Metric<'_>) -> Times {
        let (time, start) = (milliseconds(self.time), milliseconds(self.start));
        let told = metric.counts && !metric.delta && !self.is_stale() && start <= time;
        Times {
            time,
            start: if told { start } else { 0 },
        }
    }
}

fn milliseconds(nanoseconds: u64) -> i64 {
    (nanoseconds / 1_000_000) as i64
}

fn refused(text: impl Into<String>) -> Unusable {
    Unusable::Refused(text.into())
}

impl<'a> Translation<'a, '_> {
    fn resource(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let mut resource = Attributes::new();
        children(message, 1, |child| {
            children(child, 1, |attribute| {
                hold_attribute(&mut resource, attribute)
            })
        })?;
        let identity = self.identity(&resource)?;
        let mut layers = Layers::default();
        if self.options.convert_all_attributes {
            layers.converted_keys = resource.iter().map(|(key, _)| *key).collect();
            let mut all = resource.clone();
            // One that has no name is told with each point.
            layers.converted = match self.keys.labels(&mut all, &mut self.out) {
                Ok(labels) => labels,
                Err(Unusable::Malformed(what)) => return Err(what),
                Err(Unusable::Refused(text)) => {
                    return self.refuse_all(message, &text);
                }
            };
        }
        for key in &self.options.promote_resource_attributes {
            let Some(value) = find(&resource, key) else {
                continue;
            };
            if let Some(name) = names::label(key) {
                let name = self.out.symbol(name.as_bytes())?;
                let value = self.keys.value(value, &mut self.out)?;
                layers.promoted.push((name, value));
            }
        }
        let mut range = Range {
            first: i64::MAX,
            last: i64::MIN,
        };
        children(message, 2, |scope| {
            self.scope(scope, &mut layers, &identity, &mut range)
        })?;
        if range.first <= range.last && !self.options.disable_target_info {
            self.target_info(resource, identity, &range)?;
        }
        Ok(())
    }

    /// Counts all points of a resource as refused.
    fn refuse_all(&mut self, resource: &'a [u8], text: &str) -> Result<(), Malformed> {
        children(resource, 2, |scope| {
            children(scope, 2, |metric| {
                let points = count_points(metric)?;
                self.points += points;
                self.refuse(points, || text.to_owned());
                Ok::<_, Malformed>(())
            })
        })
    }

    fn refuse(&mut self, points: u64, text: impl FnOnce() -> String) {
        self.refused += points;
        if points > 0 {
            self.refusal.get_or_insert_with(text);
        }
    }

    /// `job` and `instance`.
    fn identity(&mut self, resource: &Attributes<'a>) -> Result<Vec<Label>, Malformed> {
        let mut labels = Vec::new();
        if let Some(service) = find(resource, "service.name") {
            let mut job = self.keys.value(service, &mut self.out)?;
            if let Some(namespace) = find(resource, "service.namespace") {
                let namespace = self.keys.value(namespace, &mut self.out)?;
                let parts = [self.out.text(namespace), self.out.text(job)];
                let whole = parts.join(&b'/');
                job = self.out.symbol(&whole)?;
            }
            labels.push((self.words.job, job));
        }
        if let Some(id) = find(resource, "service.instance.id") {
            let id = self.keys.value(id, &mut self.out)?;
            labels.push((self.words.instance, id));
        }
        Ok(labels)
    }

    fn scope(
        &mut self,
        message: &'a [u8],
        layers: &mut Layers<'a>,
        identity: &[Label],
        range: &mut Range,
    ) -> Result<(), Malformed> {
        layers.fixed.clear();
        if self.options.promote_scope_metadata {
            layers.fixed = self.scope_labels(message)?;
        }
        layers.fixed.extend_from_slice(identity);
        layers.sort(&self.out);
        children(message, 2, |metric| self.metric(metric, layers, range))
    }

    fn scope_labels(&mut self, message: &'a [u8]) -> Result<Vec<Label>, Malformed> {
        let (mut name, mut version, mut url): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut own = Attributes::new();
        fields(message, |field| {
            match field.number {
                1 => fields(field.bytes()?, |field| {
                    match field.number {
                        1 => name = field.bytes()?,
                        2 => version = field.bytes()?,
                        3 => hold_attribute(&mut own, field.bytes()?)?,
                        _ => {}
                    }
                    Ok::<_, Malformed>(())
                })?,
                3 => url = field.bytes()?,
                _ => {}
            }
            Ok::<_, Malformed>(())
        })?;
        let mut labels = Vec::new();
        if name.is_empty() {
            return Ok(labels);
        }
        for (key, value) in own {
            let key = format!("otel_scope_{}", String::from_utf8_lossy(key));
            if let Some(name) = names::label(&key) {
                let name = self.out.symbol(name.as_bytes())?;
                labels.push((name, self.keys.value(value, &mut self.out)?));
            }
        }
        for (label, value) in [("name", name), ("version", version), ("schema_url", url)] {
            let label = self.out.symbol(format!("otel_scope_{label}").as_bytes())?;
            labels.push((label, self.out.symbol(value)?));
        }
        Ok(labels)
    }

    fn metric(
        &mut self,
        message: &'a [u8],
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<(), Malformed> {
        let (mut name, mut help, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut data: Option<(u32, &'a [u8])> = None;
        fields(message, |field| {
            match field.number {
                1 => name = field.bytes()?,
                2 => help = field.bytes()?,
                3 => unit = field.bytes()?,
                GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY => {
                    data = Some((field.number, field.bytes()?));
                }
                _ => {}
            }
            Ok::<_, Malformed>(())
        })?;
        let Some((kind, data)) = data else {
            return Ok(());
        };
        let points = count_points(message)?;
        self.points += points;
        let (mut temporality, mut monotonic) = (0, false);
        if matches!(kind, SUM | HISTOGRAM | EXPONENTIAL) {
            fields(data, |field| {
                match field.number {
                    2 => temporality = field.varint()?,
                    3 => monotonic = field.varint()? != 0,
                    _ => {}
                }
                Ok::<_, Malformed>(())
            })?;
        }
        let name = String::from_utf8_lossy(name);
        let allowed = match temporality {
            _ if matches!(kind, GAUGE | SUMMARY) => true,
            CUMULATIVE => true,
            DELTA => self.options.allow_delta_temporality,
            _ => false,
        };
        if !allowed {
            self.refuse(points, || {
                let what = if temporality == DELTA { "delta" } else { "no" };
                format!(
                    "invalid temporality and type combination for metric {:?}: {what} temporality; only cumulative points are taken",
                    super::short(&name)
                )
            });
            return Ok(());
        }
        let unit = String::from_utf8_lossy(unit);
        let of_name = match kind {
            GAUGE => Kind::Gauge,
            SUM if monotonic => Kind::Counter,
            _ => Kind::Other,
        };
        let suffixes = self.options.add_metric_suffixes;
        let family = match names::metric(&name, &unit, of_name, suffixes) {
            Ok(family) => family,
            Err(text) => {
                self.refuse(points, || text);
                return Ok(());
            }
        };
        let delta = temporality == DELTA && !matches!(kind, GAUGE | SUMMARY);
        let metric = Metric {
            name: &name,
            family,
            metadata: Metadata {
                kind: match kind {
                    _ if delta => MetricType::Unknown,
                    SUM if monotonic => MetricType::Counter,
                    GAUGE | SUM => MetricType::Gauge,
                    SUMMARY => MetricType::Summary,
                    _ => MetricType::Histogram,
                },
                help: String::from_utf8_lossy(help).into_owned(),
                unit: names::unit(&unit),
            },
            counts: kind != GAUGE && (kind != SUM || monotonic),
            delta,
            symbols: RefCell::default(),
        };
        children(data, 1, |point| {
            let begin = self.out.begin_point();
            let taken = match kind {
                GAUGE | SUM => self.number(point, &metric, layers, range),
                HISTOGRAM => self.histogram(point, &metric, layers, range),
                EXPONENTIAL => self.exponential(point, &metric, layers, range),
                _ => self.summary(point, &metric, layers, range),
            };
            self.out.end_point(begin, taken.is_ok());
            match taken {
                Ok(()) => Ok(()),
                Err(Unusable::Malformed(what)) => Err(what),
                Err(Unusable::Refused(text)) => {
                    self.refuse(1, || {
                        format!("metric {:?}: {text}", super::short(metric.name))
                    });
                    Ok(())
                }
            }
        })
    }

    /// Labels of a point, and the names of its series, which the metadata tells of from now on.
    fn begin(
        &mut self,
        point: &mut Point<'a>,
        metric: &Metric<'_>,
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<Vec<Label>, Unusable> {
        let labels = layers.around(&mut point.attributes, &mut self.keys, &mut self.out)?;
        let time = milliseconds(point.time);
        // No time is no time to describe a resource at.
        if time != 0 {
            range.first = range.first.min(time);
            range.last = range.last.max(time);
        }
        let (_, family) = self.named(metric, "")?;
        if self.told.insert(family) {
            encode::put_metadata(&mut self.out.metadata, &metric.family, &metric.metadata);
        }
        Ok(labels)
    }

    /// The label of the metric's name with that end. A long name is looked for once, not for each point.
    fn named(&mut self, metric: &Metric<'_>, end: &'static str) -> Result<Label, Malformed> {
        let mut symbols = metric.symbols.borrow_mut();
        if let Some((_, name)) = symbols.iter().find(|(known, _)| *known == end) {
            return Ok((self.words.name, *name));
        }
        let text = format!("{}{end}", metric.family);
        let name = self.out.symbol(text.as_bytes())?;
        symbols.push((end, name));
        Ok((self.words.name, name))
    }

    fn number(
        &mut self,
        message: &'a [u8],
        metric: &Metric<'_>,
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<(), Unusable> {
        let mut point = Point::default();
        let mut value = None;
        fields(message, |field| {
            match field.number {
                2 => point.start = field.fixed64()?,
                3 => point.time = field.fixed64()?,
                4 => value = Some(field.double()?),
                5 => hold(&mut point.exemplars, field.bytes()?, "exemplars")?,
                6 => value = Some(field.fixed64()? as i64 as f64),
                7 => hold_attribute(&mut point.attributes, field.bytes()?)?,
                8 => point.flags = field.varint()?,
                _ => {}
            }
            Ok::<_, Malformed>(())
        })?;
        if value.is_none() && !point.is_stale() {
            return Err(refused("a point without a value"));
        }
        let labels = self.begin(&mut point, metric, layers, range)?;
        let exemplars = match metric.counts {
            true => self.exemplars(&point.exemplars)?,
            false => Vec::new(),
        };
        let sample = point.or_stale(value.unwrap_or_default());
        let name = self.named(metric, "")?;
        let times = point.times(metric);
        self.out
            .put_series(&labels, &[name], times, sample, &exemplars)?;
        Ok(())
    }

    fn histogram(
        &mut self,
        message: &'a [u8],
        metric: &Metric<'_>,
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<(), Unusable> {
        let mut point = Point::default();
        let (mut counts, mut bounds) = (Vec::new(), Vec::new());
        fields(message, |field| {
            match field.number {
                2 => point.start = field.fixed64()?,
                3 => point.time = field.fixed64()?,
                4 => point.count = field.fixed64()?,
                5 => point.sum = Some(field.double()?),
                6 => field.fixed64s(|count| counts.push(count))?,
                7 => field.fixed64s(|bound| bounds.push(f64::from_bits(bound)))?,
                8 => hold(&mut point.exemplars, field.bytes()?, "exemplars")?,
                9 => hold_attribute(&mut point.attributes, field.bytes()?)?,
                10 => point.flags = field.varint()?,
                _ => {}
            }
            Ok::<_, Malformed>(())
        })?;
        if !bounds.is_sorted_by(|a, b| a < b) {
            return Err(refused("the bounds of a histogram do not ascend"));
        }
        if bounds.last() == Some(&f64::INFINITY) {
            bounds.pop();
        }
        if self.options.convert_histograms_to_nhcb {
            return self.custom(point, &counts, bounds, metric, layers, range);
        }
        let labels = self.begin(&mut point, metric, layers, range)?;
        let times = point.times(metric);
        if let Some(sum) = point.sum {
            let name = self.named(metric, "_sum")?;
            let sample = point.or_stale(sum);
            self.out.put_series(&labels, &[name], times, sample, &[])?;
        }
        let name = self.named(metric, "_count")?;
        let all = point.or_stale(point.count as f64);
        self.out.put_series(&labels, &[name], times, all, &[])?;
        let mut exemplars = self.exemplars(&point.exemplars)?;
        exemplars.sort_by(|a, b| a.value.total_cmp(&b.value));
        let mut exemplars = exemplars.as_slice();
        let name = self.named(metric, "_bucket")?;
        let mut below = 0u64;
        for (bound, count) in bounds.iter().zip(&counts) {
            below = below.saturating_add(*count);
            let here = exemplars.partition_point(|exemplar| exemplar.value <= *bound);
            let (own, above) = exemplars.split_at(here);
            exemplars = above;
            let bound = self.out.symbol(decimal(*bound).as_bytes())?;
            let sample = point.or_stale(below as f64);
            let labeled = [name, (self.words.le, bound)];
            self.out.put_series(&labels, &labeled, times, sample, own)?;
        }
        let bound = self.out.symbol(b"+Inf")?;
        let labeled = [name, (self.words.le, bound)];
        self.out
            .put_series(&labels, &labeled, times, all, exemplars)?;
        Ok(())
    }

    /// A histogram with bounds as a native one.
    fn custom(
        &mut self,
        mut point: Point<'a>,
        counts: &[u64],
        bounds: Vec<f64>,
        metric: &Metric<'_>,
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<(), Unusable> {
        let mut side = Side::default();
        for (index, count) in (0..).zip(counts) {
            side.add(index, *count).map_err(refused)?;
        }
        side.finish().map_err(refused)?;
        let histogram = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            positive_spans: side.spans,
            positive_deltas: side.deltas,
            custom_values: bounds,
            ..Histogram::default()
        };
        self.native(&mut point, histogram, metric, layers, range)
    }

    fn exponential(
        &mut self,
        message: &'a [u8],
        metric: &Metric<'_>,
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<(), Unusable> {
        let mut point = Point::default();
        let (mut scale, mut zero_count, mut zero_threshold) = (0, 0, 0.0);
        let (mut positive, mut negative): (&[u8], &[u8]) = (&[], &[]);
        fields(message, |field| {
            match field.number {
                1 => hold_attribute(&mut point.attributes, field.bytes()?)?,
                2 => point.start = field.fixed64()?,
                3 => point.time = field.fixed64()?,
                4 => point.count = field.fixed64()?,
                5 => point.sum = Some(field.double()?),
                6 => scale = model::varint::unzigzag(field.varint()?) as i32,
                7 => zero_count = field.fixed64()?,
                8 => positive = field.bytes()?,
                9 => negative = field.bytes()?,
                10 => point.flags = field.varint()?,
                11 => hold(&mut point.exemplars, field.bytes()?, "exemplars")?,
                14 => zero_threshold = field.double()?,
                _ => {}
            }
            Ok::<_, Malformed>(())
        })?;
        if scale < SCALE_MIN {
            return Err(refused(format!(
                "cannot convert exponential to native histogram: scale must be >= {SCALE_MIN}, was {scale}"
            )));
        }
        let schema = scale.min(SCALE_MAX);
        let halvings = (scale - schema) as u32;
        let [positive, negative] = [side(positive, halvings)?, side(negative, halvings)?];
        let histogram = Histogram {
            schema,
            zero_threshold: match zero_threshold > 0.0 {
                true => zero_threshold,
                false => ZERO_THRESHOLD,
            },
            zero_count,
            positive_spans: positive.spans,
            positive_deltas: positive.deltas,
            negative_spans: negative.spans,
            negative_deltas: negative.deltas,
            ..Histogram::default()
        };
        self.native(&mut point, histogram, metric, layers, range)
    }

    fn native(
        &mut self,
        point: &mut Point<'a>,
        mut histogram: Histogram,
        metric: &Metric<'_>,
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<(), Unusable> {
        if metric.delta {
            histogram.counter_reset = CounterReset::Gauge;
        }
        if point.is_stale() {
            histogram = Histogram {
                schema: histogram.schema.max(SCALE_MIN),
                zero_threshold: ZERO_THRESHOLD,
                sum: model::stale_nan(),
                counter_reset: histogram.counter_reset,
                ..Histogram::default()
            };
        } else {
            histogram.count = point.count;
            histogram.sum = point.sum.unwrap_or_default();
        }
        let labels = self.begin(point, metric, layers, range)?;
        let exemplars = self.exemplars(&point.exemplars)?;
        let name = self.named(metric, "")?;
        let histogram = HistogramSample::Int(histogram);
        let sample = Sample::Histogram(&histogram);
        let times = point.times(metric);
        self.out
            .put_series(&labels, &[name], times, sample, &exemplars)?;
        Ok(())
    }

    fn summary(
        &mut self,
        message: &'a [u8],
        metric: &Metric<'_>,
        layers: &Layers<'a>,
        range: &mut Range,
    ) -> Result<(), Unusable> {
        let mut point = Point::default();
        let mut quantiles = Vec::new();
        let mut sum = 0.0;
        fields(message, |field| {
            match field.number {
                2 => point.start = field.fixed64()?,
                3 => point.time = field.fixed64()?,
                4 => point.count = field.fixed64()?,
                5 => sum = field.double()?,
                6 => hold(&mut quantiles, field.bytes()?, "quantiles")?,
                7 => hold_attribute(&mut point.attributes, field.bytes()?)?,
                8 => point.flags = field.varint()?,
                _ => {}
            }
            Ok::<_, Malformed>(())
        })?;
        let labels = self.begin(&mut point, metric, layers, range)?;
        let times = point.times(metric);
        for (end, value) in [("_sum", sum), ("_count", point.count as f64)] {
            let name = self.named(metric, end)?;
            let sample = point.or_stale(value);
            self.out.put_series(&labels, &[name], times, sample, &[])?;
        }
        let name = self.named(metric, "")?;
        let times = Times { start: 0, ..times };
        for message in quantiles {
            let (mut quantile, mut value) = (0.0, 0.0);
            fields(message, |field| {
                match field.number {
                    1 => quantile = field.double()?,
                    2 => value = field.double()?,
                    _ => {}
                }
                Ok::<_, Malformed>(())
            })?;
            let quantile = self.out.symbol(decimal(quantile).as_bytes())?;
            let labeled = [name, (self.words.quantile, quantile)];
            let sample = point.or_stale(value);
            self.out.put_series(&labels, &labeled, times, sample, &[])?;
        }
        Ok(())
    }

    fn exemplars(&mut self, messages: &[&'a [u8]]) -> Result<Vec<Exemplar>, Unusable> {
        messages
            .iter()
            .map(|message| self.exemplar(message))
            .collect()
    }

    fn exemplar(&mut self, message: &'a [u8]) -> Result<Exemplar, Unusable> {
        let mut exemplar = Exemplar::default();
        let (mut span, mut trace): (&[u8], &[u8]) = (&[], &[]);
        let mut filtered = Attributes::new();
        let mut value = None;
        fields(message, |field| {
            match field.number {
                2 => exemplar.time_ms = milliseconds(field.fixed64()?),
                3 => value = Some(field.double()?),
                4 => span = field.bytes()?,
                5 => trace = field.bytes()?,
                6 => value = Some(field.fixed64()? as i64 as f64),
                7 => hold_attribute(&mut filtered, field.bytes()?)?,
                _ => {}
            }
            Ok::<_, Malformed>(())
        })?;
        exemplar.value = value.ok_or_else(|| refused("an exemplar without a value"))?;
        let mut chars = 0;
        for (name, id) in [("trace_id", trace), ("span_id", span)] {
            if id.iter().any(|byte| *byte != 0) {
                let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                chars += name.len() + id.len();
                let name = self.out.symbol(name.as_bytes())?;
                exemplar
                    .labels
                    .push((name, self.out.symbol(id.as_bytes())?));
            }
        }
        filtered.sort_by_key(|(key, _)| *key);
        let mut labels = Vec::with_capacity(filtered.len());
        for (key, value) in filtered {
            let value = self.keys.value(value, &mut self.out)?;
            let key = self.out.symbol(key)?;
            let count = |text: &[u8]| String::from_utf8_lossy(text).chars().count();
            chars += count(self.out.text(key)) + count(self.out.text(value));
            labels.push((key, value));
        }
        if chars <= EXEMPLAR_CHARS_MAX {
            exemplar.labels.append(&mut labels);
        }
        Ok(exemplar)
    }

    /// What a resource is, beside its identity.
    fn target_info(
        &mut self,
        resource: Attributes<'a>,
        identity: Vec<Label>,
        range: &Range,
    ) -> Result<(), Malformed> {
        const IDENTITY: [&[u8]; 3] = [
            b"service.namespace",
            b"service.name",
            b"service.instance.id",
        ];
        let mut rest = resource;
        rest.retain(|(key, _)| !IDENTITY.contains(key));
        if rest.is_empty() || identity.iter().all(|label| label.1 == EMPTY) {
            return Ok(());
        }
        // A key that cannot be a label costs that attribute only: the points are stored.
        rest.retain(|(key, _)| names::label(&String::from_utf8_lossy(key)).is_some());
        let mut layers = Layers::default();
        layers.fixed = identity;
        layers.sort(&self.out);
        let mut labels = match layers.around(&mut rest, &mut self.keys, &mut self.out) {
            Ok(labels) => labels,
            Err(Unusable::Malformed(what)) => return Err(what),
            Err(Unusable::Refused(_)) => return Ok(()),
        };
        let name = (self.words.name, self.out.symbol(b"target_info")?);
        labels.retain(|label| label.0 != name.0);
        let place = labels.partition_point(|label| self.out.text(label.0) < self.out.text(name.0));
        labels.insert(place, name);
        let steps = (range.last - range.first) / TARGET_INFO_STEP_MS;
        let first = match steps >= TARGET_INFO_MAX {
            true => range.last - (TARGET_INFO_MAX - 1) * TARGET_INFO_STEP_MS,
            false => range.first,
        };
        let mut times: Vec<i64> = (0..)
            .map(|step| first + step * TARGET_INFO_STEP_MS)
            .take_while(|time| *time < range.last)
            .collect();
        times.push(range.last);
        self.out.put_ones(&labels, &times)?;
        if self.told.insert(name.1) {
            let metadata = Metadata {
                kind: MetricType::Gauge,
                help: "Target metadata".to_owned(),
                unit: String::new(),
            };
            encode::put_metadata(&mut self.out.metadata, "target_info", &metadata);
        }
        Ok(())
    }
}

/// The points of a metric, of whatever kind.
fn count_points(metric: &[u8]) -> Result<u64, Malformed> {
    let mut points = 0;
    fields(metric, |field| match field.number {
        GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY => {
            points = 0;
            children(field.bytes()?, 1, |_| {
                points += 1;
                Ok::<_, Malformed>(())
            })
        }
        _ => Ok(()),
    })?;
    Ok(points)
}

/// One side of an exponential histogram: `{ 1 offset, 2 counts }`.
fn side(message: &[u8], halvings: u32) -> Result<Side, Unusable> {
    let mut offset = 0;
    fields(message, |field| {
        if field.number == 1 {
            offset = i64::from(model::varint::unzigzag(field.varint()?) as i32);
        }
        Ok::<_, Malformed>(())
    })?;
    let mut side = Side::default();
    let mut index = offset;
    let mut failed = None;
    fields(message, |field| match field.number {
        2 => varints(&field, |count| {
            if failed.is_none() {
                failed = side.add(exponential_index(index, halvings), count).err();
            }
            index += 1;
            Ok(())
        }),
        _ => Ok(()),
    })?;
    match failed.map_or_else(|| side.finish(), Err) {
        Ok(()) => Ok(side),
        Err(text) => Err(refused(format!("an exponential histogram: {text}"))),
    }
}

/// The shortest decimal number that is this one, without an exponent.
fn decimal(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}
