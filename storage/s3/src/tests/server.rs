//! An S3 server inside the test: signatures are checked (by `s3s`), objects are in memory under one lock, so that conditions are kept; and it can misbehave.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_util::stream::{StreamExt, iter};
use hyper_util::rt::{TokioExecutor, TokioIo};
use md5::{Digest, Md5};
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::runtime::Runtime;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// 503 SlowDown, nothing happens.
    Slow,
    /// The connection ends, nothing happens.
    Hangup,
    /// It happens, and the connection ends before the answer.
    Lost,
    /// No answer at all, ever.
    Silence,
    /// The answer's body ends in the middle.
    Cut,
    /// A bit of what is stored flips.
    Flip,
    /// It happens, and the answer is one that nobody asked for.
    Strange,
}

pub(super) const KEY: &str = "AKIDEXAMPLE";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

type Plan = Box<dyn FnMut(&str) -> Fault + Send>;

#[derive(Clone)]
pub(super) struct Server {
    state: Arc<Mutex<State>>,
    pub(super) address: SocketAddr,
    _runtime: Arc<Runtime>,
}

struct State {
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<String, Upload>,
    next_upload: u32,
    /// Asked with `METHOD path?query`.
    plan: Plan,
    /// All requests so far.
    seen: Vec<String>,
    /// Headers about encryption of the last write.
    encryption: Option<(String, Option<String>, Option<String>)>,
    conditions: bool,
}

#[derive(Clone)]
struct Stored {
    bytes: Vec<u8>,
    etag: String,
    modified: SystemTime,
}

struct Upload {
    key: String,
    parts: BTreeMap<i32, Vec<u8>>,
    begun: SystemTime,
}

#[derive(Clone)]
struct Backend(Arc<Mutex<State>>);

impl Server {
    pub(super) fn start() -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let state = Arc::new(Mutex::new(State {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            next_upload: 0,
            plan: Box::new(|_| Fault::None),

            seen: Vec::new(),
            encryption: None,
            conditions: true,
        }));
        let mut builder = S3ServiceBuilder::new(Backend(state.clone()));
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (service, shared) = (service.clone(), shared.clone());
                let answer = hyper::service::service_fn(move |request: hyper::Request<_>| {
                    let (service, shared) = (service.clone(), shared.clone());
                    async move {
                        let path = request.uri().path_and_query().map_or("", |p| p.as_str());
                        let line = format!("{} {path}", request.method());
                        let fault = {
                            let mut state = shared.lock().unwrap();
                            let fault = (state.plan)(&line);
                            state.seen.push(line);
                            fault
                        };
                        match fault {
                            Fault::Hangup => return Err(std::io::Error::other("hangup")),
                            Fault::Silence => std::future::pending().await,
                            Fault::Slow => {
                                let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                                let answer = hyper::Response::builder().status(503);
                                return Ok(answer.body(s3s::Body::from(body.to_owned())).unwrap());
                            }
                            _ => {}
                        }
                        let mut request = request.map(s3s::Body::from);
                        request.extensions_mut().insert(FaultOf(fault));
                        let answer = service.call(request).await;
                        match fault {
                            Fault::Lost => Err(std::io::Error::other("lost")),
                            Fault::Strange => {
                                let body = "<SomethingElse/>".to_owned();
                                Ok(hyper::Response::new(s3s::Body::from(body)))
                            }
                            _ => answer.map_err(|e| std::io::Error::other(format!("{e:?}"))),
                        }
                    }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    // A test that hangs up hangs up.
                    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Server {
            state,
            address,
            _runtime: Arc::new(runtime),
        }
    }

    pub(super) fn plan(&self, plan: impl FnMut(&str) -> Fault + Send + 'static) {
        self.state.lock().unwrap().plan = Box::new(plan);
    }

    /// The requests since the last call.
    pub(super) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    pub(super) fn uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    pub(super) fn encryption(&self) -> Option<(String, Option<String>, Option<String>)> {
        self.state.lock().unwrap().encryption.clone()
    }

    pub(super) fn keep_conditions(&self, keep: bool) {
        self.state.lock().unwrap().conditions = keep;
    }
}

/// Goes with the request to the backend.
#[derive(Clone, Copy)]
struct FaultOf(Fault);

fn fault_of<T>(request: &S3Request<T>) -> Fault {
    request
        .extensions
        .get::<FaultOf>()
        .map_or(Fault::None, |f| f.0)
}

impl Backend {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// When everything was made: nobody asks for more than that it was before now.
fn made() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut body) = body else {
        return Ok(bytes);
    };
    while let Some(some) = body.next().await {
        bytes.extend_from_slice(&some.map_err(|e| s3_error!(IncompleteBody, "{e}"))?);
    }
    Ok(bytes)
}

