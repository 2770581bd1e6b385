//! A bucket whose operations are counted and timed.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::bucket::{Body, Bucket, Condition, Listing, Object, Piece, Stat};
use crate::error::Error;

/// The operations of a bucket, as metrics name them.
const OPERATIONS: [&str; 8] = [
    "head",
    "get",
    "read",
    "put",
    "put_large",
    "list",
    "delete",
    "sweep",
];

/// See the module.
#[derive(Debug)]
pub struct Metered<B> {
    inner: B,
    operations: IntCounterVec,
    failures: IntCounterVec,
    seconds: HistogramVec,
    read_bytes: prometheus::IntCounter,
    written_bytes: prometheus::IntCounter,
}

impl<B: Bucket> Metered<B> {
    /// Wraps a bucket.
    ///
    /// Errors: the registry has such metrics already.
    pub fn new(inner: B, registry: &Registry) -> Result<Metered<B>, prometheus::Error> {
        let counters = |name: &str, help: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &["operation"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let bytes = |name: &str, help: &str| {
            let counter = prometheus::IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let options = HistogramOpts::new(
            "myelin_bucket_operation_duration_seconds",
            "How long operations on the bucket took; of reads side by side, all together.",
        )
        .buckets(vec![
            0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0,
        ]);
        let metered = Metered {
            inner,
            operations: counters(
                "myelin_bucket_operations_total",
                "Requests to the bucket, those that a store repeats by itself apart.",
            )?,
            failures: counters(
                "myelin_bucket_operation_failures_total",
                "Requests to the bucket that failed; an object that is not there and a condition that does not hold are no failures.",
            )?,
            seconds: HistogramVec::new(options, &["operation"])?,
            read_bytes: bytes(
                "myelin_bucket_read_bytes_total",
                "Bytes read from the bucket.",
            )?,
            written_bytes: bytes(
                "myelin_bucket_written_bytes_total",
                "Bytes of objects written to the bucket.",
            )?,
        };
        registry.register(Box::new(metered.seconds.clone()))?;
        // From the start, so that an alert on a rate sees the first failure too.
        for operation in OPERATIONS {
            for counters in [&metered.operations, &metered.failures] {
                counters.with_label_values(&[operation]);
            }
            metered.seconds.with_label_values(&[operation]);
        }
        Ok(metered)
    }

    fn count<T>(
        &self,
        operation: &str,
        requests: usize,
        work: impl FnOnce(&B) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let seconds = self.seconds.with_label_values(&[operation]);
        let timer = seconds.start_timer();
        let result = work(&self.inner);
        timer.observe_duration();
        let operations = self.operations.with_label_values(&[operation]);
        operations.inc_by(requests as u64);
        if let Err(error) = &result
            && !matches!(error, Error::NotFound { .. } | Error::Condition { .. })
        {
            self.failures.with_label_values(&[operation]).inc();
        }
        result
    }
}

impl<B: Bucket> Bucket for Metered<B> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn head(&self, key: &str) -> Result<Option<Stat>, Error> {
        self.count("head", 1, |inner| inner.head(key))
    }

    fn get(&self, key: &str) -> Result<Option<Object>, Error> {
        let found = self.count("get", 1, |inner| inner.get(key))?;
        let bytes = found.as_ref().map_or(0, |found| found.bytes.len());
        self.read_bytes.inc_by(bytes as u64);
        Ok(found)
    }

    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, Error> {
        let read = self.count("read", pieces.len(), |inner| inner.read(pieces))?;
        let bytes = read.iter().map(Vec::len).sum::<usize>();
        self.read_bytes.inc_by(bytes as u64);
        Ok(read)
    }

    fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Stat, Error> {
        let stat = self.count("put", 1, |inner| inner.put(key, bytes, condition))?;
        self.written_bytes.inc_by(bytes.len() as u64);
        Ok(stat)
    }

    fn put_large(&self, key: &str, body: &mut dyn Body) -> Result<Stat, Error> {
        let stat = self.count("put_large", 1, |inner| inner.put_large(key, body))?;
        self.written_bytes.inc_by(stat.len);
        Ok(stat)
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error> {
        self.count("list", 1, |inner| inner.list(prefix, after))
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        self.count("delete", 1, |inner| inner.delete(key))
    }

    fn sweep(&self, prefix: &str, begun_before_ms: i64) -> Result<u64, Error> {
        self.count("sweep", 1, |inner| inner.sweep(prefix, begun_before_ms))
    }
}
