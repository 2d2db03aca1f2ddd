//! One thing a tenant may try, what must come of it, and what did.

use std::future::Future;
use std::time::{Duration, Instant};

use etcd_client::Error;
use futures::future::BoxFuture;

use super::world::World;

/// A case that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(8);

/// What must come of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// etcd says that it is not permitted.
    Denied,
    /// It works: the tenant's own, without which "denied" would mean nothing.
    Allowed,
    /// etcd allows or answers it by design; recorded, and closed elsewhere.
    Known,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Denied,
    Allowed,
    /// This version does not have the call.
    NotImplemented,
    /// Neither: an answer to a request that should not have been looked at, or a broken test.
    Other(String),
}

/// A try, by a tenant with its own certificate.
pub(crate) struct Case {
    rpc: &'static str,
    name: String,
    expect: Expect,
    run: Box<dyn Fn(World) -> BoxFuture<'static, Result<(), Error>>>,
}

/// What is left of a case when it has run.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) rpc: &'static str,
    pub(crate) name: String,
    pub(crate) expect: Expect,
    pub(crate) got: Got,
}

pub(crate) fn case<Run, Answer, T>(
    rpc: &'static str,
    name: impl Into<String>,
    expect: Expect,
    run: Run,
) -> Case
where
    Run: Fn(World) -> Answer + 'static,
    Answer: Future<Output = Result<T, Error>> + Send + 'static,
{
    let run = move |world| -> BoxFuture<'static, Result<(), Error>> {
        let answer = run(world);
        Box::pin(async move { answer.await.map(drop) })
    };
    Case {
        rpc,
        name: name.into(),
        expect,
        run: Box::new(run),
    }
}

impl Case {
    pub(crate) async fn run(&self, world: &World) -> Verdict {
        let got = match tokio::time::timeout(PATIENCE, (self.run)(world.clone())).await {
            Ok(answer) => judge(answer),
            Err(_) => Got::Other("hung".into()),
        };
        Verdict {
            rpc: self.rpc,
            name: self.name.clone(),
            expect: self.expect,
            got,
        }
    }
}

/// A refusal must come from the permission check; any other answer came from behind it.
pub(crate) fn judge(answer: Result<(), Error>) -> Got {
    match answer {
        Ok(()) => Got::Allowed,
        Err(Error::GRpcStatus(status)) if status.message().contains("permission denied") => {
            Got::Denied
        }
        Err(Error::GRpcStatus(status)) if status.code() == tonic::Code::Unimplemented => {
            Got::NotImplemented
        }
        Err(error) => Got::Other(error.to_string()),
    }
}

impl Verdict {
    /// A denial that was not: the tenant got past the permission check.
    pub(crate) fn is_bypass(&self) -> bool {
        self.expect == Expect::Denied && self.got == Got::Allowed
    }

    pub(crate) fn is_as_expected(&self) -> bool {
        match self.expect {
            Expect::Denied => matches!(self.got, Got::Denied | Got::NotImplemented),
            Expect::Allowed => self.got == Got::Allowed,
            Expect::Known => true,
        }
    }
}

/// Prints every case and the sum, and returns how many bypasses there were.
pub(crate) fn print_table(title: &str, begun: Instant, verdicts: &[Verdict]) -> usize {
    println!(
        "\n{title}\n{:<9} {:<12} {:<62} {:<8} got",
        "", "rpc", "case", "expected"
    );
    for verdict in verdicts {
        let mark = match (verdict.is_bypass(), verdict.is_as_expected()) {
            (true, _) => "BYPASS",
            (_, false) => "UNCLEAR",
            _ => "ok",
        };
        let expect = format!("{:?}", verdict.expect);
        let Verdict { rpc, name, got, .. } = verdict;
        println!("{mark:<9} {rpc:<12} {name:<62} {expect:<8} {got:?}");
    }
    let bypasses = verdicts
        .iter()
        .filter(|verdict| verdict.is_bypass())
        .count();
    let unclear = verdicts
        .iter()
        .filter(|one| !one.is_bypass() && !one.is_as_expected())
        .count();
    println!(
        "{title}: {} cases, {bypasses} bypasses, {unclear} unclear, {:.2} minutes\n",
        verdicts.len(),
        begun.elapsed().as_secs_f64() / 60.0
    );
    bypasses
}
