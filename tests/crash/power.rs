//! Power cuts on ext4 and xfs. Needs root and loop mounts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use tests::{Server, ServerOptions, component, missing, soak};

use crate::verify::Verify;

/// A filesystem in a file.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let path = component(program).ok_or_else(|| format!("{program} is missing"))?;
    let output = Command::new(path)
        .args(args)
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

impl Disk {
    fn make(folder: &Path, filesystem: &str) -> Result<Disk, String> {
        let disk = Disk {
            image: folder.join("disk.img"),
            mount: folder.join("mnt"),
        };
        let file = std::fs::File::create(&disk.image).map_err(|e| e.to_string())?;
        file.set_len(1 << 30).map_err(|e| e.to_string())?;
        std::fs::create_dir_all(&disk.mount).map_err(|e| e.to_string())?;
        let image = disk.image.to_str().expect("a temporary path is text");
        match filesystem {
            "ext4" => run("mkfs.ext4", &["-q", "-F", image])?,
            _ => run("mkfs.xfs", &["-q", "-f", image])?,
        }
        disk.attach()?;
        Ok(disk)
    }

    fn attach(&self) -> Result<(), String> {
        run(
            "mount",
            &[
                "-o",
                "loop",
                self.image.to_str().expect("text"),
                self.mount.to_str().expect("text"),
            ],
        )
    }

    /// Everything that is not on the disk is gone; the filesystem answers no more.
    fn cut_power(&self) {
        run(
            "xfs_io",
            &["-x", "-c", "shutdown", self.mount.to_str().expect("text")],
        )
        .expect("it is shut down");
    }

    fn detach(&self) -> Result<(), String> {
        run("umount", &[self.mount.to_str().expect("text")])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.detach();
    }
}

/// One load with a power cut in it. Returns the server, restarted on what is left.
fn cut(server: &mut Server, disk: &Disk, verify: &Verify) {
    let mut writer = verify.write(server, 30);
    std::thread::sleep(Duration::from_millis(
        tests::chance().random_range(400..2000),
    ));
    assert!(
        writer.ended().is_none(),
        "the writer stopped early:\n{}",
        writer.log()
    );
    disk.cut_power();
    server.kill();
    writer.wait(Duration::from_secs(30));
    tests::wait_until("the disk to be let go", Duration::from_secs(20), || {
        disk.detach().is_ok()
    });
    disk.attach().expect("the filesystem recovers");
    server.restart();
}

fn start(disk: &Disk, config: &str) -> Option<Server> {
    let data = Some(disk.mount.join("data"));
    Server::start(ServerOptions {
        config: config.to_owned(),
        data,
        ..ServerOptions::default()
    })
}

fn make(folder: &Path, filesystem: &str) -> Option<Disk> {
    component("xfs_io")?;
    match Disk::make(folder, filesystem) {
        Ok(disk) => Some(disk),
        Err(reason) => {
            missing(&format!("a loop-mounted {filesystem}: {reason}"));
            None
        }
    }
}

#[test]
fn twenty_power_cuts_lose_nothing_acknowledged() {
    let rounds = if soak() { 100 } else { 10 };
    for filesystem in ["ext4", "xfs"] {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = make(folder.path(), filesystem) else {
            return;
        };
        let Some(mut server) = start(&disk, "") else {
            return;
        };
        let Some(verify) = Verify::new(folder.path()) else {
            return;
        };
        for round in 0..rounds {
            cut(&mut server, &disk, &verify);
            verify.assert_nothing_lost(
                &mut server,
                &format!("power cut on {filesystem}, round {round}"),
            );
        }
        server.kill();
    }
}

/// Otherwise the test above would prove nothing: the same cuts with the promise relaxed by name do lose.
#[test]
fn relaxed_acknowledgements_can_be_lost_so_the_cuts_are_real() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = make(folder.path(), "xfs") else {
        return;
    };
    let Some(mut server) = start(&disk, "limits:\n  ack: written\n") else {
        return;
    };
    for round in 0..20 {
        let state = folder.path().join(format!("round-{round}"));
        std::fs::create_dir_all(&state).unwrap();
        let Some(verify) = Verify::new(&state) else {
            return;
        };
        cut(&mut server, &disk, &verify);
        if !verify.check(&server).status.success() {
            println!(
                "acknowledged samples were lost in round {round}, as expected of ack: written"
            );
            server.kill();
            return;
        }
    }
    panic!("20 power cuts lost nothing although nothing was synced: the cuts cut nothing");
}
