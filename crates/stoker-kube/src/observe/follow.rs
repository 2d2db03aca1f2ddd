//! Watch for ever: kube's `watcher` for metadata, without its buffers.
//!
//! The first watch has no version to start from, unless its caller has just written what is watched: the API server begins
//! it with all objects that there are. Only when a version is forgotten is there a list: it shows what vanished meanwhile.
//!
//! A thousand live tenants have eleven open watches each, nearly always silent. kube's watcher
//! keeps 8 KiB of read buffer and the state of its longest request for each of them; here a silent
//! watch is a version and a stream (measured with eleven watches per client on one connection:
//! 4.4 KiB each instead of 12, see `e2e/tests/kube_memory.rs`). It gives the same events and
//! errors.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt as _, Stream, StreamExt as _, stream};
use kube::api::{
    Api, ApiResource, DynamicObject, ListParams, PartialObjectMeta, WatchEvent, WatchParams,
};
use kube::core::Request;
use kube::runtime::watcher::{DefaultBackoff, Error, Event};
use kube::{Client, Resource as _};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::OwnedWatch;
use crate::call::objects;
use crate::sparse::SparseMeta;

/// An object of which only the metadata was asked for.
pub(super) type Meta = PartialObjectMeta<DynamicObject>;

/// Objects per page of a list: metadata alone, at most 256 KiB of annotations each.
const PAGE: u32 = 100;

/// A watch of what comes after it begins with all objects that there are.
const ALL: &str = "0";

/// How long one watch request lasts at least. Dead peers are found by the connection (pings of the
/// tenant's client, the read timeout of the management one); this only bounds how long a server
/// that forgot a watch goes unnoticed, and each renewal costs every tenant a request.
const WATCH: Duration = Duration::from_mins(20);

/// What a server may take longer than asked to end a watch.
const GRACE: Duration = Duration::from_secs(10);

/// A watch that ends sooner is not reopened at once.
const SHORT: Duration = Duration::from_secs(1);

/// Longest line of a watch. An API server stores objects of up to 1.5 MiB; the sender may be
/// hostile.
const LINE_LIMIT: usize = 4 * 1024 * 1024;

/// What is read of an object in a watch.
#[derive(Deserialize)]
struct Sparse {
    metadata: SparseMeta,
}

impl From<Sparse> for Meta {
    fn from(Sparse { metadata }: Sparse) -> Self {
        Self {
            types: None,
            metadata: metadata.into(),
            _phantom: PhantomData,
        }
    }
}

/// The objects of a kind and what happens to them, until dropped; of what happens after the version `since` alone, if there
/// is one.
pub(super) fn follow(
    client: Client,
    resource: &ApiResource,
    since: Option<String>,
    watch: &OwnedWatch,
) -> impl Stream<Item = Result<Event<Meta>, Error>> + Send + use<> {
    let namespace = watch.namespace.as_deref();
    let follower = Follower {
        api: objects(&client, resource, namespace),
        url: DynamicObject::url_path(resource, namespace),
        client,
        selector: watch.selector.clone(),
        fields: watch.fields,
        bookmarks: watch.bookmarks,
        phase: Phase::Open {
            version: since.unwrap_or_else(|| ALL.to_owned()),
        },
        backoff: None,
        pause: None,
    };
    stream::unfold(follower, |mut follower| async {
        let news = follower.step().await;
        Some((stream::iter(news), follower))
    })
    .flatten()
}

struct Follower {
    client: Client,
    api: Api<Meta>,
    url: String,
    selector: String,
    fields: Option<&'static str>,
    bookmarks: bool,
    phase: Phase,
    /// Present after a failure, until something succeeds.
    backoff: Option<Box<DefaultBackoff>>,
    pause: Option<Duration>,
}

enum Phase {
    /// Read the list, or the rest of it.
    List { next_page: Option<String> },
    /// Open a watch of what comes after this version.
    Open { version: String },
    /// Read the watch.
    Watch(Box<Watch>),
}

struct Watch {
    version: String,
    lines: Lines,
    opened: Instant,
    ends: Instant,
}

type News = Vec<Result<Event<Meta>, Error>>;

impl Follower {
    /// One request or one line. What fails is tried again by the next step, after a pause.
    async fn step(&mut self) -> News {
        if let Some(pause) = self.pause.take() {
            sleep(pause).await;
        }
        let phase = std::mem::replace(&mut self.phase, Phase::List { next_page: None });
        // Requests are boxed: their state is large, and of no use while a watch is silent.
        match phase {
            Phase::List { next_page } => Box::pin(self.list(next_page)).await,
            Phase::Open { version } => Box::pin(self.open(version)).await,
            Phase::Watch(watch) => self.read(watch).await,
        }
    }

