//! Reading, writing and watching keys, one request at a time.

use etcd_client::{
    Client, DeleteOptions, Error, GetOptions, Permission, PutOptions, RoleRevokePermissionOptions,
    SortOrder, SortTarget, WatchFilterType, WatchOptions,
};
use std::time::Duration;

use super::case::Expect::{Allowed, Denied, Known};
use super::case::{Case, case};
use super::world::{SINGLE_KEY, World};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = range();
    cases.extend(range_stream());
    cases.extend(put());
    cases.extend(delete_range());
    cases.extend(watch());
    cases
}

type Span = (&'static str, fn(&World) -> (Vec<u8>, Vec<u8>));

/// Everything that is not the attacker's, from start to end; an empty end is a single key.
fn foreign_spans() -> Vec<Span> {
    vec![
        ("the victim's key", |w| (w.foreign("secret").into(), vec![])),
        ("the victim's prefix", |w| {
            (w.foreign("").into(), w.victim_id.range_end().into())
        }),
        ("the root of all prefixes", |_| (b"/".into(), b"0".into())),
        ("every key", |_| (vec![0], vec![0])),
        ("from own prefix to the end", |w| {
            (w.own("").into(), vec![0])
        }),
        ("own prefix and one byte more", |w| {
            (
                w.own("").into(),
                [w.tenant_id.range_end().as_bytes(), b"\0"].concat(),
            )
        }),
        ("one key before own prefix", |w| {
            (
                format!("/{}", w.tenant_id).into(),
                w.tenant_id.range_end().into(),
            )
        }),
        ("own prefix without its last slash", |w| {
            (format!("/{}", w.tenant_id).into(), vec![])
        }),
        ("the end of own range", |w| {
            (w.tenant_id.range_end().into(), vec![])
        }),
        ("the owner records", |_| {
            (b"stoker.dev/".into(), b"stoker.dev0".into())
        }),
        ("the key of the compactor", |_| (SINGLE_KEY.into(), vec![])),
    ]
}

fn get_options(span_end: Vec<u8>) -> GetOptions {
    if span_end.is_empty() {
        GetOptions::new()
    } else {
        GetOptions::new().with_range(span_end)
    }
}

fn range() -> Vec<Case> {
    type Variant = (&'static str, fn(&World, GetOptions) -> GetOptions);
    let variants: [Variant; 7] = [
        ("", |_, options| options),
        (", limit 1", |_, options| options.with_limit(1)),
        (", count only", |_, options| options.with_count_only()),
        (", keys only", |_, options| options.with_keys_only()),
        (", serializable", |_, options| options.with_serializable()),
        (", old revision", |w, options| {
            options.with_revision(w.revision)
        }),
        (", sorted, by revision", |w, options| {
            options
                .with_sort(SortTarget::Mod, SortOrder::Descend)
                .with_min_mod_revision(w.revision)
        }),
    ];
    let mut cases = Vec::new();
    for (what, span) in foreign_spans() {
        for (how, vary) in variants {
            cases.push(case(
                "Range",
                format!("{what}{how}"),
                Denied,
                move |mut w| async move {
                    let (start, end) = span(&w);
                    w.tenant.get(start, Some(vary(&w, get_options(end)))).await
                },
            ));
        }
    }
    for (how, vary) in variants {
        cases.push(case(
            "Range",
            format!("own prefix{how}"),
            Allowed,
            move |mut w| async move {
                let options = vary(&w, get_options(w.tenant_id.range_end().into()));
                w.tenant.get(w.own(""), Some(options)).await
            },
        ));
    }
    cases.push(case("Range", "own last key", Allowed, |mut w| async move {
        let found = w
            .tenant
            .get([w.own("").as_bytes(), b"\xff\xff"].concat(), None)
            .await?;
        if found.count() == 1 {
            Ok(())
        } else {
            Err(Error::Internal("not found".into()))
        }
    }));
    cases
}

/// etcd 3.7 and newer have it.
fn range_stream() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, span) in foreign_spans() {
        cases.push(case("RangeStream", what, Denied, move |w| async move {
            let (start, end) = span(&w);
            let mut client = w.tenant.kv_client();
            let mut stream = client.get_stream(start, Some(get_options(end))).await?;
            stream.message().await
        }));
    }
    cases
}

