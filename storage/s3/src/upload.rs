//! A large object in parts: one in memory at a time, each compared with what the store says it got.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use base64::prelude::{BASE64_STANDARD, Engine};
use md5::{Digest, Md5};
use objstore::{Body, Bucket, Condition, Error, Etag, Stat};

use crate::client::{Inner, S3};
use crate::failure::told;
use crate::options::Encryption;

/// S3 takes 10,000 parts of one object; some are left for luck.
const PARTS_MAX: u64 = 9_000;

/// An upload under way.
pub(crate) struct Upload<'a> {
    s3: &'a S3,
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
    /// MD5 of each part, one after the other: the MD5 of that is what most stores make the etag of the whole.
    digests: Vec<u8>,
}

impl Upload<'_> {
    pub(crate) fn run(s3: &S3, key: &str, body: &mut dyn Body) -> Result<Stat, Error> {
        let len = body.len();
        let part_bytes = (s3.inner.options.part_bytes as u64).max(len.div_ceil(PARTS_MAX));
        if len <= part_bytes {
            let bytes = read(key, body, 0..len)?;
            let digest = md5(&bytes);
            let (inner, owned) = (Arc::clone(&s3.inner), key.to_owned());
            let put = s3.wait(async move { inner.put(&owned, bytes, &Condition::Always).await })?;
            s3.inner.compare(key, put.etag.as_ref(), &digest, "")?;
            return Ok(put);
        }
        let mut upload = Upload {
            s3,
            key: key.to_owned(),
            id: begin(s3, key)?,
            parts: Vec::new(),
            digests: Vec::new(),
        };
        let done = upload
            .send(body, part_bytes)
            .and_then(|()| upload.complete(len));
        if done.is_err() {
            let (inner, key, id) = (Arc::clone(&s3.inner), upload.key, upload.id);
            // What cannot be removed now is swept later.
            let _ = s3.wait(async move { inner.abort(&key, &id).await });
        }
        done
    }

    fn send(&mut self, body: &mut dyn Body, part_bytes: u64) -> Result<(), Error> {
        let (len, mut at) = (body.len(), 0);
        while at < len {
            let end = len.min(at + part_bytes);
            let bytes = read(&self.key, body, at..end)?;
            at = end;
            let digest = md5(&bytes);
            let number = self.parts.len() as i32 + 1;
            let (inner, key, id) = (
                Arc::clone(&self.s3.inner),
                self.key.clone(),
                self.id.clone(),
            );
            let part = self.s3.wait(async move {
                let request = inner.client.upload_part().bucket(&inner.options.bucket);
                let request = request.key(&key).upload_id(id).part_number(number);
                let sent = request.body(ByteStream::from(bytes)).send().await;
                sent.map_err(|e| told(&key, e))
            })?;
            let etag = part.e_tag().map(|etag| Etag(etag.to_owned()));
            self.s3
                .inner
                .compare(&self.key, etag.as_ref(), &digest, "")?;
            self.digests.extend_from_slice(&digest);
            let part = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag)
                .set_checksum_crc32(part.checksum_crc32)
                .set_checksum_crc32_c(part.checksum_crc32_c)
                .set_checksum_crc64_nvme(part.checksum_crc64_nvme);
            self.parts.push(part.build());
        }
        Ok(())
    }

    fn complete(&self, len: u64) -> Result<Stat, Error> {
        let parts = CompletedMultipartUpload::builder();
        let parts = parts.set_parts(Some(self.parts.clone())).build();
        let (inner, key, id) = (
            Arc::clone(&self.s3.inner),
            self.key.clone(),
            self.id.clone(),
        );
        let whole = self.s3.wait(async move {
            let request = inner.client.complete_multipart_upload();
            let request = request
                .bucket(&inner.options.bucket)
                .key(&key)
                .upload_id(id);
            let sent = request.multipart_upload(parts).send().await;
            sent.map_err(|e| told(&key, e))
        });
        let whole = match whole {
            Ok(whole) => whole,
            Err(error) => return self.look(len).ok_or(error),
        };
        let etag = whole.e_tag().map(|etag| Etag(etag.to_owned()));
        let suffix = format!("-{}", self.parts.len());
        let inner = &self.s3.inner;
        inner.compare(&self.key, etag.as_ref(), &md5(&self.digests), &suffix)?;
        Ok(Stat { len, etag })
    }

    /// The object, if what is there under the key is beyond doubt what was sent.
    ///
    /// A store may have made it whole although its answer was lost (a second try is told that there is no such upload) or is not what the SDK can read (moto 5.2 names
    /// the answer differently). Nothing else says so: the upload would begin anew for ever.
    fn look(&self, len: u64) -> Option<Stat> {
        let stat = self.s3.head(&self.key).ok()??;
        let expected = format!("{}-{}", hex(&md5(&self.digests)), self.parts.len());
        let found = stat.etag.as_ref()?.0.trim_matches('"');
        (stat.len == len && found.eq_ignore_ascii_case(&expected)).then_some(stat)
    }
}

