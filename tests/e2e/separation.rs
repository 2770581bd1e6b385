//! Fuzz of the separation of tenants: pairs of tenants with odd but legal names write data that is marked, and ask everything there is to ask, at the same
//! time and in the same words. No answer, error or page of the one ever holds the mark of the other.
//!
//! Seeded; `MYELIN_SEED` runs one seed alone, `MYELIN_SIM_SECONDS` is the budget (4 seconds, a minute under `make soak`).

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tests::{Response, Server, ServerOptions, encode_form, unix_now};

use crate::series::{field, push, snappy, varint};

/// One of the pair.
struct Tenant {
    id: String,
    mark: String,
}

/// What a request is, but for the tenant: both send the same.
#[derive(Debug)]
struct Asked {
    method: &'static str,
    path: String,
    params: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

fn pick<T: Copy>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Legal and odd: nothing but punctuation, one the beginning of the other, differing in case alone, as long as can be.
fn pair(rng: &mut SmallRng, seed: u64) -> [Tenant; 2] {
    let letters = b"abcXYZ019!-_.*'()";
    let noise = |rng: &mut SmallRng, len: usize| -> String {
        (0..len).map(|_| pick(rng, letters) as char).collect()
    };
    // Also in names of metrics, so nothing but letters and digits; of one length, so that none is a part of the other.
    let mark = |rng: &mut SmallRng, side: char| {
        let chance: u32 = rng.random();
        format!("zq{side}{:08x}{chance:08x}{side}qz", seed as u32)
    };
    let (a, b) = (mark(rng, 'l'), mark(rng, 'r'));
    let (before, after) = (rng.random_range(0..20), rng.random_range(0..90));
    let (before, after) = (noise(rng, before), noise(rng, after));
    let ids = match rng.random_range(0..4) {
        0 => [a.clone(), b.clone()],
        1 => [format!("{a}.{after}"), format!("{b}.{after}")],
        2 => [format!("{before}'{a}"), format!("{before}'{b}{after}")],
        _ => [format!("({before}){a}"), format!("({before})*{b}")],
    };
    let [first, second] = ids;
    [
        Tenant { id: first, mark: a },
        Tenant {
            id: second,
            mark: b,
        },
    ]
}

fn number(out: &mut Vec<u8>, tag: u8, value: u64) {
    out.push(tag);
    varint(out, value, false);
}

fn label(out: &mut Vec<u8>, number: u8, name: &str, value: &str) {
    let mut inner = Vec::new();
    field(&mut inner, 1, name.as_bytes(), false);
    field(&mut inner, 2, value.as_bytes(), false);
    field(out, number, &inner, false);
}

/// A push with everything that a push can have, all of it marked.
fn marked(mark: &str, seed: u64, now: i64) -> Vec<u8> {
    let mut request = Vec::new();
    let metric = format!("m_{mark}");
    for (name, value) in [
        ("shared", mark),
        (metric.as_str(), "x"),
        ("up", "a\"b{}\n/..%2F"),
    ] {
        let mut series = Vec::new();
        label(&mut series, 1, "__name__", name);
        label(&mut series, 1, "cluster", &format!("c-{mark}"));
        label(&mut series, 1, &format!("l_{mark}"), "y");
        label(&mut series, 1, "seed", &(seed % 7).to_string());
        label(&mut series, 1, "value", value);
        for back in [120_000, 60_000, 0] {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&1.5_f64.to_le_bytes());
            number(&mut sample, 0x10, (now - back) as u64);
            field(&mut series, 2, &sample, false);
        }
        let mut exemplar = Vec::new();
        label(&mut exemplar, 1, "trace_id", &format!("t{mark}"));
        exemplar.push(0x11);
        exemplar.extend_from_slice(&2.5_f64.to_le_bytes());
        number(&mut exemplar, 0x18, now as u64);
        field(&mut series, 3, &exemplar, false);
        field(&mut request, 1, &series, false);
    }
    for name in ["shared", metric.as_str()] {
        let mut metadata = vec![0x08, 1];
        field(&mut metadata, 2, name.as_bytes(), false);
        field(
            &mut metadata,
            4,
            format!("help of {mark}").as_bytes(),
            false,
        );
        field(&mut metadata, 5, mark.as_bytes(), false);
        field(&mut request, 3, &metadata, false);
    }
    request
}

