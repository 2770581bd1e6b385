//! How nodes of a cluster talk: the messages and services of `proto/`, as `protox` and `tonic` make them.
//!
//! Generated code and nothing else, so that its weight is compiled once and what it means stands where it is used: `gateway`'s `peers` and
//! `frontend`. The files are the reference of the protocol.

#![forbid(unsafe_code)]

/// Writing to and reading from a node that has cores (`proto/ingester.proto`).
pub mod ingester {
    #![expect(
        missing_docs,
        reason = "generated; the comments stand in the protocol file"
    )]
    #![allow(clippy::all, reason = "generated")]
    tonic::include_proto!("myelin.ingester.v1");
}

/// Queries that wait for a querier (`proto/frontend.proto`).
pub mod frontend {
    #![expect(
        missing_docs,
        reason = "generated; the comments stand in the protocol file"
    )]
    #![allow(clippy::all, reason = "generated")]
    tonic::include_proto!("myelin.frontend.v1");
}

/// Largest message of either protocol, bytes. Source: Cortex, `grpc_server_max_recv_msg_size` of a single process, 100 MiB.
pub const MESSAGE_BYTES_MAX: usize = 100 << 20;
