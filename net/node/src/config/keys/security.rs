//! The keys of credentials and TLS.

use super::super::Config;
use super::super::setting::Setting;
use super::{Key, kind_of};

pub(super) fn keys() -> Vec<Key> {
    vec![
        key!(
            "auth.credentials_file",
            "auth.credentials-file",
            auth.credentials_file,
            "/etc/myelin/credentials.yaml",
            "File of users, with hashed passwords, hashed tokens and names of client certificates, their tenants and scopes; read again while the node runs. With it \
             every request needs credentials; `X-Scope-OrgID` chooses among the tenants of the user. Empty: something in front of the node authenticates and sets that header."
        ),
        key!(
            "auth.reload_period",
            "auth.reload-period",
            auth.reload_period,
            "1m",
            "How often that file, and those of TLS, are looked at. What is wrong changes nothing, and is told in the log and by `myelin_security_last_reload_successful`."
        ),
        key!(
            "auth.open_metrics",
            "auth.open-metrics",
            auth.open_metrics,
            "true",
            "Whether `/metrics` is open to everybody also where there is a file of credentials; else it needs the scope `metrics` or `admin`."
        ),
        key!(
            "server.http_tls_config.cert_file",
            "server.http-tls-cert-path",
            server.http_tls.cert_file,
            "/etc/myelin/tls.crt",
            "Certificate of the HTTP server with its chain, PEM; read again while the node runs. Empty: no TLS. TLS 1.2 and 1.3 are spoken."
        ),
        key!(
            "server.http_tls_config.key_file",
            "server.http-tls-key-path",
            server.http_tls.key_file,
            "/etc/myelin/tls.key",
            "Its private key, PEM."
        ),
        key!(
            "server.http_tls_config.client_auth_type",
            "server.http-tls-client-auth",
            server.http_tls.client_auth_type,
            "RequireAndVerifyClientCert",
            "Whether clients show a certificate: `NoClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`."
        ),
        key!(
            "server.http_tls_config.client_ca_file",
            "server.http-tls-ca-path",
            server.http_tls.client_ca_file,
            "/etc/myelin/ca.crt",
            "Authorities of these certificates, PEM."
        ),
        key!(
            "server.grpc_tls_config.cert_file",
            "server.grpc-tls-cert-path",
            server.grpc_tls.cert_file,
            "/etc/myelin/tls.crt",
            "Certificate of the gRPC server with its chain, PEM. Empty: no TLS."
        ),
        key!(
            "server.grpc_tls_config.key_file",
            "server.grpc-tls-key-path",
            server.grpc_tls.key_file,
            "/etc/myelin/tls.key",
            "Its private key, PEM."
        ),
        key!(
            "server.grpc_tls_config.client_auth_type",
            "server.grpc-tls-client-auth",
            server.grpc_tls.client_auth_type,
            "RequireAndVerifyClientCert",
            "As for the HTTP server."
        ),
        key!(
            "server.grpc_tls_config.client_ca_file",
            "server.grpc-tls-ca-path",
            server.grpc_tls.client_ca_file,
            "/etc/myelin/ca.crt",
            "Authorities of these certificates, PEM."
        ),
        key!(
            "server.grpc_secret_file",
            "server.grpc-secret-file",
            server.grpc_secret_file,
            "/etc/myelin/node-secret",
            "File of the secret that the nodes of a cluster share, at least 16 characters; read again while the node runs. A node shows it to ingesters and frontends, and serves nobody \
             by gRPC (but the health service) who does not. With several lines the first is shown and all are taken. It travels readable without TLS. Empty: none."
        ),
        key!(
            "ingester_client.grpc_client_config.tls_enabled",
            "ingester.client.tls-enabled",
            ingester_client.tls.enabled,
            "true",
            "Whether distributors and queriers speak TLS with ingesters."
        ),
        key!(
            "ingester_client.grpc_client_config.tls_cert_path",
            "ingester.client.tls-cert-path",
            ingester_client.tls.cert_file,
            "/etc/myelin/tls.crt",
            "Certificate that is shown to them, with its chain, PEM; read again while the node runs. Empty: none."
        ),
        key!(
            "ingester_client.grpc_client_config.tls_key_path",
            "ingester.client.tls-key-path",
            ingester_client.tls.key_file,
            "/etc/myelin/tls.key",
            "Its private key, PEM."
        ),
        key!(
            "ingester_client.grpc_client_config.tls_ca_path",
            "ingester.client.tls-ca-path",
            ingester_client.tls.ca_file,
            "/etc/myelin/ca.crt",
            "Authorities of the certificates of ingesters, PEM."
        ),
        key!(
            "ingester_client.grpc_client_config.tls_server_name",
            "ingester.client.tls-server-name",
            ingester_client.tls.server_name,
            "ingester.local",
            "The name that these certificates must have. Empty: the host of `ingester_client.addresses`."
        ),
        key!(
            "ingester_client.grpc_client_config.tls_insecure_skip_verify",
            "ingester.client.tls-insecure-skip-verify",
            ingester_client.tls.insecure_skip_verify,
            "true",
            "Whether any certificate will do."
        ),
        key!(
            "frontend_worker.grpc_client_config.tls_enabled",
            "querier.frontend-client.tls-enabled",
            frontend_worker.tls.enabled,
            "true",
            "Whether queriers speak TLS with frontends."
        ),
        key!(
            "frontend_worker.grpc_client_config.tls_cert_path",
            "querier.frontend-client.tls-cert-path",
            frontend_worker.tls.cert_file,
            "/etc/myelin/tls.crt",
            "Certificate that is shown to them, with its chain, PEM; read again while the node runs. Empty: none."
        ),
        key!(
            "frontend_worker.grpc_client_config.tls_key_path",
            "querier.frontend-client.tls-key-path",
            frontend_worker.tls.key_file,
            "/etc/myelin/tls.key",
            "Its private key, PEM."
        ),
        key!(
            "frontend_worker.grpc_client_config.tls_ca_path",
            "querier.frontend-client.tls-ca-path",
            frontend_worker.tls.ca_file,
            "/etc/myelin/ca.crt",
            "Authorities of the certificates of frontends, PEM."
        ),
        key!(
            "frontend_worker.grpc_client_config.tls_server_name",
            "querier.frontend-client.tls-server-name",
            frontend_worker.tls.server_name,
            "frontend.local",
            "The name that these certificates must have. Empty: that of `frontend_worker.frontend_address`, without the port."
        ),
        key!(
            "frontend_worker.grpc_client_config.tls_insecure_skip_verify",
            "querier.frontend-client.tls-insecure-skip-verify",
            frontend_worker.tls.insecure_skip_verify,
            "true",
            "Whether any certificate will do."
        ),
    ]
}