fn put() -> Vec<Case> {
    type Variant = (&'static str, fn(PutOptions) -> PutOptions);
    let variants: [Variant; 4] = [
        ("", |options| options),
        (", previous value", PutOptions::with_prev_key),
        (", value kept", PutOptions::with_ignore_value),
        (", lease kept", PutOptions::with_ignore_lease),
    ];
    let mut cases = Vec::new();
    for (how, vary) in variants {
        let name = format!("the victim's key{how}");
        cases.push(case("Put", name, Denied, move |mut w| async move {
            let value = if how.ends_with("value kept") {
                ""
            } else {
                "mine now"
            };
            w.tenant
                .put(w.foreign("secret"), value, Some(vary(PutOptions::new())))
                .await
        }));
    }
    for (what, span) in foreign_spans().into_iter().skip(7) {
        cases.push(case("Put", what, Denied, move |mut w| async move {
            w.tenant.put(span(&w).0, "mine now", None).await
        }));
    }
    cases.push(case(
        "Put",
        "own key with the victim's lease",
        Denied,
        |mut w| async move {
            let lease = PutOptions::new().with_lease(w.keyed_lease);
            w.tenant.put(w.own("attached"), "", Some(lease)).await
        },
    ));
    cases.push(case(
        "Put",
        "own key, previous value",
        Allowed,
        |mut w| async move {
            w.tenant
                .put(
                    w.own("key"),
                    "mine",
                    Some(PutOptions::new().with_prev_key()),
                )
                .await
        },
    ));
    cases
}

fn delete_range() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, span) in foreign_spans() {
        for prev_kv in [false, true] {
            let name = format!("{what}{}", if prev_kv { ", previous values" } else { "" });
            cases.push(case("DeleteRange", name, Denied, move |mut w| async move {
                let (start, end) = span(&w);
                let mut options = DeleteOptions::new();
                if !end.is_empty() {
                    options = options.with_range(end);
                }
                if prev_kv {
                    options = options.with_prev_key();
                }
                w.tenant.delete(start, Some(options)).await
            }));
        }
    }
    cases.push(case(
        "DeleteRange",
        "own range",
        Allowed,
        |mut w| async move {
            w.tenant.put(w.own("gone/1"), "", None).await?;
            w.tenant
                .delete(w.own("gone/"), Some(DeleteOptions::new().with_prefix()))
                .await
        },
    ));
    cases
}

/// etcd answers a watch it does not permit with "created" and "canceled" in one.
async fn watch_answer(
    client: &mut Client,
    key: Vec<u8>,
    options: WatchOptions,
) -> Result<(), Error> {
    let mut stream = client.watch(key, Some(options)).await?;
    let answer = stream
        .message()
        .await?
        .ok_or(Error::WatchError("no answer".into()))?;
    if !answer.canceled() {
        return Ok(());
    }
    let reason = answer.cancel_reason().to_owned();
    if reason.contains("permission denied") {
        Err(Error::GRpcStatus(tonic::Status::permission_denied(reason)))
    } else {
        Err(Error::WatchError(reason))
    }
}

fn watch() -> Vec<Case> {
    type Variant = (&'static str, fn(&World, WatchOptions) -> WatchOptions);
    let variants: [Variant; 6] = [
        ("", |_, options| options),
        (", from revision 1", |_, options| {
            options.with_start_revision(1)
        }),
        (", previous values", |_, options| options.with_prev_key()),
        (", progress", |_, options| options.with_progress_notify()),
        (", fragments", |_, options| options.with_fragment()),
        (", filtered", |_, options| {
            options.with_filters([WatchFilterType::NoPut])
        }),
    ];
    let mut cases = Vec::new();
    for (what, span) in foreign_spans() {
        for (how, vary) in variants {
            cases.push(case(
                "Watch",
                format!("{what}{how}"),
                Denied,
                move |mut w| async move {
                    let (start, end) = span(&w);
                    let mut options = WatchOptions::new();
                    if !end.is_empty() {
                        options = options.with_range(end);
                    }
                    let options = vary(&w, options);
                    watch_answer(&mut w.tenant, start, options).await
                },
            ));
        }
    }
    for (how, vary) in variants {
        let name = format!("single-key reader, from that key on{how}");
        cases.push(case("Watch", name, Denied, move |mut w| async move {
            let options = vary(&w, WatchOptions::new().with_from_key());
            watch_answer(&mut w.single, SINGLE_KEY.into(), options).await
        }));
    }
    cases.push(case("Watch", "single-key reader, that key", Allowed, |mut w| async move {
        watch_answer(&mut w.single, SINGLE_KEY.into(), WatchOptions::new()).await
    }));
    cases.push(case("Watch", "own prefix", Allowed, |mut w| async move {
        let own = w.own("").into();
        watch_answer(&mut w.tenant, own, WatchOptions::new().with_prefix()).await
    }));
    let name = "events on a watch opened before the range was revoked";
    cases.push(case("Watch", name, Known, watch_after_revocation));
    cases
}

/// A watch is authorised when it is made and never again.
async fn watch_after_revocation(mut w: World) -> Result<(), Error> {
    let range = "/revoked/";
    let permission = Permission::read_write(range).with_prefix();
    w.root
        .role_grant_permission(w.tenant_id.role(), permission)
        .await?;
    let mut stream = w
        .tenant
        .watch(range, Some(WatchOptions::new().with_prefix()))
        .await?;
    stream.message().await?;
    let whole = RoleRevokePermissionOptions::new().with_prefix();
    w.root
        .role_revoke_permission(w.tenant_id.role(), range, Some(whole))
        .await?;
    w.root.put(format!("{range}key"), "", None).await?;
    match tokio::time::timeout(Duration::from_secs(1), stream.message()).await {
        Ok(Ok(Some(answer))) if !answer.events().is_empty() => Ok(()),
        Ok(Err(error)) => Err(error),
        _ => Err(Error::GRpcStatus(tonic::Status::permission_denied(
            "permission denied",
        ))),
    }
}
