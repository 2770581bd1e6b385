//! What a durable write costs in each world: wall time, CPU and context switches per write.
//!
//! The write is the log's: one aligned O_DIRECT + O_DSYNC write at a time into an already written
//! file; beside it the alternatives that `docs/decisions/0001` weighs (never written, buffered,
//! RWF_DSYNC on a buffered descriptor, write and fdatasync). And the wake: a ring of the doorbell
//! of a sleeping core and the answer.
//!
//! `cargo bench -p reactor --bench dsync [-- DIR]` measures in DIR (default: the directory for
//! temporary files), all cases in turn, many short rounds, and prints the median round, and the
//! fastest one's wall time (on a busy machine wall time is mostly waiting for a CPU). Without
//! `--bench`, as under `cargo test`, each case runs a few times so that it cannot rot. System calls
//! are best counted from outside: `-- DIR CASE` with a part of a case's name runs only the matching
//! ones, under `strace -f -c` or `perf trace -s`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reactor::{Done, Event, File, IoMode, Op, OpenMode, Options, Reactor};

/// Segment size: small enough to be filled quickly, large enough that writes do not repeat a place
/// soon.
const FILE_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    direct: bool,
    /// Opened O_DSYNC.
    dsync: bool,
    /// RWF_DSYNC with each write.
    flag: bool,
    /// fdatasync after each write.
    sync: bool,
    /// Whether the file is filled before.
    recycled: bool,
    /// Whether the core computes (here: polls) while the write is in flight, instead of sleeping.
    busy: bool,
}

/// The log's write; the others differ from it in what their names say.
const LOG: Case = Case {
    name: "direct+dsync recycled",
    direct: true,
    dsync: true,
    flag: false,
    sync: false,
    recycled: true,
    busy: false,
};

const CASES: [Case; 6] = [
    LOG,
    Case {
        name: "direct+dsync never written",
        recycled: false,
        ..LOG
    },
    Case {
        name: "direct+dsync, core busy",
        busy: true,
        ..LOG
    },
    Case {
        name: "direct RWF_DSYNC recycled",
        dsync: false,
        flag: true,
        ..LOG
    },
    Case {
        name: "buffered dsync recycled",
        direct: false,
        ..LOG
    },
    Case {
        name: "buffered write, fdatasync",
        direct: false,
        dsync: false,
        sync: true,
        ..LOG
    },
];

/// Of one write, on average over a round.
#[derive(Clone, Copy)]
struct Figures {
    wall_us: f64,
    cpu_us: f64,
    switches: f64,
    enters: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // Test runners ask what there is, and which of it is left out.
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("dsync_on_tiny_input: test");
        }
        return;
    }
    let full = arguments.iter().any(|argument| argument == "--bench");
    let mut rest = arguments
        .into_iter()
        .filter(|argument| !argument.starts_with("--"));
    let dir = rest.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let wanted = rest.next().unwrap_or_default();
    let (writes, rounds) = if full { (200, 25) } else { (8, 1) };
    println!(
        "{:<10} {:<28} {:>6} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "world", "case", "bytes", "best us", "wall us", "cpu us", "switches", "enters"
    );
    let dir = dir.join(format!("reactor-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("the directory is writable");
    for len in [4096, 65_536] {
        for case in CASES {
            let mut figures = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                for (io, figures) in [IoMode::Uring, IoMode::Threads]
                    .into_iter()
                    .zip(&mut figures)
                {
                    let name = format!("{io} {} {len}", case.name);
                    if name.contains(&wanted) {
                        figures.extend(measure(&dir, io, case, len, writes));
                    }
                }
            }
            for (world, figures) in ["uring", "threads"].into_iter().zip(&figures) {
                print(world, case.name, len, figures);
            }
        }
    }
    for io in [IoMode::Uring, IoMode::Threads] {
        if format!("{io} wake").contains(&wanted) {
            let figures: Vec<_> = (0..rounds).flat_map(|_| wake(io, writes * 10)).collect();
            print(&io.to_string(), "wake and answer", 0, &figures);
        }
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}

fn print(world: &str, case: &str, len: usize, figures: &[Figures]) {
    if figures.is_empty() {
        return;
    }
    let median = |field: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{world:<10} {case:<28} {len:>6} {:>10.1} {:>10.1} {:>10.2} {:>10.2} {:>8.2}",
        figures
            .iter()
            .map(|f| f.wall_us)
            .fold(f64::INFINITY, f64::min),
        median(|f| f.wall_us),
        median(|f| f.cpu_us),
        median(|f| f.switches),
        median(|f| f.enters),
    );
}

