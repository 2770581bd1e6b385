//! S3 as spoken to a server in this process, which checks signatures and misbehaves when asked.

mod server;

use std::sync::Mutex;
use std::time::Duration;

use objstore::contract::{Claims, run};
use objstore::{Bucket, Condition, Conditions, Error, Piece, probe};

use self::server::{Fault, KEY, SECRET, Server};
use crate::{Encryption, Options, S3};

fn options(server: &Server) -> Options {
    Options {
        endpoint: server.address.to_string(),
        insecure: true,
        access_key_id: KEY.to_owned(),
        secret_access_key: SECRET.to_owned(),
        path_style: true,
        part_bytes: 5 << 20,
        timeout: Duration::from_secs(10),
        ..Options::new("blocks")
    }
}

fn open(server: &Server) -> S3 {
    S3::open(options(server)).unwrap()
}

#[test]
fn a_bucket_of_s3_is_a_bucket() {
    let server = Server::start();
    let claims = Claims {
        conditions: true,
        large_bytes: 11 << 20,
        steps: 200,
    };
    run(&open(&server), claims);
    assert_eq!(server.uploads(), 0, "the broken ones were given up");
    server.keep_conditions(false);
    assert_eq!(probe(&open(&server), "p", 1), Ok(Conditions::Ignored));
}

#[test]
fn a_wrong_secret_is_refused_by_name_at_once_and_shown_to_nobody() {
    let server = Server::start();
    let secret_access_key = "not the secret".to_owned();
    let options = Options {
        secret_access_key,
        ..options(&server)
    };
    assert!(!format!("{options:?}").contains("not the secret"));
    let bucket = S3::open(options).unwrap();
    let error = bucket.put("a", b"x", &Condition::Always).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("SignatureDoesNotMatch"), "{told}");
    assert!(!told.contains("not the secret"), "{told}");
    assert_eq!(server.seen().len(), 1, "no second try");
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_told() {
    for fault in [Fault::Slow, Fault::Hangup, Fault::Lost] {
        let server = Server::start();
        let options = Options {
            tries_max: 2,
            ..options(&server)
        };
        let bucket = S3::open(options).unwrap();
        bucket.put("a", b"0123456789", &Condition::Always).unwrap();
        let every_second = |fault: Fault| {
            let count = Mutex::new(0);
            move |_: &str| {
                let mut count = count.lock().unwrap();
                *count += 1;
                if *count % 2 == 1 { fault } else { Fault::None }
            }
        };
        server.plan(every_second(fault));
        bucket.put("a", b"abcdefghij", &Condition::Always).unwrap();
        assert_eq!(
            bucket.get("a").unwrap().unwrap().bytes,
            b"abcdefghij",
            "{fault:?}"
        );
        assert_eq!(bucket.head("a").unwrap().unwrap().len, 10, "{fault:?}");
        bucket.delete("a").unwrap();
        assert_eq!(bucket.get("a").unwrap(), None, "{fault:?}");
        server.seen();
        server.plan(move |_| fault);
        let key = "a".to_owned();
        let error = bucket.read(&[Piece { key, range: 0..1 }]).unwrap_err();
        assert!(error.is_passing(), "{fault:?}: {error:?}");
        assert!(server.seen().len() >= 2, "{fault:?}");
    }
}

#[test]
fn a_condition_whose_answer_is_lost_may_be_told_not_to_hold() {
    let server = Server::start();
    let bucket = open(&server);
    let first = Mutex::new(true);
    server.plan(move |_| match std::mem::take(&mut *first.lock().unwrap()) {
        true => Fault::Lost,
        false => Fault::None,
    });
    // The second try meets what the first one left: as the trait says, it is for the caller to look.
    let error = bucket.put("a", b"x", &Condition::Absent).unwrap_err();
    assert!(matches!(error, Error::Condition { .. }), "{error:?}");
    assert_eq!(bucket.get("a").unwrap().unwrap().bytes, b"x");
}

/// One answer that was lost at a start, and the node took its store for one that ignores conditions until its end: it wrote indexes without them, and an older one
/// that came late undid a newer.
#[test]
fn a_lost_answer_does_not_tell_that_conditions_are_ignored() {
    let server = Server::start();
    let bucket = open(&server);
    for (keeps, expected) in [(true, Conditions::Kept), (false, Conditions::Ignored)] {
        server.keep_conditions(keeps);
        for lost in 0..9 {
            let seen = Mutex::new(0);
            server.plan(move |_| {
                let mut seen = seen.lock().unwrap();
                *seen += 1;
                if *seen == lost + 1 {
                    Fault::Lost
                } else {
                    Fault::None
                }
            });
            let found = probe(&bucket, "p", 1);
            assert_eq!(found, Ok(expected), "answer {lost} of {keeps}");
        }
    }
}

#[test]
fn a_body_that_breaks_off_is_read_again() {
    let server = Server::start();
    let bucket = open(&server);
    let bytes: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    bucket.put("a", &bytes, &Condition::Always).unwrap();
    let count = Mutex::new(0);
    server.plan(move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count < 3 { Fault::Cut } else { Fault::None }
    });
    let piece = Piece {
        key: "a".to_owned(),
        range: 1000..200_000,
    };
    assert_eq!(
        bucket.read(std::slice::from_ref(&piece)).unwrap(),
        [&bytes[1000..]]
    );
    server.plan(|_| Fault::Cut);
    let error = bucket.read(&[piece]).unwrap_err();
    assert!(error.is_passing(), "{error:?}");
}