    async fn list(&mut self, page: Option<String>) -> News {
        let mut news = News::new();
        if page.is_none() {
            news.push(Ok(Event::Init));
        }
        let mut params = ListParams::default().labels(&self.selector).limit(PAGE);
        params.field_selector = self.fields.map(str::to_owned);
        params.continue_token = page;
        let list = match self.api.list(&params).await {
            Ok(list) => list,
            Err(error) => return self.failed(Error::InitialListFailed(error)),
        };
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let next_page = given(list.metadata.continue_);
        news.extend(
            list.items
                .into_iter()
                .map(|object| Ok(Event::InitApply(object))),
        );
        if next_page.is_some() {
            self.phase = Phase::List { next_page };
        } else if let Some(version) = given(list.metadata.resource_version) {
            news.push(Ok(Event::InitDone));
            self.phase = Phase::Open { version };
        } else {
            return self.failed(Error::NoResourceVersion);
        }
        news
    }

    async fn open(&mut self, version: String) -> News {
        let spread = RandomState::new().build_hasher().finish() % (WATCH.as_secs() / 2);
        let lasts = WATCH + Duration::from_secs(spread);
        let params = WatchParams {
            label_selector: Some(self.selector.clone()),
            field_selector: self.fields.map(str::to_owned),
            timeout: u32::try_from(lasts.as_secs()).ok(),
            // The first one tells that all objects were shown.
            bookmarks: self.bookmarks || version == ALL,
            ..WatchParams::default()
        };
        let request = Request::new(&self.url).watch_metadata(&params, &version);
        let opened = match request.map_err(kube::Error::BuildRequest) {
            Ok(request) => self.client.request_stream(request).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(reader) => {
                self.phase = Phase::Watch(Box::new(Watch {
                    version,
                    lines: Lines(Box::pin(reader)),
                    opened: Instant::now(),
                    ends: Instant::now() + lasts + GRACE,
                }));
                News::new()
            }
            Err(error) => {
                if !matches!(&error, kube::Error::Api(status) if status.code == 410) {
                    self.phase = Phase::Open { version };
                }
                self.failed(Error::WatchStartFailed(error))
            }
        }
    }

    async fn read(&mut self, mut watch: Box<Watch>) -> News {
        let line = match timeout_at(watch.ends, watch.lines.next()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Err(error)) => {
                self.reopen(watch.version);
                return self.failed(Error::WatchFailed(kube::Error::ReadEvents(error)));
            }
            // The server ended it, or should have.
            Ok(Ok(None)) | Err(_) => {
                self.pause = (watch.opened.elapsed() < SHORT).then_some(SHORT);
                self.reopen(watch.version);
                return News::new();
            }
        };
        let (version, event) = match serde_json::from_slice::<WatchEvent<Sparse>>(&line) {
            Ok(WatchEvent::Bookmark(mark)) => (Some(mark.metadata.resource_version), None),
            Ok(WatchEvent::Deleted(object)) => (
                object.metadata.resource_version.clone(),
                Some(Event::Delete(object.into())),
            ),
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (
                object.metadata.resource_version.clone(),
                Some(Event::Apply(object.into())),
            ),
            Ok(WatchEvent::Error(status)) => {
                // 410: what came after our version is forgotten. Start over.
                if status.code != 410 {
                    self.reopen(watch.version);
                }
                return self.failed(Error::WatchError(status));
            }
            Err(error) => {
                return self.failed(Error::WatchFailed(kube::Error::SerdeError(error)));
            }
        };
        let Some(version) = version.filter(|version| !version.is_empty()) else {
            return self.failed(Error::NoResourceVersion);
        };
        self.backoff = None;
        // The objects that a watch begins with come in any order: the first bookmark says that
        // they were all.
        if watch.version != ALL || event.is_none() {
            watch.version = version;
        }
        self.phase = Phase::Watch(watch);
        event.map(Ok).into_iter().collect()
    }

    /// Goes on where a watch ended. Of one that never said where it was anything may be missing.
    fn reopen(&mut self, version: String) {
        self.phase = if version == ALL {
            Phase::List { next_page: None }
        } else {
            Phase::Open { version }
        };
    }

    /// Reports the failure; the next step comes after a pause that grows while nothing succeeds.
    fn failed(&mut self, error: Error) -> News {
        self.pause = self.backoff.get_or_insert_default().next();
        vec![Err(error)]
    }
}

/// The lines of an answer. Nothing is held between two lines.
struct Lines(Pin<Box<dyn AsyncBufRead + Send>>);

impl Lines {
    /// The next line without its end; `None` at the end of the answer.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let chunk = self.0.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(chunk.len());
            if line.len() + taken > LINE_LIMIT {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line beyond the limit",
                ));
            }
            line.extend_from_slice(&chunk[..taken]);
            let used = taken + usize::from(end.is_some());
            self.0.consume_unpin(used);
            if end.is_some() && !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests;
