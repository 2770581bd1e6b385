//! kill -9 at random moments under load, again and again on the same data.

use std::time::Duration;

use rand::Rng;
use tests::{Server, soak};

use crate::verify::Verify;

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let rounds = if soak() { 100 } else { 8 };
    // More cores than CPUs share threads, rings and the moments of their commits.
    for args in [&["-cores=2"][..], &["-cores=9"], &["-io=threads"]] {
        let options = tests::ServerOptions {
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            ..Default::default()
        };
        let Some(mut server) = Server::start(options) else {
            return;
        };
        let Some(verify) = Verify::new(server.folder()) else {
            return;
        };
        for round in 0..rounds {
            let mut writer = verify.write(&server, 30);
            std::thread::sleep(Duration::from_millis(
                tests::chance().random_range(300..1500),
            ));
            assert!(
                writer.ended().is_none(),
                "the writer stopped early:\n{}",
                writer.log()
            );
            server.kill();
            writer.wait(Duration::from_secs(30));
            server.restart();
            verify.assert_nothing_lost(
                &mut server,
                &format!("kill -9 with {args:?}, round {round}"),
            );
        }
        server.stop();
        server.restart();
        verify.assert_nothing_lost(&mut server, "after a graceful stop");
    }
}
