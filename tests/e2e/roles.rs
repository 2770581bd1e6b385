//! A node taken apart: distributor, ingesters, queriers and frontend as processes of their own answer as one does, and outlive each other.

use std::time::Duration;

use serde_json::Value;
use tests::{Cluster, Server, unix_now, wait_until};

use super::places::{ASKED, SCRAPE, SCRAPES, accepted, answers, assert_equal, metadata, request};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn first_scrape() -> i64 {
    (unix_now() - SCRAPES * SCRAPE / 1000 - 60) * 1000
}

/// Series of the tenant in the memory of a node.
fn series(server: &Server) -> u64 {
    let stats = server.admin().get("/api/v1/user_stats", &[]);
    stats.json()["numSeries"].as_u64().expect("a number")
}

#[test]
fn parts_of_a_node_answer_as_a_whole_one_also_after_an_ingester_was_killed() {
    let start = first_scrape();
    let Some(whole) = Server::plain() else { return };
    let Some(mut cluster) = Cluster::start("", 2, 2) else {
        return;
    };
    for body in [request(start, 0..ASKED), metadata()] {
        accepted(&whole, &body);
        accepted(&cluster.distributor, &body);
    }
    let wanted = answers(&whole, start);
    assert_equal("parts", &answers(&cluster.frontend, start), &wanted);
    assert_equal("a querier", &answers(&cluster.queriers[0], start), &wanted);
    let held: Vec<u64> = cluster.ingesters.iter().map(series).collect();
    assert!(held.iter().all(|count| *count > 5), "{held:?}");
    for part in [&cluster.distributor, &cluster.queriers[1]] {
        assert_eq!(series(part), held.iter().sum::<u64>());
    }

    // What lies in blocks comes from there.
    for ingester in &cluster.ingesters {
        let flushed = ingester.admin().get("/ingester/flush", &[("wait", "true")]);
        assert_eq!(flushed.status, 204, "{}", flushed.text());
    }
    assert_equal("in blocks", &answers(&cluster.frontend, start), &wanted);

    // One that does not answer makes writes and reads fail, by its name; nothing is answered in part.
    cluster.ingesters[1].kill();
    let next = request(start, ASKED..ASKED + 12);
    let refused = super::series::push(&cluster.distributor, None, &next);
    assert_eq!(refused.status, 503, "{}", refused.text());
    let name = cluster.ingesters[1].grpc_address();
    assert!(refused.text().contains(&name), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let failed = cluster
        .frontend
        .api(None)
        .get("/api/v1/query", &[("query", "requests_total")]);
    assert_eq!(failed.status, 503, "{}", failed.text());
    assert!(failed.text().contains(&name), "{}", failed.text());

    // Each call is counted by whom it was made on.
    let alive = cluster.ingesters[0].grpc_address();
    let count = |server: &Server, metric: &str| {
        let text = server.admin().get("/metrics", &[]).text();
        let line = text.lines().find(|line| line.starts_with(metric));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{metric} is not in\n{text}"))
    };
    let prefix = "cortex_distributor_ingester";
    for (server, what, labels) in [
        (&cluster.distributor, "append", ",type=\"samples\""),
        (&cluster.queriers[0], "quer", ""),
    ] {
        let (all, failed) = match what {
            "append" => ("appends_total", "append_failures_total"),
            _ => ("queries_total", "query_failures_total"),
        };
        let of = |name: &str, ingester: &str| {
            count(
                server,
                &format!("{prefix}_{name}{{ingester=\"{ingester}\"{labels}}}"),
            )
        };
        assert!(of(all, &alive) > 0.0 && of(all, &name) > 0.0, "{what}");
        assert_eq!(of(failed, &alive), 0.0, "{what}");
        let calls = "cortex_ingester_client_request_duration_seconds_count";
        assert!(count(server, calls) > 0.0);
        assert_eq!(count(server, &format!("{prefix}_clients ")), 2.0);
    }
    let failed = format!("{prefix}_append_failures_total{{ingester=\"{name}\",type=\"samples\"}}");
    assert!(count(&cluster.distributor, &failed) >= 1.0);

    // The keys that the distributor knows are of a process that is no more.
    cluster.ingesters[1].restart();
    wait_until("the ingester to be written to again", PATIENCE, || {
        let pushed = super::series::push(&cluster.distributor, None, &next);
        assert!([200, 503].contains(&pushed.status), "{}", pushed.text());
        pushed.status == 200
    });
    accepted(&whole, &next);
    for server in [&whole, &cluster.distributor] {
        accepted(server, &request(start, ASKED + 12..SCRAPES));
        accepted(server, &metadata());
    }
    let end = (start + SCRAPES * SCRAPE) as f64 / 1000.0;
    let all = |server: &Server| {
        let mut found = server.api(None).query("{__name__=~\".+\"}[2h]", end);
        let list = found.as_array_mut().expect("a matrix");
        list.sort_by_key(|one| one["metric"].to_string());
        found
    };
    assert_eq!(all(&cluster.frontend), all(&whole));
    assert_equal(
        "after a restart",
        &answers(&cluster.frontend, start),
        &wanted,
    );
}

/// Series are placed over the cores that an ingester had when a distributor began. Of one that comes back with fewer all is still read, since it has brought its series to the cores
/// that are left; but it is written to no more, by its name.
#[test]
fn an_ingester_that_comes_back_with_fewer_cores_is_read_but_not_written_to() {
    let start = first_scrape();
    let Some(whole) = Server::plain() else { return };
    let Some(mut cluster) = Cluster::start("", 2, 1) else {
        return;
    };
    for server in [&whole, &cluster.distributor] {
        accepted(server, &request(start, 0..ASKED));
    }
    let name = cluster.ingesters[1].grpc_address();
    let told = |text: &str| text.contains(&name) && text.contains("another number of cores");
    // A push that is refused may have been taken by the other one.
    let all = |server: &Server, scrapes: i64| {
        let end = ((start + scrapes * SCRAPE) / 1000 - 1).to_string();
        let params = [("query", "{__name__=~\".+\"}[2h]"), ("time", &*end)];
        let answer = server.api(None).get("/api/v1/query", &params);
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        let mut found = answer.json()["data"]["result"].take();
        let list = found.as_array_mut()?;
        list.sort_by_key(|one| one["metric"].to_string());
        Some(found)
    };
    let wanted = all(&whole, ASKED);
    assert!(series(&cluster.ingesters[1]) > 5);
    cluster.ingesters[1].kill();
    cluster.ingesters[1].restart_with(&["-target=ingester", "-cores=1"]);
    let next = request(start, ASKED..ASKED + 12);
    wait_until("writes to be refused by name", PATIENCE, || {
        let pushed = super::series::push(&cluster.distributor, None, &next);
        assert_eq!(pushed.status, 503, "{}", pushed.text());
        told(&pushed.text())
    });
    let ready = cluster.distributor.admin().get("/ready", &[]);
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(told(&ready.text()), "{}", ready.text());
    wait_until("all to be read", PATIENCE, || {
        let found = all(&cluster.frontend, ASKED);
        assert!(
            found.is_none() || found == wanted,
            "a part of it: {found:?}"
        );
        found.is_some()
    });

    // With its cores it is used again, though nothing was sent to it meanwhile.
    cluster.ingesters[1].kill();
    cluster.ingesters[1].restart_with(&["-target=ingester", "-cores=2"]);
    wait_until("writes to be taken again", PATIENCE, || {
        let pushed = super::series::push(&cluster.distributor, None, &next);
        assert!([200, 503].contains(&pushed.status), "{}", pushed.text());
        pushed.status == 200
    });
    accepted(&whole, &next);
    let wanted = all(&whole, SCRAPES);
    wait_until("all to be read again", PATIENCE, || {
        let found = all(&cluster.frontend, SCRAPES);
        found.is_some() && found == wanted
    });
}

/// Bounds of one server: what a node sends or takes that is larger fails, and nothing else does.
#[test]
fn messages_between_nodes_are_as_large_as_the_ingester_may_send_and_take() {
    let start = first_scrape();
    let Some(mut cluster) = Cluster::start("", 1, 1) else {
        return;
    };
    accepted(&cluster.distributor, &request(start, 0..ASKED));
    let end = ((start + ASKED * SCRAPE) / 1000 - 1).to_string();
    let asked = |cluster: &Cluster, query: &str| {
        let params = [("query", query), ("time", &*end)];
        cluster.frontend.api(None).get("/api/v1/query", &params)
    };
    let (small, large) = ("nothing_of_this_name", "{__name__=~\".+\"}[2h]");
    cluster.ingesters[0].kill();
    let bound = "-server.grpc-max-send-msg-size-bytes=600";
    cluster.ingesters[0].restart_with(&["-target=ingester", "-cores=2", bound]);
    wait_until("small answers", PATIENCE, || {
        asked(&cluster, small).status == 200
    });
    let failed = asked(&cluster, large);
    assert!(failed.status >= 500, "{}", failed.text());
    assert!(failed.text().contains("600 bytes"), "{}", failed.text());

    cluster.ingesters[0].kill();
    let bound = "-server.grpc-max-recv-msg-size-bytes=600";
    cluster.ingesters[0].restart_with(&["-target=ingester", "-cores=2", bound]);
    wait_until("all answers", PATIENCE, || {
        asked(&cluster, large).status == 200
    });
    let failed = super::series::push(&cluster.distributor, None, &request(start, ASKED..SCRAPES));
    assert!(failed.status >= 400, "{}", failed.text());
    assert!(failed.text().contains("600 bytes"), "{}", failed.text());
}

#[test]
fn each_part_does_its_own_work_and_no_other() {
    let Some(cluster) = Cluster::start("", 1, 1) else {
        return;
    };
    let query = [("query", "1")];
    for (part, what) in [
        (&cluster.distributor, "a querier or frontend"),
        (&cluster.ingesters[0], "a querier or frontend"),
    ] {
        let refused = part.api(None).get("/api/v1/query", &query);
        assert_eq!(refused.status, 404, "{}", refused.text());
        assert!(refused.text().contains(what), "{}", refused.text());
    }
    let body = request(first_scrape(), 0..40);
    // Ingesters are written to by gRPC.
    for part in [
        &cluster.frontend,
        &cluster.queriers[0],
        &cluster.ingesters[0],
    ] {
        let refused = super::series::push(part, None, &body);
        assert_eq!(refused.status, 404, "{}", refused.text());
        assert!(refused.text().contains("-target"), "{}", refused.text());
    }
    for (part, shown) in [
        (&cluster.distributor, "distributor => Running"),
        (&cluster.ingesters[0], "cores => Running"),
        (&cluster.queriers[0], "querier => Running"),
        (&cluster.frontend, "query-frontend => Running"),
    ] {
        let services = part.admin().get("/services", &[]).text();
        assert!(services.contains(shown), "{services}");
    }
}

/// Which querier has a query at work.
fn at_work(queriers: &[Server]) -> Option<usize> {
    queriers.iter().position(|querier| {
        let running = querier.admin().get("/querier/queries", &[]).json();
        let running = running["data"]["running"].as_array().map(Vec::len);
        running.is_some_and(|count| count > 0)
    })
}

#[test]
fn a_querier_that_is_killed_costs_a_retry_and_no_error() {
    let Some(mut cluster) = Cluster::start("", 1, 2) else {
        return;
    };
    let start = first_scrape();
    accepted(&cluster.distributor, &request(start, 0..ASKED));
    let end = ((start + ASKED * SCRAPE) / 1000).to_string();
    // Some seconds of work.
    let heavy =
        "sum(count_over_time((count({__name__=~\".+\"}) + count({__name__=~\".+\"}))[6h:200ms]))";
    let ask = |server: &Server| {
        let params = [("query", heavy), ("time", &*end), ("nocache", "1")];
        server.api(None).get("/api/v1/query", &params)
    };
    let (answer, victim) = std::thread::scope(|scope| {
        let frontend = &cluster.frontend;
        let asked = scope.spawn(move || ask(frontend));
        let mut victim = None;
        wait_until("a querier to be at work", PATIENCE, || {
            victim = at_work(&cluster.queriers);
            victim.is_some() || asked.is_finished()
        });
        let victim = victim.expect("the query is not over before anybody could look");
        // By its number, since the others are still borrowed.
        cluster.queriers[victim].signal_kill();
        (asked.join().expect("no panic"), victim)
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    let lost = |name: &str| {
        let text = cluster.frontend.admin().get("/metrics", &[]).text();
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        line.and_then(|line| line.split(' ').next_back()?.parse::<f64>().ok())
    };
    assert_eq!(
        lost("myelin_query_frontend_lost_queriers_total "),
        Some(1.0)
    );
    // The one that is left answers alone, and the other is used again when it is back.
    let one = cluster.frontend.api(None).query("1 + 1", 0.0);
    assert_eq!(one, Value::from(vec![Value::from(0), Value::from("2")]));
    cluster.queriers[victim].restart();
    wait_until("both to be connected", PATIENCE, || {
        lost("cortex_query_frontend_connected_clients ") >= Some(20.0)
    });
}
