//! Measures the process for `-memory.limit`: a thread that reads `/proc/self/statm` twenty times a second.
//!
//! Resident memory is what a cgroup or the machine counts against us. It holds what the allocator has freed and not yet given back (jemalloc returns it within
//! seconds), so the measure errs to the careful side. A reading costs some microseconds: a ten-thousandth of a CPU.

use std::time::Duration;

use anyhow::Context;
use prometheus::{IntGauge, Registry};
use shard::Memory;

/// Between two measurements: with half a million new series a second and core that is 10 MB.
const PERIOD: Duration = Duration::from_millis(50);

/// Of what there is, where nothing is said.
const DEFAULT_PERCENT: u64 = 80;

/// Begins to measure. A limit of 0 is the default: a part of what the system allows, none where it does not tell.
pub(crate) fn watch(limit: u64, registry: &Registry) -> anyhow::Result<Memory> {
    let limit = match limit {
        0 => shard::topology::memory_bytes().map_or(0, |bytes| bytes / 100 * DEFAULT_PERCENT),
        limit => limit,
    };
    let gauge = |name, help| -> anyhow::Result<IntGauge> {
        let gauge = IntGauge::new(name, help)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let shown = gauge(
        "myelin_memory_limit_bytes",
        "Memory that the process may take; 0 is no limit.",
    )?;
    shown.set(i64::try_from(limit).unwrap_or(i64::MAX));
    let tight = gauge(
        "myelin_memory_tight",
        "1 while new series are refused for want of memory.",
    )?;
    let memory = Memory::new(limit);
    tracing::info!(limit_bytes = limit, "memory limit");
    let level = memory.clone();
    let measure = move || {
        let mut was_tight = false;
        loop {
            // What cannot be read leaves the level as it is.
            if let Some(bytes) = resident_bytes() {
                level.note(bytes);
            }
            let is_tight = level.is_tight();
            tight.set(i64::from(is_tight));
            if is_tight != was_tight {
                let (used_bytes, limit_bytes) = (level.used(), limit);
                match is_tight {
                    true => tracing::warn!(
                        used_bytes,
                        limit_bytes,
                        "memory is tight: new series are refused"
                    ),
                    false => {
                        tracing::info!(used_bytes, limit_bytes, "memory is not tight any more")
                    }
                }
                was_tight = is_tight;
            }
            std::thread::sleep(PERIOD);
        }
    };
    std::thread::Builder::new()
        .name("memory".to_owned())
        .spawn(measure)
        .context("the thread that measures memory")?;
    Ok(memory)
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