fn begin(s3: &S3, key: &str) -> Result<String, Error> {
    let (inner, key) = (Arc::clone(&s3.inner), key.to_owned());
    s3.wait(async move {
        let (kind, key_id, context) = inner.options.encryption.headers();
        let request = inner.client.create_multipart_upload();
        let sent = request
            .bucket(&inner.options.bucket)
            .key(&key)
            .set_server_side_encryption(kind)
            .set_ssekms_key_id(key_id)
            .set_ssekms_encryption_context(context)
            .send()
            .await;
        let begun = sent.map_err(|e| told(&key, e))?;
        begun.upload_id.ok_or_else(|| Error::Refused {
            key,
            reason: "the store begins an upload and does not name it".to_owned(),
        })
    })
}

fn read(key: &str, body: &mut dyn Body, range: std::ops::Range<u64>) -> Result<Vec<u8>, Error> {
    body.read(range).map_err(|reason| Error::Body {
        key: key.to_owned(),
        reason,
    })
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

fn hex(digest: &[u8; 16]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Inner {
    /// Compares an etag with an MD5 where the store makes it one; with keys of the key service it is something else.
    fn compare(
        &self,
        key: &str,
        etag: Option<&Etag>,
        digest: &[u8; 16],
        suffix: &str,
    ) -> Result<(), Error> {
        let Some(etag) = etag else { return Ok(()) };
        let found = etag.0.trim_matches('"');
        let Some(shown) = found.strip_suffix(suffix) else {
            return Ok(());
        };
        let is_digest = shown.len() == 32 && shown.bytes().all(|b| b.is_ascii_hexdigit());
        let is_kms = matches!(self.options.encryption, Encryption::Kms { .. });
        let expected = hex(digest);
        if !is_digest || is_kms || shown.eq_ignore_ascii_case(&expected) {
            return Ok(());
        }
        Err(Error::Corrupt {
            key: key.to_owned(),
            what: "the MD5 of what arrived",
            expected,
            found: found.to_owned(),
        })
    }
}

/// Kind, key and context as the SDK takes them.
type Headers = (Option<ServerSideEncryption>, Option<String>, Option<String>);

impl Encryption {
    /// The headers of a request that writes.
    pub(crate) fn headers(&self) -> Headers {
        match self {
            Encryption::Bucket => (None, None, None),
            Encryption::Store => (Some(ServerSideEncryption::Aes256), None, None),
            Encryption::Kms { key_id, context } => {
                let key_id = Some(key_id.clone()).filter(|id| !id.is_empty());
                let context = (!context.is_empty()).then(|| BASE64_STANDARD.encode(context));
                (Some(ServerSideEncryption::AwsKms), key_id, context)
            }
        }
    }
}