fn note_encryption(
    state: &mut State,
    kind: Option<&ServerSideEncryption>,
    key: Option<&String>,
    context: Option<&String>,
) {
    state.encryption = kind.map(|kind| (kind.as_str().to_owned(), key.cloned(), context.cloned()));
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let fault = fault_of(&request);
        let mut input = request.input;
        let mut bytes = collect(input.body.take()).await?;
        if let (Fault::Flip, Some(first)) = (fault, bytes.first_mut()) {
            *first ^= 1;
        }
        let mut state = self.state();
        note_encryption(
            &mut state,
            input.server_side_encryption.as_ref(),
            input.ssekms_key_id.as_ref(),
            input.ssekms_encryption_context.as_ref(),
        );
        let found = state
            .objects
            .get(&input.key)
            .map(|stored| stored.etag.clone());
        if state.conditions {
            if input.if_none_match.is_some() && found.is_some() {
                return Err(s3_error!(PreconditionFailed));
            }
            if let Some(ETagCondition::ETag(etag)) = &input.if_match {
                match found {
                    None => return Err(s3_error!(NoSuchKey)),
                    Some(found) if found != etag.value() => {
                        return Err(s3_error!(PreconditionFailed));
                    }
                    Some(_) => {}
                }
            }
        }
        let stored = Stored {
            etag: md5_hex(&bytes),
            bytes,
            modified: made(),
        };
        let e_tag = Some(ETag::Strong(stored.etag.clone()));
        state.objects.insert(input.key, stored);
        Ok(S3Response::new(PutObjectOutput {
            e_tag,
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let fault = fault_of(&request);
        let stored = self.state().objects.get(&request.input.key).cloned();
        let stored = stored.ok_or_else(|| s3_error!(NoSuchKey))?;
        let range = match &request.input.range {
            Some(range) => range.check(stored.bytes.len() as u64)?,
            None => 0..stored.bytes.len() as u64,
        };
        let bytes = stored.bytes[range.start as usize..range.end as usize].to_vec();
        let content_length = Some(bytes.len() as i64);
        let mut pieces = vec![Ok(bytes.into())];
        if fault == Fault::Cut {
            let half: Vec<u8> =
                stored.bytes[range.start as usize..][..pieces_len(&pieces) / 2].to_vec();
            pieces = vec![Ok(half.into()), Err(std::io::Error::other("cut"))];
        }
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(iter(pieces))),
            content_length,
            content_range: request.input.range.map(|_| {
                format!(
                    "bytes {}-{}/{}",
                    range.start,
                    range.end.max(1) - 1,
                    stored.bytes.len()
                )
            }),
            e_tag: Some(ETag::Strong(stored.etag)),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let state = self.state();
        let stored = state.objects.get(&request.input.key);
        let stored = stored.ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(stored.bytes.len() as i64),
            e_tag: Some(ETag::Strong(stored.etag.clone())),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.state().objects.remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.start_after.unwrap_or_default();
        let max = input.max_keys.unwrap_or(1000) as usize;
        let state = self.state();
        let mut matching = state
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
            .map(|(key, stored)| Object {
                key: Some(key.clone()),
                size: Some(stored.bytes.len() as i64),
                last_modified: Some(stored.modified.into()),
                ..Default::default()
            });
        let contents: Vec<Object> = matching.by_ref().take(max).collect();
        let is_truncated = Some(matching.next().is_some());
        Ok(S3Response::new(ListObjectsV2Output {
            contents: Some(contents),
            is_truncated,
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.state();
        note_encryption(
            &mut state,
            input.server_side_encryption.as_ref(),
            input.ssekms_key_id.as_ref(),
            input.ssekms_encryption_context.as_ref(),
        );
        state.next_upload += 1;
        let id = format!("upload-{}", state.next_upload);
        let upload = Upload {
            key: input.key.clone(),
            parts: BTreeMap::new(),
            begun: made(),
        };
        state.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(id),
            key: Some(input.key),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let fault = fault_of(&request);
        let mut input = request.input;
        let mut bytes = collect(input.body.take()).await?;
        if let (Fault::Flip, Some(first)) = (fault, bytes.first_mut()) {
            *first ^= 1;
        }
        let mut state = self.state();
        let upload = state.uploads.get_mut(&input.upload_id);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let e_tag = Some(ETag::Strong(md5_hex(&bytes)));
        upload.parts.insert(input.part_number, bytes);
        Ok(S3Response::new(UploadPartOutput {
            e_tag,
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.state();
        let upload = state.uploads.remove(&input.upload_id);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let named = input
            .multipart_upload
            .and_then(|m| m.parts)
            .unwrap_or_default();
        let (mut bytes, mut digests) = (Vec::new(), Vec::new());
        for part in &named {
            let stored = upload.parts.get(&part.part_number.unwrap_or(0));
            let stored = stored.ok_or_else(|| s3_error!(InvalidPart))?;
            let etag = part.e_tag.as_ref().map(ETag::value);
            if etag != Some(&md5_hex(stored)) {
                return Err(s3_error!(InvalidPart));
            }
            bytes.extend_from_slice(stored);
            digests.extend_from_slice(&Md5::digest(stored));
        }
        let stored = Stored {
            etag: format!("{}-{}", md5_hex(&digests), named.len()),
            bytes,
            modified: made(),
        };
        let e_tag = Some(ETag::Strong(stored.etag.clone()));
        state.objects.insert(upload.key, stored);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            e_tag,
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let removed = self.state().uploads.remove(&request.input.upload_id);
        removed.ok_or_else(|| s3_error!(NoSuchUpload))?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let prefix = request.input.prefix.unwrap_or_default();
        let marker = request.input.key_marker.unwrap_or_default();
        let state = self.state();
        // One a page, so that paging is met.
        let mut matching = state
            .uploads
            .iter()
            .filter(|(_, upload)| upload.key.starts_with(&prefix) && upload.key > marker);
        let first = matching.next().map(|(id, upload)| MultipartUpload {
            key: Some(upload.key.clone()),
            upload_id: Some(id.clone()),
            initiated: Some(upload.begun.into()),
            ..Default::default()
        });
        Ok(S3Response::new(ListMultipartUploadsOutput {
            is_truncated: Some(matching.next().is_some()),
            next_key_marker: first.as_ref().and_then(|upload| upload.key.clone()),
            uploads: Some(first.into_iter().collect()),
            ..Default::default()
        }))
    }
}

fn pieces_len(pieces: &[Result<hyper::body::Bytes, std::io::Error>]) -> usize {
    pieces.iter().flatten().map(|bytes| bytes.len()).sum()
}
