//! The same inside transactions, where each operation needs its own permission check.

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};

use super::case::Expect::{Allowed, Denied};
use super::case::{Case, case};
use super::world::{WRITE_ONLY, World};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = transaction();
    cases.extend(nested_transaction());
    cases.extend(prev_kv_without_read());
    cases
}

type Operation = (&'static str, fn(&World) -> TxnOp);

fn foreign_operations() -> Vec<Operation> {
    vec![
        ("get", |w| TxnOp::get(w.foreign("secret"), None)),
        ("get of every key", |_| {
            TxnOp::get("\0", Some(GetOptions::new().with_from_key()))
        }),
        ("put", |w| TxnOp::put(w.foreign("secret"), "mine now", None)),
        ("put with previous value", |w| {
            TxnOp::put(
                w.foreign("secret"),
                "mine now",
                Some(PutOptions::new().with_prev_key()),
            )
        }),
        ("put with the victim's lease on own key", |w| {
            let lease = PutOptions::new().with_lease(w.keyed_lease);
            TxnOp::put(w.own("attached"), "", Some(lease))
        }),
        ("delete", |w| TxnOp::delete(w.foreign("third"), None)),
        ("delete with previous values", |w| {
            let all = DeleteOptions::new().with_prefix().with_prev_key();
            TxnOp::delete(w.foreign("third"), Some(all))
        }),
    ]
}

/// The own key is there, so this is true.
fn always(w: &World) -> Compare {
    Compare::create_revision(w.own("key"), CompareOp::Greater, 0)
}

fn never(w: &World) -> Compare {
    Compare::create_revision(w.own("key"), CompareOp::Equal, 0)
}

type Condition = (&'static str, fn(&World) -> Compare);

fn transaction() -> Vec<Case> {
    let mut cases = Vec::new();
    let compares: [Condition; 4] = [
        ("value", |w| {
            Compare::value(w.foreign("secret"), CompareOp::Equal, "secret")
        }),
        ("create revision", |w| {
            Compare::create_revision(w.foreign("secret"), CompareOp::Greater, 0)
        }),
        ("version of the prefix", |w| {
            Compare::version(w.foreign(""), CompareOp::Greater, 0).with_prefix()
        }),
        ("lease", |w| {
            Compare::lease(w.foreign("leased"), CompareOp::Equal, w.keyed_lease)
        }),
    ];
    for (what, compare) in compares {
        let name = format!("compare only: {what} of the victim");
        cases.push(case("Txn", name, Denied, move |mut w| async move {
            w.tenant.txn(Txn::new().when([compare(&w)])).await
        }));
    }
    for (what, operation) in foreign_operations() {
        cases.push(case(
            "Txn",
            format!("{what}, when true"),
            Denied,
            move |mut w| async move {
                w.tenant
                    .txn(Txn::new().when([always(&w)]).and_then([operation(&w)]))
                    .await
            },
        ));
        let name = format!("{what}, when false and not taken");
        cases.push(case("Txn", name, Denied, move |mut w| async move {
            w.tenant
                .txn(Txn::new().when([always(&w)]).or_else([operation(&w)]))
                .await
        }));
        let name = format!("{what}, after an own operation");
        cases.push(case("Txn", name, Denied, move |mut w| async move {
            let own = TxnOp::get(w.own("key"), None);
            w.tenant
                .txn(Txn::new().and_then([own, operation(&w)]))
                .await
        }));
    }
    cases.push(case(
        "Txn",
        "own compare, get, put, delete",
        Allowed,
        |mut w| async move {
            let operations = [
                TxnOp::get(w.own("key"), None),
                TxnOp::put(w.own("txn"), "", None),
                TxnOp::delete(w.own("nothing"), None),
            ];
            w.tenant
                .txn(Txn::new().when([always(&w)]).and_then(operations))
                .await
        },
    ));
    cases
}

fn nest(depth: usize, innermost: Txn) -> Txn {
    (0..depth).fold(innermost, |inner, _| {
        Txn::new().and_then([TxnOp::txn(inner)])
    })
}

fn nested_transaction() -> Vec<Case> {
    let mut cases = Vec::new();
    for depth in 1..=3 {
        for (what, operation) in foreign_operations() {
            let name = format!("{what}, nested {depth} deep");
            cases.push(case("Txn", name, Denied, move |mut w| async move {
                w.tenant
                    .txn(nest(depth, Txn::new().and_then([operation(&w)])))
                    .await
            }));
        }
    }
    for (what, operation) in foreign_operations() {
        let name = format!("{what}, nested in the branch for false");
        cases.push(case("Txn", name, Denied, move |mut w| async move {
            let inner = TxnOp::txn(Txn::new().and_then([operation(&w)]));
            w.tenant
                .txn(Txn::new().when([never(&w)]).or_else([inner]))
                .await
        }));
    }
    cases.push(case(
        "Txn",
        "compare with the victim's value, nested",
        Denied,
        |mut w| async move {
            let compare = Compare::value(w.foreign("secret"), CompareOp::Equal, "secret");
            w.tenant.txn(nest(1, Txn::new().when([compare]))).await
        },
    ));
    cases.push(case(
        "Txn",
        "own get, nested",
        Allowed,
        |mut w| async move {
            w.tenant
                .txn(nest(
                    2,
                    Txn::new().and_then([TxnOp::get(w.own("key"), None)]),
                ))
                .await
        },
    ));
    cases
}

/// A role that may write a range must not learn from it what it may not read.
fn prev_kv_without_read() -> Vec<Case> {
    let key = || format!("{WRITE_ONLY}key");
    let put = || {
        TxnOp::put(
            format!("{WRITE_ONLY}key"),
            "secret",
            Some(PutOptions::new().with_prev_key()),
        )
    };
    let delete = || {
        let previous = DeleteOptions::new().with_prev_key();
        TxnOp::delete(format!("{WRITE_ONLY}key"), Some(previous))
    };
    vec![
        case(
            "Put",
            "write-only key, previous value",
            Denied,
            move |mut w| async move {
                w.writer
                    .put(key(), "secret", Some(PutOptions::new().with_prev_key()))
                    .await
            },
        ),
        case(
            "DeleteRange",
            "write-only key, previous value",
            Denied,
            move |mut w| async move {
                w.writer
                    .delete(key(), Some(DeleteOptions::new().with_prev_key()))
                    .await
            },
        ),
        case(
            "Txn",
            "put to write-only key, previous value",
            Denied,
            move |mut w| async move { w.writer.txn(Txn::new().and_then([put()])).await },
        ),
        case(
            "Txn",
            "put to write-only key, previous value, nested",
            Denied,
            move |mut w| async move { w.writer.txn(nest(1, Txn::new().and_then([put()]))).await },
        ),
        case(
            "Txn",
            "delete of write-only key, previous value",
            Denied,
            move |mut w| async move { w.writer.txn(Txn::new().and_then([delete()])).await },
        ),
        case(
            "Txn",
            "get of write-only key",
            Denied,
            move |mut w| async move {
                w.writer
                    .txn(Txn::new().and_then([TxnOp::get(key(), None)]))
                    .await
            },
        ),
    ]
}
