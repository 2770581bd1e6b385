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
    ]
}