/// `{value=~".+"}` and all times, as samples or as a stream.
fn remote_read(rng: &mut SmallRng, now: i64) -> Vec<u8> {
    let mut query = Vec::new();
    number(&mut query, 0x08, (now - 3_600_000) as u64);
    number(&mut query, 0x10, now as u64);
    let mut matcher = vec![0x08, 2];
    field(&mut matcher, 2, b"value", false);
    field(&mut matcher, 3, b".+", false);
    field(&mut query, 3, &matcher, false);
    let mut request = Vec::new();
    field(&mut request, 1, &query, false);
    if rng.random() {
        field(&mut request, 2, &[1], false);
    }
    snappy(&request)
}

/// Selectors and queries that find whatever there is, and texts that are none.
const QUERIES: [&str; 16] = [
    "{__name__=~\".+\"}",
    "shared",
    "up",
    "count by (__name__, value) ({__name__!=\"\"})",
    "label_replace(shared, \"copy\", \"$1\", \"value\", \"(.*)\")",
    "sum without (value) (rate(shared[5m]))",
    "topk(3, {cluster=~\"c-.*\"})",
    "info(up)",
    "shared + on (nothing) up",
    "shared * on (seed) group_left {__name__=~\"m_.+\"}",
    "absent(nothing{a=\"b\"})",
    "last_over_time({__name__=~\"m.*\"}[10m])",
    "{__name__=~\"[\"}",
    "shared{",
    "sum(",
    "quantile_over_time(shared, up[5m])",
];

