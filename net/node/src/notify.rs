//! What systemd is told: that the node is ready, what it does, that it is alive, that it stops (`sd_notify`).
//!
//! A datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names, a path or, with `@` in front, an abstract one. Without it nobody asked.
//! Where `WATCHDOG_USEC` is set, the thread that attends the node says so twice within that time; one that hangs is ended by systemd.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that we are alive.
    pub(crate) watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says. What cannot be connected is told and does without.
    pub(crate) fn from_environment() -> Notify {
        let address = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let usec = std::env::var("WATCHDOG_USEC").ok();
        let pid = std::env::var("WATCHDOG_PID").ok();
        Notify::new(&address, usec.as_deref(), pid.as_deref())
    }

    fn new(address: &str, watchdog_usec: Option<&str>, watchdog_pid: Option<&str>) -> Notify {
        if address.is_empty() {
            return Notify::default();
        }
        let socket = match connected(address) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(address, %error, "NOTIFY_SOCKET: nobody is told that the node is ready");
                return Notify::default();
            }
        };
        let is_meant = watchdog_pid.is_none_or(|pid| pid == std::process::id().to_string());
        let usec = watchdog_usec.and_then(|usec| usec.parse::<u64>().ok());
        Notify {
            socket: Some(socket),
            watchdog: usec
                .filter(|usec| is_meant && *usec > 0)
                .map(|usec| Duration::from_micros(usec) / 2),
        }
    }

    /// Tells something; that it is not heard is no concern of the node.
    pub(crate) fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(what.as_bytes());
        }
    }
}

fn connected(address: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop us.
    socket.set_nonblocking(true)?;
    match address.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("myelin-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        let path = path.to_str().unwrap().to_owned();
        for (address, socket) in [(path, by_path), (format!("@{name}"), by_name)] {
            let notify = Notify::new(&address, Some("30000000"), None);
            assert_eq!(notify.watchdog, Some(Duration::from_secs(15)));
            notify.tell("READY=1\nSTATUS=serving");
            let mut heard = [0; 100];
            let len = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..len], b"READY=1\nSTATUS=serving");
        }
    }

    #[test]
    fn nobody_asks_or_nobody_listens_and_the_node_goes_on() {
        Notify::new("", Some("1"), None).tell("READY=1");
        Notify::new("/nowhere/at/all", Some("1"), None).tell("READY=1");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        let notify = Notify::new(path, Some("5"), Some("1"));
        assert_eq!(notify.watchdog, None, "another process is watched");
        drop(socket);
        for _ in 0..1000 {
            notify.tell("WATCHDOG=1");
        }
    }
}