#[test]
fn a_store_that_says_nothing_is_given_up() {
    let server = Server::start();
    let options = Options {
        timeout: Duration::from_millis(50),
        tries_max: 2,
        ..options(&server)
    };
    let bucket = S3::open(options).unwrap();
    server.plan(|_| Fault::Silence);
    let error = bucket.head("a").unwrap_err();
    assert!(error.is_passing(), "{error:?}");
    assert_eq!(server.seen().len(), 2);
    server.plan(|_| Fault::None);
    assert_eq!(bucket.head("a").unwrap(), None);
}

#[test]
fn a_bit_that_flips_on_the_way_is_found_by_the_etag() {
    let server = Server::start();
    let bucket = open(&server);
    server.plan(|_| Fault::Flip);
    let error = bucket.put_large("a", &mut &[0; 100][..]).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    let long = vec![0; 6 << 20];
    let error = bucket.put_large("b", &mut &long[..]).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert_eq!(server.uploads(), 0);
    assert!(!server.keys().contains(&"b".to_owned()));
}

/// Whatever the answer to the last request of an upload was: moto 5.2 gives one that the SDK does not know, so that no block of more than a part ever left the disk.
#[test]
fn an_upload_that_the_store_made_whole_is_one_whatever_it_answers() {
    let server = Server::start();
    let bucket = open(&server);
    let is_last = |line: &str| line.starts_with("POST") && line.contains("uploadId=");
    let (mut long, mut lost) = (vec![7; 6 << 20], false);
    server.plan(move |line| match is_last(line) && !lost {
        true => {
            lost = true;
            Fault::Lost
        }
        false => Fault::None,
    });
    let stat = bucket.put_large("lost", &mut &long[..]).unwrap();
    assert_eq!(bucket.head("lost"), Ok(Some(stat)));
    server.plan(move |line| match is_last(line) {
        true => Fault::Strange,
        false => Fault::None,
    });
    let stat = bucket.put_large("strange", &mut &long[..]).unwrap();
    assert_eq!(bucket.head("strange"), Ok(Some(stat)));
    // What was there before is not what was sent, nor is nothing.
    server.plan(move |line| match is_last(line) {
        true => Fault::Slow,
        false => Fault::None,
    });
    bucket.put_large("nothing", &mut &long[..]).unwrap_err();
    long[1000] = 8;
    bucket.put_large("lost", &mut &long[..]).unwrap_err();
    assert_eq!(server.uploads(), 0);
}

#[test]
fn uploads_that_nobody_finished_are_swept_by_age_and_prefix() {
    let server = Server::start();
    let bucket = open(&server);
    // The last request of each is the one that would have given it up.
    server.plan(
        |line| match line.starts_with("DELETE") || line.contains("partNumber=2") {
            true => Fault::Slow,
            false => Fault::None,
        },
    );
    let long = vec![0; 6 << 20];
    for key in ["t/1", "t/2", "u/1"] {
        bucket.put_large(key, &mut &long[..]).unwrap_err();
    }
    assert_eq!(server.uploads(), 3);
    server.plan(|_| Fault::None);
    assert_eq!(bucket.sweep("t/", 0), Ok(0), "they are younger");
    assert_eq!(bucket.sweep("t/", i64::MAX), Ok(2));
    assert_eq!(server.uploads(), 1);
    assert!(server.keys().is_empty());
}

#[test]
fn encryption_is_asked_for_with_every_write() {
    let server = Server::start();
    let kms = Encryption::Kms {
        key_id: "key-7".to_owned(),
        context: "{\"team\":\"a\"}".to_owned(),
    };
    let context = Some("eyJ0ZWFtIjoiYSJ9".to_owned());
    let cases = [
        (Encryption::Bucket, None),
        (Encryption::Store, Some(("AES256".to_owned(), None, None))),
        (
            kms,
            Some(("aws:kms".to_owned(), Some("key-7".to_owned()), context)),
        ),
    ];
    let long = vec![0; 6 << 20];
    for (encryption, expected) in cases {
        let bucket = S3::open(Options {
            encryption,
            ..options(&server)
        })
        .unwrap();
        bucket.put("a", b"x", &Condition::Always).unwrap();
        assert_eq!(server.encryption(), expected);
        bucket.put_large("b", &mut &long[..]).unwrap();
        assert_eq!(server.encryption(), expected);
    }
}

#[test]
fn options_that_do_not_go_together_are_named() {
    let good = Options::new("b");
    good.validate().unwrap();
    let cases = [
        (
            Options {
                bucket: String::new(),
                ..good.clone()
            },
            "no name",
        ),
        (
            Options {
                access_key_id: "x".to_owned(),
                ..good.clone()
            },
            "go together",
        ),
        (
            Options {
                part_bytes: 1,
                ..good.clone()
            },
            "parts have",
        ),
        (
            Options {
                tries_max: 0,
                ..good.clone()
            },
            "at least one try",
        ),
    ];
    for (options, word) in cases {
        let error = S3::open(options).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let url = |endpoint: &str, insecure| {
        let endpoint = endpoint.to_owned();
        Options {
            endpoint,
            insecure,
            ..good.clone()
        }
        .url()
    };
    assert_eq!(url("", true), None);
    assert_eq!(url("minio:9000", true).unwrap(), "http://minio:9000");
    assert_eq!(url("minio:9000", false).unwrap(), "https://minio:9000");
    assert_eq!(
        url("http://minio:9000", false).unwrap(),
        "http://minio:9000"
    );
}