fn asked(rng: &mut SmallRng, now: i64) -> Asked {
    let prefix = pick(
        rng,
        &[
            "/prometheus/api/v1",
            "/api/prom/api/v1",
            "//prometheus//api/v1/",
        ],
    );
    let query = pick(rng, &QUERIES).to_owned();
    let (start, end) = ((now / 1000 - 600).to_string(), (now / 1000).to_string());
    let times = |params: &mut Vec<(&'static str, String)>| {
        params.push(("start", start.clone()));
        params.push(("end", end.clone()));
    };
    let mut params: Vec<(&'static str, String)> = Vec::new();
    let mut body = None;
    let mut method = pick(rng, &["GET", "POST"]);
    let endpoint: &str = match rng.random_range(0..24) {
        0..3 => {
            params.extend([("query", query), ("time", end.clone())]);
            "query"
        }
        // Of few kinds, so that results are found in the cache.
        3..7 => {
            params.push(("query", query));
            times(&mut params);
            params.push(("step", (pick(rng, &["15", "60"])).to_owned()));
            "query_range"
        }
        7 => {
            params.push(("match[]", pick(rng, &QUERIES).to_owned()));
            "series"
        }
        8 => "labels",
        9 => {
            method = "GET";
            pick(
                rng,
                &[
                    "label/__name__/values",
                    "label/value/values",
                    "label/%76alue/values",
                    "label/U__value/values",
                    "label/cluster/values",
                    "label/..%2Fvalue/values",
                    "label/a/b/values",
                    "label/%00/values",
                    "label/__tenant_id__/values",
                ],
            )
        }
        10 => {
            method = "GET";
            "metadata"
        }
        11 => {
            params.push(("query", query));
            times(&mut params);
            "query_exemplars"
        }
        12 => {
            method = "GET";
            params.push(("limit", "100".to_owned()));
            "status/tsdb"
        }
        13 => "cardinality/label_names",
        14 => {
            params.extend([
                ("label_names[]", "value".to_owned()),
                ("label_names[]", "__name__".to_owned()),
            ]);
            "cardinality/label_values"
        }
        15 => {
            params.push(("selector", "{__name__=~\".+\"}".to_owned()));
            "cardinality/active_series"
        }
        16 => {
            method = "GET";
            "queries"
        }
        17 => {
            params.extend([("query", query), ("analyze", "true".to_owned())]);
            "explain"
        }
        18 => {
            params.push(("query", query));
            pick(rng, &["format_query", "parse_query"])
        }
        19 => {
            method = "GET";
            pick(
                rng,
                &[
                    "rules",
                    "alerts",
                    "status/buildinfo",
                    "nothing/%2e%2e/query",
                    "query/../labels",
                ],
            )
        }
        20 => {
            method = "POST";
            body = Some(remote_read(rng, now));
            "read"
        }
        _ => {
            method = "GET";
            ""
        }
    };
    let path = match endpoint {
        "" => (pick(
            rng,
            &[
                "/api/v1/user_stats",
                "/api/prom/user_stats",
                "/api/v1/user_limits",
                "/api/v1/user-overrides",
                "/api/v1/%75ser_stats",
                "/prometheus/api/v1/queries/999999/kill",
            ],
        ))
        .to_owned(),
        endpoint => format!("{prefix}/{endpoint}"),
    };
    let mut headers = Vec::new();
    if rng.random_range(0..4) == 0 {
        headers.push(("Cache-Control", "no-store".to_owned()));
    }
    if rng.random_range(0..6) == 0 {
        headers.push(("Origin", "http://x".to_owned()));
    }
    Asked {
        method,
        path,
        params,
        headers,
        body,
    }
}

fn ask(server: &Server, id: &str, asked: &Asked) -> Response {
    let api = tests::Api::new(&server.url(), Some(id));
    let headers: Vec<(&str, &str)> = asked
        .headers
        .iter()
        .map(|(n, v)| (*n, v.as_str()))
        .collect();
    let params: Vec<(&str, &str)> = asked.params.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let form = encode_form(&params);
    match (&asked.body, asked.method) {
        (Some(body), _) => api.post(&asked.path, &headers, body).unwrap(),
        (None, "POST") => {
            let form_type = ("Content-Type", "application/x-www-form-urlencoded");
            let headers: Vec<_> = headers.iter().copied().chain([form_type]).collect();
            api.post(&asked.path, &headers, form.as_bytes()).unwrap()
        }
        (None, _) => api.get_with(&format!("{}?{form}", asked.path), &headers),
    }
}

/// Everything of an answer as text, unpacked where it is packed.
fn told(response: &Response) -> String {
    let mut text = response.text();
    for (name, value) in &response.headers {
        text += &format!("\n{name}: {value}");
    }
    if response.header("content-encoding") == Some("snappy") {
        let mut unpacked = wire::snappy::Buffer::default();
        wire::snappy::unpack(&response.body, 64 << 20, &mut unpacked).unwrap();
        text += &String::from_utf8_lossy(unpacked.as_slice());
    }
    text
}

fn run(server: &Server, seed: u64, seen: &mut u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let now = unix_now() * 1000;
    let tenants = pair(&mut rng, seed);
    for Tenant { id, mark } in &tenants {
        let stored = push(server, Some(id), &marked(mark, seed, now));
        assert_eq!(stored.status, 200, "{id}: {}", stored.text());
    }
    for _ in 0..30 {
        let asked = asked(&mut rng, now);
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let threads: Vec<_> = tenants
                .iter()
                .map(|tenant| scope.spawn(|| ask(server, &tenant.id, &asked)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for (at, answer) in answers.iter().enumerate() {
            let (own, other) = (&tenants[at], &tenants[1 - at]);
            let text = told(answer);
            assert!(answer.status < 500, "{}: {asked:?}: {text}", answer.status);
            assert!(
                !text.contains(&other.mark),
                "MYELIN_SEED={seed}: {:?} was told of {:?}: {asked:?}\n{text}",
                own.id,
                other.id
            );
            *seen += u64::from(text.contains(&own.mark));
        }
    }
    errors(server, &tenants, now, seed);
    federated(server, &tenants, seed);
}

/// What is refused of a write is told with its own labels; what another has under the same name is neither told nor found by name.
fn errors(server: &Server, [a, b]: &[Tenant; 2], now: i64, seed: u64) {
    for (own, other) in [(a, b), (b, a)] {
        let mut again = marked(&own.mark, seed, now);
        // Another value at the same times, and a label that cannot be.
        let value = 1.5_f64.to_le_bytes();
        let places: Vec<usize> = (0..again.len() - 8)
            .filter(|&at| again[at..at + 8] == value)
            .collect();
        for at in places {
            again[at..at + 8].copy_from_slice(&7.5_f64.to_le_bytes());
        }
        let refused = push(server, Some(&own.id), &again);
        let text = told(&refused);
        assert_eq!(refused.status, 400, "{text}");
        assert!(!text.contains(&other.mark), "MYELIN_SEED={seed}: {text}");
        // Asked for by name, by value, by label: nothing is there.
        let api = server.api(Some(&own.id));
        let mark = &other.mark;
        for query in [
            format!("m_{mark}"),
            format!("shared{{value=\"{mark}\"}}"),
            format!("{{l_{mark}=\"y\"}}"),
            format!("shared{{cluster=~\"c-{mark}|c-{mark}x\"}}"),
        ] {
            let found = api.data("/api/v1/query", &[("query", &query)]);
            assert_eq!(
                found["result"].as_array().unwrap().len(),
                0,
                "MYELIN_SEED={seed}: {found}"
            );
            let found = api.data("/api/v1/series", &[("match[]", &query)]);
            assert_eq!(
                found.as_array().unwrap().len(),
                0,
                "MYELIN_SEED={seed}: {found}"
            );
        }
        let values = api.data(&format!("/api/v1/label/l_{mark}/values"), &[]);
        assert_eq!(
            values.as_array().unwrap().len(),
            0,
            "MYELIN_SEED={seed}: {values}"
        );
        let metadata = api.data("/api/v1/metadata", &[("metric", &format!("m_{mark}"))]);
        assert_eq!(
            metadata.as_object().unwrap().len(),
            0,
            "MYELIN_SEED={seed}: {metadata}"
        );
    }
}

/// A list of tenants reads those that it names and no others, and one that is wrong reads none.
fn federated(server: &Server, [a, b]: &[Tenant; 2], seed: u64) {
    let find = |header: &str| {
        let api = server.api(Some(header));
        api.get("/api/v1/query", &[("query", "{__name__=~\".+\"}")])
    };
    let both = find(&format!("{}|{}", b.id, a.id));
    let text = told(&both);
    assert!(
        text.contains(&a.mark) && text.contains(&b.mark),
        "MYELIN_SEED={seed}: {text}"
    );
    for header in [
        format!("{}|nobody", a.id),
        format!("nobody|{0}|{0}", a.id),
        format!("{}|{}x", a.id, &b.id[..b.id.len() - 1]),
    ] {
        let text = told(&find(&header));
        let own = text.replace(&header, "");
        assert!(
            !own.contains(&b.mark),
            "MYELIN_SEED={seed}: {header}: {text}"
        );
    }
    let others = [
        format!("{}|", a.id),
        format!("|{}", b.id),
        format!("{}/{}", a.id, b.id),
        format!("{}|..", a.id),
        format!("{},{}", a.id, b.id),
    ];
    for header in others {
        let refused = find(&header);
        assert_eq!(refused.status, 400, "{header}: {}", refused.text());
        assert!(!refused.text().contains("\"result\""));
    }
    // Chosen by a matcher: the other's data is not there.
    let api = server.api(Some(&format!("{}|{}", a.id, b.id)));
    let query = format!("{{__name__=~\".+\", __tenant_id__=\"{}\"}}", a.id);
    let one = told(&api.get("/api/v1/query", &[("query", &query)]));
    assert!(
        one.contains(&a.mark) && !one.contains(&b.mark),
        "MYELIN_SEED={seed}: {one}"
    );
}

#[test]
fn nothing_that_a_tenant_is_told_holds_the_mark_of_another() {
    let options = ServerOptions {
        config: "auth_enabled: true\ntenant_federation: {enabled: true}\n\
                 limits: {accept_ha_samples: true, max_cache_freshness: 0s, max_outstanding_requests_per_tenant: 0}\n"
            .to_owned(),
        args: vec!["-distributor.ha-tracker.enable".to_owned()],
        ..ServerOptions::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let seconds = match std::env::var("MYELIN_SIM_SECONDS") {
        Ok(text) => text.parse().expect("seconds"),
        Err(_) if tests::soak() => 60.0,
        Err(_) => 4.0,
    };
    let (mut seeds, mut seen) = (0_u64, 0);
    match std::env::var("MYELIN_SEED") {
        Ok(seed) => {
            run(&server, seed.parse().expect("a seed"), &mut seen);
            seeds = 1;
        }
        Err(_) => {
            let end = Instant::now() + Duration::from_secs_f64(seconds);
            let first: u64 = tests::chance().random();
            while Instant::now() < end || seeds == 0 {
                run(&server, first.wrapping_add(seeds), &mut seen);
                seeds += 1;
            }
        }
    }
    eprintln!("{seeds} seeds, {seen} answers with the own mark of their tenant");
    // Else nothing would be shown at all, and the test could not fail.
    assert!(seen > 5 * seeds, "{seen} of {seeds} seeds");
    let kept = crate::queries::metric(&server, "myelin_query_steps_total");
    assert!(kept > 0.0, "the cache was used");
}
