//! The keys of a bucket of Google Cloud Storage.

use super::super::Config;
use super::super::setting::Setting;
use super::{Key, kind_of};

pub(super) fn keys() -> Vec<Key> {
    vec![
        key!(
            "blocks_storage.gcs.bucket_name",
            "blocks-storage.gcs.bucket-name",
            blocks.gcs.bucket_name,
            "metrics",
            "The bucket, which must exist."
        ),
        key!(
            "blocks_storage.gcs.service_account",
            "blocks-storage.gcs.service-account",
            blocks.gcs.service_account,
            "/etc/myelin/gcs.json",
            "Key of a service account: JSON, or the path of such a file; shown nowhere. Empty: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's file, the instance's account."
        ),
        key!(
            "blocks_storage.gcs.endpoint",
            "blocks-storage.gcs.endpoint",
            blocks.gcs.endpoint,
            "http://localhost:4443",
            "A URL instead of Google's, as of an emulator. Without a service account nothing is signed then."
        ),
        key!(
            "blocks_storage.gcs.http.request_timeout",
            "blocks-storage.gcs.http.request-timeout",
            blocks.gcs.request_timeout,
            "10s",
            "Time for one try of one request, its body included."
        ),
        key!(
            "blocks_storage.gcs.max_retries",
            "blocks-storage.gcs.max-retries",
            blocks.gcs.max_retries,
            "3",
            "Tries of a request, with growing pauses between them."
        ),
    ]
}