/// One round of a case; None where the world or the mode is refused here.
fn measure(dir: &Path, io: IoMode, case: Case, len: usize, writes: u64) -> Option<Figures> {
    let mut reactor = open(io)?;
    if case.direct && !reactor.probe(dir).direct {
        return None;
    }
    let path = dir.join("segment");
    let filler = OpenMode::create_new();
    let file = reactor
        .run(Op::Open {
            path: path.clone(),
            mode: filler,
        })
        .expect("open")
        .file();
    reactor
        .run(Op::Allocate {
            file,
            offset: 0,
            len: FILE_BYTES,
        })
        .expect("allocate");
    if case.recycled {
        fill(&mut reactor, file);
    }
    reactor
        .run(Op::Sync {
            file,
            data_only: false,
        })
        .expect("sync");
    reactor.run(Op::Close { file }).expect("close");
    let mode = OpenMode {
        read: true,
        write: true,
        direct: case.direct,
        dsync: case.dsync,
        ..OpenMode::default()
    };
    let file = reactor
        .run(Op::Open {
            path: path.clone(),
            mode,
        })
        .expect("open")
        .file();

    let mut buf = Some(reactor.buffer(len));
    let mut events = Vec::new();
    let before = (Instant::now(), cpu(), switches(), reactor.stats().enters);
    for index in 0..writes {
        let mut content = buf.take().expect("the last write gave it back");
        content[..8].copy_from_slice(&index.to_le_bytes());
        let offset = index * len as u64 % FILE_BYTES;
        reactor.submit(
            Op::Write {
                file,
                offset,
                buf: content,
                len,
                dsync: case.flag,
            },
            0,
        );
        buf = wait(&mut reactor, case.busy, &mut events);
        if case.sync {
            reactor.submit(
                Op::Sync {
                    file,
                    data_only: true,
                },
                0,
            );
            wait(&mut reactor, case.busy, &mut events);
        }
    }
    let figures = since(before, reactor.stats().enters, writes);
    reactor.run(Op::Close { file }).expect("close");
    reactor.run(Op::Remove { path }).expect("remove");
    Some(figures)
}

/// Waits for the one operation in flight; gives back its buffer, if it has one.
fn wait(reactor: &mut Reactor, busy: bool, events: &mut Vec<Event>) -> Option<reactor::Buffer> {
    loop {
        if busy {
            reactor.poll(events);
        } else {
            reactor.wait(None, events);
        }
        if let Some(Event::Completion { result, .. }) = events.pop() {
            return match result.expect("the disk works") {
                Done::Wrote { buf, .. } => Some(buf),
                _ => None,
            };
        }
    }
}

fn fill(reactor: &mut Reactor, file: File) {
    let len = 1 << 20;
    let mut buf = reactor.buffer(len);
    for offset in (0..FILE_BYTES).step_by(len) {
        buf[..len].fill(1);
        let write = Op::Write {
            file,
            offset,
            buf,
            len,
            dsync: false,
        };
        buf = reactor.run(write).expect("write").buffer().0;
    }
}

/// A ring of a sleeping core and its answer: two thread switches, one of them through the world.
fn wake(io: IoMode, rings: u64) -> Option<Figures> {
    let mut reactor = open(io)?;
    let doorbell = reactor.doorbell();
    let (answer, answers) = std::sync::mpsc::channel();
    let before = (Instant::now(), cpu(), switches(), reactor.stats().enters);
    let ringer = std::thread::spawn(move || {
        for _ in 0..rings {
            doorbell.ring();
            answers.recv().expect("the core answers");
        }
    });
    let mut events = Vec::new();
    for _ in 0..rings {
        while events.is_empty() {
            reactor.wait(None, &mut events);
        }
        events.clear();
        answer.send(()).expect("the ringer waits");
    }
    ringer.join().expect("the ringer");
    Some(since(before, reactor.stats().enters, rings))
}

fn open(io: IoMode) -> Option<Reactor> {
    match Reactor::open(&Options {
        io,
        ..Options::default()
    }) {
        Ok(reactor) => Some(reactor),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn since(before: (Instant, Duration, u64, u64), enters: u64, count: u64) -> Figures {
    let each = |value: f64| value / count as f64;
    Figures {
        wall_us: each(before.0.elapsed().as_secs_f64() * 1e6),
        cpu_us: each((cpu() - before.1).as_secs_f64() * 1e6),
        switches: each((switches() - before.2) as f64),
        enters: each((enters - before.3) as f64),
    }
}

/// CPU time of the process, its kernel workers included.
fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// Context switches of all threads of the process, kernel workers and ended ones included.
fn switches() -> u64 {
    // SAFETY: all bytes of a rusage may be zero; the call fills in this one and keeps no pointer.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    (usage.ru_nvcsw + usage.ru_nivcsw) as u64
}
