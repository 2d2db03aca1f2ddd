//! The lease of the leader.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use stoker_kube::{Election, Error};
use tokio::time::timeout;

use crate::{NAMESPACE, PATIENCE, counted};
#[tokio::test(flavor = "multi_thread")]
async fn the_lease_goes_to_a_standby_at_once_when_released_and_in_time_when_not() -> Result<()> {
    let (client, sent) = counted().await?;
    let election = |name: &str| Election::new(client.clone(), NAMESPACE, "e2e-lease", name);
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let holder = async || -> Result<String> {
        let spec = leases.get("e2e-lease").await?.spec.unwrap();
        Ok(spec.holder_identity.unwrap_or_default())
    };
    let first = election("one").acquire().await?;
    assert_eq!(holder().await?, "one");
    let standby = tokio::spawn(election("two").acquire());
    let before = sent.load(Ordering::Relaxed);
    let kept = timeout(Duration::from_secs(16), first.hold()).await;
    assert!(kept.is_err(), "lost although renewed: {kept:?}");
    assert!(!standby.is_finished());
    // 3 renewals of the holder, 8 looks of the standby.
    let requests = sent.load(Ordering::Relaxed) - before;
    assert!(requests <= 14, "{requests} requests in 16 s");

    let released = Instant::now();
    first.release().await;
    let second = timeout(PATIENCE, standby).await???;
    println!("a released lease was taken after {:?}", released.elapsed());
    assert!(released.elapsed() < Duration::from_secs(4));
    assert_eq!(holder().await?, "two");

    // The holder is gone without a word.
    let gone = Instant::now();
    drop(second);
    let _third = timeout(PATIENCE * 2, election("three").acquire()).await??;
    println!("an abandoned lease was taken after {:?}", gone.elapsed());
    assert!(
        gone.elapsed() > Duration::from_secs(10),
        "taken before it ended"
    );
    assert_eq!(holder().await?, "three");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_candidates_at_once_never_both_win() -> Result<()> {
    let (client, _) = counted().await?;
    let candidates = (0..5).map(|number| {
        let election = Election::new(client.clone(), NAMESPACE, "e2e-race", &number.to_string());
        timeout(Duration::from_secs(5), election.acquire())
    });
    let winners = futures::future::join_all(candidates).await;
    let won: Vec<Result<_, Error>> = winners.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    Ok(())
}
