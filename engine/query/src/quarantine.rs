//! Query texts that made us panic, refused for a minute: a dashboard repeats its query every few seconds.
//!
//! Per tenant: what made us panic on one tenant's data may be fine on another's, and nobody shall be able to block a text for all.

use std::collections::VecDeque;
use std::sync::Mutex;

use model::TenantId;
use tokio::time::Instant;

use crate::options::{QUARANTINE, QUARANTINED_MAX};

/// The texts, oldest first. Locked once per query for a look at a list that is nearly always empty.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<VecDeque<(Instant, TenantId, String)>>);

impl Quarantine {
    /// Whether the text is refused now.
    pub(crate) fn holds(&self, tenant: &TenantId, text: &str) -> bool {
        let mut texts = self.texts();
        let now = Instant::now();
        while texts
            .front()
            .is_some_and(|(since, ..)| now.duration_since(*since) >= QUARANTINE)
        {
            texts.pop_front();
        }
        texts
            .iter()
            .any(|(_, whose, held)| whose == tenant && held == text)
    }

    /// Refuses the text from now on.
    pub(crate) fn add(&self, tenant: &TenantId, text: &str) {
        let mut texts = self.texts();
        if texts.len() == QUARANTINED_MAX {
            texts.pop_front();
        }
        texts.push_back((Instant::now(), tenant.clone(), text.to_owned()));
    }

    fn texts(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, TenantId, String)>> {
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
        let (quarantine, a) = (Quarantine::default(), TenantId::fake());
        quarantine.add(&a, "boom");
        assert!(quarantine.holds(&a, "boom") && !quarantine.holds(&a, "fine"));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(quarantine.holds(&a, "boom"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!quarantine.holds(&a, "boom"));
    }

    /// Story: the text was the key, so one tenant's bad data took the query from everybody.
    #[tokio::test(start_paused = true)]
    async fn the_text_of_one_tenant_is_not_refused_to_another() {
        let quarantine = Quarantine::default();
        quarantine.add(&TenantId::new("a").unwrap(), "sum(up)");
        assert!(!quarantine.holds(&TenantId::new("b").unwrap(), "sum(up)"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_bounded_and_forgets_the_oldest() {
        let (quarantine, a) = (Quarantine::default(), TenantId::fake());
        for i in 0..=QUARANTINED_MAX {
            quarantine.add(&a, &i.to_string());
        }
        assert!(!quarantine.holds(&a, "0") && quarantine.holds(&a, "1"));
    }
}
