//! `JoinToken`s: what people write asks for a pass, and that somebody has joined; what we write of it otherwise does not.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::{self, Event};
use stoker_api::labels::PAUSED;
use stoker_api::v1alpha1::JoinToken;

use super::{broken, cached, events};
use crate::context::Context;

pub(super) async fn watch_tokens(cache: Writer<JoinToken>, ctx: Arc<Context>) {
    let mut known = HashMap::new();
    let stream = events(ctx.client.clone(), watcher::Config::default());
    let mut stream = std::pin::pin!(cached(cache, stream));
    while let Some(event) = stream.next().await {
        if matches!(&event, Err(error) if is_no_kind(error)) {
            ctx.join_tokens.all_known();
        }
        match broken("JoinToken", event) {
            Some(Event::Apply(token) | Event::InitApply(token)) => {
                ctx.join_tokens.index(&token, true);
                let nodes = token.status.iter().flat_map(|status| &status.nodes);
                let now = (
                    token.uid(),
                    token.metadata.deletion_timestamp.is_some(),
                    token.annotations().contains_key(PAUSED),
                    nodes
                        .map(|node| (node.registration_time.is_some(), node.devices.is_some()))
                        .collect::<Vec<_>>(),
                    token
                        .status
                        .as_ref()
                        .and_then(|status| status.token_id.clone()),
                );
                let reference = ObjectRef::from_obj(&token);
                if known.insert(reference, now.clone()) != Some(now) {
                    ctx.join_tokens.saw(&token);
                }
            }
            Some(Event::Delete(token)) => {
                let reference = ObjectRef::from_obj(&token);
                known.remove(&reference);
                ctx.join_tokens.index(&token, false);
                ctx.join_tokens.forget(&reference);
                ctx.join_tokens.failures.succeeded(&reference);
                ctx.join_tokens.saw(&token);
            }
            Some(Event::InitDone) => {
                ctx.join_tokens.all_known();
                for token in ctx.join_tokens.tokens.state() {
                    ctx.join_tokens.saw(&token);
                }
            }
            Some(Event::Init) | None => {}
        }
    }
}

/// Whether the kind is not installed, as the API server says once it knows which are.
fn is_no_kind(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status)) => status.is_not_found(),
        _ => false,
    }
}
