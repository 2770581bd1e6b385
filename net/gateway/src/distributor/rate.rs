//! The rate of a tenant: a token bucket, all or nothing; and how fast it has been lately, to be shown.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Filled by time, emptied by samples. Starts full.
#[derive(Debug, Default)]
pub(crate) struct TokenBucket {
    /// Tokens when last looked at; `None` before the first time.
    state: Option<(f64, Instant)>,
}

impl TokenBucket {
    /// Takes `count` tokens, or none. An infinite rate always passes; more than `burst` at once never does.
    ///
    /// Errors: how long the sender had better wait; the longest wait that is told is a minute, also where no wait would help.
    pub(crate) fn take(
        &mut self,
        count: u64,
        rate: f64,
        burst: u64,
        now: Instant,
    ) -> Result<(), Duration> {
        const WAIT_MAX: Duration = Duration::from_secs(60);
        if rate.is_infinite() {
            return Ok(());
        }
        let burst = burst as f64;
        let (tokens, since) = self.state.unwrap_or((burst, now));
        let grown = now.saturating_duration_since(since).as_secs_f64() * rate;
        let tokens = (tokens + grown).min(burst);
        let wanted = count as f64;
        let passes = wanted <= tokens;
        self.state = Some((if passes { tokens - wanted } else { tokens }, now));
        if passes {
            return Ok(());
        }
        let wait = (wanted - tokens) / rate;
        Err(if wait.is_finite() && wait < WAIT_MAX.as_secs_f64() {
            Duration::from_secs_f64(wait)
        } else {
            WAIT_MAX
        })
    }
}

/// Events a second, smoothed over some ticks; follows a count that only grows. Source: Cortex `pkg/util/math.EwmaRate`.
#[derive(Debug, Default)]
pub(crate) struct SmoothRate(Mutex<Smooth>);

#[derive(Debug, Default)]
struct Smooth {
    /// `None` before the first tick.
    rate: Option<f64>,
    counted: u64,
}

impl SmoothRate {
    /// Weight of the last tick.
    const ALPHA: f64 = 0.2;

    /// So many there are by now, `seconds` after the last tick.
    pub(crate) fn tick(&self, count: u64, seconds: f64) {
        let mut smooth = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = count.saturating_sub(smooth.counted) as f64 / seconds;
        smooth.counted = count;
        smooth.rate = Some(match smooth.rate {
            None => now,
            Some(rate) => rate + Self::ALPHA * (now - rate),
        });
    }

    pub(crate) fn get(&self) -> f64 {
        let smooth = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        smooth.rate.unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_then_its_rate_and_never_a_part() {
        let mut bucket = TokenBucket::default();
        let mut take = |count| bucket.take(count, 10.0, 20, Instant::now());
        assert_eq!(take(15), Ok(()));
        assert_eq!(take(6), Err(Duration::from_millis(100)));
        assert_eq!(take(5), Ok(()));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(take(6), Err(Duration::from_millis(100)));
        assert_eq!(take(5), Ok(()));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(
            take(21),
            Err(Duration::from_millis(100)),
            "more than the burst"
        );
        assert_eq!(take(20), Ok(()));
    }

    #[test]
    fn a_smooth_rate_begins_with_the_first_tick_and_follows_slowly() {
        let rate = SmoothRate::default();
        assert_eq!(rate.get(), 0.0);
        rate.tick(150, 15.0);
        assert_eq!(rate.get(), 10.0);
        rate.tick(150, 15.0);
        assert_eq!(rate.get(), 8.0);
        rate.tick(150 + 15 * 108, 15.0);
        assert!((rate.get() - 28.0).abs() < 1e-9);
    }

    #[tokio::test(start_paused = true)]
    async fn an_infinite_rate_passes_anything_and_a_zero_rate_nothing_after_the_burst() {
        let mut bucket = TokenBucket::default();
        assert_eq!(
            bucket.take(u64::MAX, f64::INFINITY, 0, Instant::now()),
            Ok(())
        );
        assert_eq!(bucket.take(1, 0.0, 1, Instant::now()), Ok(()));
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(
            bucket.take(1, 0.0, 1, Instant::now()),
            Err(Duration::from_secs(60))
        );
    }
}
