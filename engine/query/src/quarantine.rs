//! Query texts that made us panic, refused for a minute: a dashboard repeats its query every few seconds.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::time::Instant;

use crate::options::{QUARANTINE, QUARANTINED_MAX};

/// The texts, oldest first. Locked once per query for a look at a list that is nearly always empty.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<VecDeque<(Instant, String)>>);

impl Quarantine {
    /// Whether the text is refused now.
    pub(crate) fn holds(&self, text: &str) -> bool {
        let mut texts = self.texts();
        let now = Instant::now();
        while texts
            .front()
            .is_some_and(|(since, _)| now.duration_since(*since) >= QUARANTINE)
        {
            texts.pop_front();
        }
        texts.iter().any(|(_, held)| held == text)
    }

    /// Refuses the text from now on.
    pub(crate) fn add(&self, text: &str) {
        let mut texts = self.texts();
        if texts.len() == QUARANTINED_MAX {
            texts.pop_front();
        }
        texts.push_back((Instant::now(), text.to_owned()));
    }

    fn texts(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, String)>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_text_is_refused_for_a_minute_and_no_longer() {
        let quarantine = Quarantine::default();
        quarantine.add("boom");
        assert!(quarantine.holds("boom") && !quarantine.holds("fine"));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(quarantine.holds("boom"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!quarantine.holds("boom"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_bounded_and_forgets_the_oldest() {
        let quarantine = Quarantine::default();
        for i in 0..=QUARANTINED_MAX {
            quarantine.add(&i.to_string());
        }
        assert!(!quarantine.holds("0") && quarantine.holds("1"));
    }
}
