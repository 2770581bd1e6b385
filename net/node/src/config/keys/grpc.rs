//! The keys of the gRPC server's bounds, and of pages that read answers.

use super::super::Config;
use super::super::setting::Setting;
use super::{Key, kind_of};

pub(super) fn keys() -> Vec<Key> {
    vec![
        key!(
            "server.grpc_server_max_recv_msg_size",
            "server.grpc-max-recv-msg-size-bytes",
            server.grpc.max_recv_msg_size,
            "64MiB",
            "Largest message that the gRPC server takes. Nodes send each other at most 100 MiB."
        ),
        key!(
            "server.grpc_server_max_send_msg_size",
            "server.grpc-max-send-msg-size-bytes",
            server.grpc.max_send_msg_size,
            "64MiB",
            "Largest message that it sends; a call whose answer is larger fails. Nodes take at most 100 MiB of each other."
        ),
        key!(
            "server.grpc_server_max_concurrent_streams",
            "server.grpc-max-concurrent-streams",
            server.grpc.max_concurrent_streams,
            "100",
            "Calls at once on one connection; others wait at their client. 0: unlimited."
        ),
        key!(
            "server.grpc_server_keepalive_time",
            "server.grpc.keepalive.time",
            server.grpc.keepalive_time,
            "2h",
            "A connection that is silent for that long is asked whether it lives: one that does not holds queries and what was read for them. 0: never."
        ),
        key!(
            "server.grpc_server_keepalive_timeout",
            "server.grpc.keepalive.timeout",
            server.grpc.keepalive_timeout,
            "20s",
            "Where no answer to that comes within this time the connection is closed."
        ),
        key!(
            "server.grpc_server_max_connection_age",
            "server.grpc.keepalive.max-connection-age",
            server.grpc.max_connection_age,
            "1h",
            "After it a client is asked to connect anew, so that it finds other nodes; calls under way go on. 0: never."
        ),
        key!(
            "api.cors_origin",
            "server.cors-origin",
            api.cors_origin,
            "https?://(domain1|domain2)\\.com",
            "Pages of which origins may read answers of the query API: a regular expression that has to match the whole origin, as `https?://(a|b)\\.com`."
        ),
    ]
}
