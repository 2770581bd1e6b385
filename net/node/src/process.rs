//! Numbers of the process and its allocator, read when somebody looks. Names of the Prometheus client libraries.

use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Opts};
use tikv_jemalloc_ctl::{Access, AsName, epoch, profiling, stats};

/// Raises the limit on open files to what the system lets us have, and returns it. The usual soft limit of 1024 is
/// there for programs that use `select`, and would be used up by a thousand idle connections.
pub(crate) fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // `None` is unlimited, which Linux does not grant for files.
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused the old limit holds, and is what we return.
    let _ = setrlimit(Resource::Nofile, wanted);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets the allocator give free memory back from threads of its own.
///
/// Else an arena gives back when somebody allocates from it: what the writer of blocks freed after a cut stayed resident for hours, and cores made the
/// system calls in the middle of a push. Errors: why it cannot; memory is then given back late.
pub(crate) fn give_memory_back() -> Result<(), String> {
    tikv_jemalloc_ctl::background_thread::write(true).map_err(|error| error.to_string())
}

/// What is allocated and where, in the format of jemalloc, for `jeprof` and `pprof`.
///
/// Errors: the process was not started for it, or the file that jemalloc writes cannot be made.
pub(crate) fn heap_profile() -> Result<Vec<u8>, String> {
    // jemalloc wants a path that lives for ever, and one dump at a time is enough.
    static PATH: Mutex<Option<&'static [u8]>> = Mutex::new(None);
    if !profiling::prof::read().unwrap_or(false) {
        return Err(
            "heap profiles are off: start the process with MALLOC_CONF=prof:true,lg_prof_sample:19 in its environment"
                .to_owned(),
        );
    }
    let mut path = PATH.lock().unwrap_or_else(PoisonError::into_inner);
    let path = *path.get_or_insert_with(|| {
        let file = format!("myelin-heap-{}.prof\0", std::process::id());
        let path = std::env::temp_dir().join(file);
        Vec::leak(path.into_os_string().into_encoded_bytes())
    });
    let dumped = b"prof.dump\0".name().write(path);
    dumped.map_err(|error| format!("no heap profile: {error}"))?;
    let text = String::from_utf8_lossy(&path[..path.len() - 1]).into_owned();
    let profile = std::fs::read(&text).map_err(|error| format!("{text}: {error}"))?;
    // One that stays behind is overwritten by the next.
    let _ = std::fs::remove_file(&text);
    Ok(profile)
}

/// Collects from `/proc/self` and from jemalloc.
pub(crate) struct Process {
    cpu_seconds: Gauge,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    threads: Gauge,
    start_seconds: Gauge,
    allocated_bytes: Gauge,
    active_bytes: Gauge,
    build: Gauge,
}

impl Process {
    /// `started` is the wall clock at start, in seconds.
    pub(crate) fn new(started: f64) -> Process {
        let gauge = |name: &str, help: &str| Gauge::new(name, help).expect("a valid metric");
        let build = Opts::new("myelin_build_info", "1, and the version that runs.")
            .const_label("version", crate::VERSION)
            .const_label("revision", "")
            .const_label("branch", "")
            .const_label("goversion", "");
        let process = Process {
            cpu_seconds: gauge(
                "process_cpu_seconds_total",
                "User and system CPU time, seconds.",
            ),
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory."),
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory."),
            open_fds: gauge("process_open_fds", "Open file descriptors."),
            threads: gauge("process_threads", "Threads."),
            start_seconds: gauge("process_start_time_seconds", "Start, as a Unix time."),
            allocated_bytes: gauge("myelin_allocated_bytes", "Bytes allocated by the process."),
            active_bytes: gauge(
                "myelin_active_bytes",
                "Bytes of pages with allocations in them.",
            ),
            build: Gauge::with_opts(build).expect("a valid metric"),
        };
        process.start_seconds.set(started);
        process.build.set(1.0);
        process
    }

    fn gauges(&self) -> [&Gauge; 9] {
        [
            &self.cpu_seconds,
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.open_fds,
            &self.threads,
            &self.start_seconds,
            &self.allocated_bytes,
            &self.active_bytes,
            &self.build,
        ]
    }

    /// What cannot be read keeps its last value.
    fn refresh(&self) {
        if let Some(stat) = std::fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|s| Stat::parse(&s))
        {
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            self.cpu_seconds.set(stat.cpu_ticks as f64 / ticks);
            self.threads.set(stat.threads as f64);
            self.virtual_bytes.set(stat.virtual_bytes as f64);
            self.resident_bytes
                .set((stat.resident_pages * rustix::param::page_size() as u64) as f64);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(entries.count() as f64);
        }
        if epoch::advance().is_ok()
            && let (Ok(allocated), Ok(active)) = (stats::allocated::read(), stats::active::read())
        {
            self.allocated_bytes.set(allocated as f64);
            self.active_bytes.set(active as f64);
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges()
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let mut families: Vec<_> = self
            .gauges()
            .into_iter()
            .flat_map(Collector::collect)
            .collect();
        // CPU time only grows, but is read from outside: a gauge to us, a counter to everybody else.
        for family in families.iter_mut().filter(|f| f.name().ends_with("_total")) {
            let value = family.get_metric()[0].get_gauge().get_value();
            let mut counter = prometheus::proto::Counter::default();
            counter.set_value(value);
            family.mut_metric()[0].set_counter(counter);
            family.set_field_type(prometheus::proto::MetricType::COUNTER);
        }
        families
    }
}

/// Fields of `/proc/self/stat`. Source: proc(5).
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Stat> {
        // The second field is the name in parentheses, and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<u64> = rest
            .split_whitespace()
            .map(|f| f.parse().unwrap_or(0))
            .collect();
        // `rest` begins with field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_sees_itself() {
        let families = Process::new(1.0).collect();
        let value = |name: &str| {
            let family = families.iter().find(|f| f.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_threads") >= 1.0);
        assert!(value("myelin_allocated_bytes") > 0.0);
        let cpu = families
            .iter()
            .find(|f| f.name() == "process_cpu_seconds_total")
            .unwrap();
        assert_eq!(cpu.get_field_type(), prometheus::proto::MetricType::COUNTER);
    }

    #[test]
    fn as_many_files_as_the_system_lets_us_have() {
        let raised = raise_open_files();
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        assert_eq!(raised, hard.unwrap_or(u64::MAX));
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 11 22 0 0 20 0 5 0 9 4096 3 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (
                stat.cpu_ticks,
                stat.threads,
                stat.virtual_bytes,
                stat.resident_pages
            ),
            (33, 5, 4096, 3)
        );
    }
}
