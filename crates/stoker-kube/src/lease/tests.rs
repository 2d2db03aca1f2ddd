use super::*;
use crate::scenario::Scenario;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";

fn spec(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
    LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: seconds,
        ..LeaseSpec::default()
    }
}

#[test]
fn a_candidate_decides_by_what_it_watched_itself() {
    let seconds = Duration::from_secs;
    let other = spec(Some("other"), Some(15));
    for (lease, unchanged, step) in [
        (None, 0, Step::Acquire),
        (Some(spec(None, Some(15))), 0, Step::Acquire),
        (Some(spec(Some(""), Some(1))), 0, Step::Acquire),
        (Some(spec(Some("me"), Some(15))), 0, Step::Renew),
        (Some(other.clone()), 0, Step::Wait(seconds(15))),
        (Some(other.clone()), 14, Step::Wait(seconds(1))),
        (Some(other), 15, Step::Acquire),
        (Some(spec(Some("other"), None)), 14, Step::Wait(seconds(1))),
        (Some(spec(Some("other"), Some(-1))), 15, Step::Acquire),
        (
            Some(spec(Some("other"), Some(60))),
            15,
            Step::Wait(seconds(45)),
        ),
    ] {
        let decided = decide(lease.as_ref(), "me", seconds(unchanged));
        assert_eq!(decided, step, "{lease:?} after {unchanged} s");
    }
}

#[test]
fn taking_over_counts_a_transition_and_renewing_does_not() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let first = held_by("a", None, at(1));
    assert_eq!(first.lease_transitions, None);
    let renewed = held_by("a", Some(&first), at(2));
    assert_eq!(renewed.acquire_time, Some(MicroTime(at(1))));
    assert_eq!(renewed.renew_time, Some(MicroTime(at(2))));
    assert_eq!(renewed.lease_transitions, None);
    let taken = held_by("b", Some(&renewed), at(3));
    assert_eq!(taken.acquire_time, Some(MicroTime(at(3))));
    assert_eq!(taken.lease_transitions, Some(1));
}

/// One lease on a server that can be cut off from some of its clients.
#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    writes: u64,
}

impl Server {
    fn answer(&mut self, call: crate::scenario::Call) {
        let sent = call.body["metadata"]["resourceVersion"].as_str();
        let current = self.version.to_string();
        match (call.method.as_str(), &self.lease) {
            ("GET", Some(lease)) => return call.answer(200, &lease.clone()),
            ("GET" | "PUT", None) => return call.refuse(404, "NotFound", "no"),
            ("POST", Some(_)) => return call.refuse(409, "AlreadyExists", "no"),
            ("PUT", Some(_)) if sent != Some(&current) => {
                return call.refuse(409, "Conflict", "no");
            }
            _ => {}
        }
        self.version += 1;
        self.writes += 1;
        let mut lease = call.body.clone();
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(lease.clone());
        call.answer(200, &lease);
    }

    fn holder(&self) -> String {
        let lease = self.lease.as_ref().unwrap();
        lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }
}

/// A candidate whose connection is up while the switch says so. Its requests fail otherwise.
fn candidate(server: &Arc<Mutex<Server>>, me: &str) -> (Election, watch::Sender<bool>) {
    let (client, mut scenario) = Scenario::new();
    let (switch, connected) = watch::channel(true);
    let server = Arc::clone(server);
    tokio::spawn(async move {
        while let Some(call) = scenario.next().await {
            if *connected.borrow() {
                server.lock().await.answer(call);
            } else {
                call.break_off();
            }
        }
    });
    (Election::new(client, "ns", "stoker", me), switch)
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_one_leads_and_the_other_takes_over_after_it_is_cut_off() {
    let server = Arc::new(Mutex::new(Server::default()));
    let (one, one_connected) = candidate(&server, "one");
    let (two, _two_connected) = candidate(&server, "two");
    let first = one.acquire().await.unwrap();
    let begun = Instant::now();
    let hold = tokio::spawn(async move { (first.hold().await, Instant::now()) });
    let second = tokio::spawn(async move { (two.acquire().await.unwrap(), Instant::now()) });

    sleep(Duration::from_mins(2)).await;
    assert!(!hold.is_finished() && !second.is_finished());
    let writes = server.lock().await.writes;
    assert!((24..=26).contains(&writes), "{writes} writes in 2 minutes");

    one_connected.send(false).unwrap();
    let cut = Instant::now();
    let (lost, lost_at) = hold.await.unwrap();
    assert!(matches!(lost, Lost::NotRenewed { .. }), "{lost:?}");
    let (_held, taken_at) = second.await.unwrap();
    assert!(lost_at < taken_at, "never two leaders");
    assert!(lost_at - cut <= RENEW_DEADLINE);
    assert!(taken_at - cut <= LEASE + RETRY, "{:?}", taken_at - begun);
    assert_eq!(server.lock().await.holder(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_look() {
    let server = Arc::new(Mutex::new(Server::default()));
    let (one, _one_connected) = candidate(&server, "one");
    let (two, _two_connected) = candidate(&server, "two");
    let first = one.acquire().await.unwrap();
    let second = tokio::spawn(async move { two.acquire().await.unwrap() });
    sleep(Duration::from_secs(5)).await;
    let released = Instant::now();
    first.release().await;
    assert_eq!(server.lock().await.holder(), "");
    let _held = second.await.unwrap();
    assert!(released.elapsed() <= RETRY);
    let transitions =
        server.lock().await.lease.clone().unwrap()["spec"]["leaseTransitions"].clone();
    assert_eq!(transitions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_in_anothers_name_is_lost_at_the_next_renewal() {
    let server = Arc::new(Mutex::new(Server::default()));
    let (one, _connected) = candidate(&server, "one");
    let held = one.acquire().await.unwrap();
    for holder in ["two", "one"] {
        let mut locked = server.lock().await;
        locked.version += 1;
        let version = locked.version.to_string();
        let lease = locked.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = holder.into();
        lease["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z".into();
        lease["metadata"]["resourceVersion"] = version.into();
        drop(locked);
        // Another process under our own name is another process.
        let lost = timeout_at(Instant::now() + LEASE, held.hold())
            .await
            .unwrap();
        assert!(
            matches!(&lost, Lost::Taken { holder: name } if name == holder),
            "{lost:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_and_a_deleted_lease_are_no_loss() {
    let (client, mut scenario) = Scenario::new();
    let path = format!("{PATH}/stoker");
    let serve = tokio::spawn(async move {
        scenario
            .expect("GET", &path)
            .await
            .refuse(404, "NotFound", "no");
        scenario.expect("POST", PATH).await.store("u", 1);
        let call = scenario.expect("PUT", &path).await;
        let mut stored = call.body.clone();
        stored["metadata"]["resourceVersion"] = "2".into();
        call.break_off();
        scenario
            .expect("PUT", &path)
            .await
            .refuse(409, "Conflict", "no");
        scenario.expect("GET", &path).await.answer(200, &stored);
        let call = scenario.expect("PUT", &path).await;
        assert_eq!(call.body["metadata"]["resourceVersion"], "2");
        call.store("u", 3);
        scenario
            .expect("PUT", &path)
            .await
            .refuse(404, "NotFound", "no");
        scenario
            .expect("GET", &path)
            .await
            .refuse(404, "NotFound", "no");
        scenario.expect("POST", PATH).await.store("w", 9);
        let call = scenario.expect("PUT", &path).await;
        assert_eq!(call.body["metadata"]["resourceVersion"], "9");
    });
    let held = Election::new(client, "ns", "stoker", "one")
        .acquire()
        .await
        .unwrap();
    tokio::select! {
        lost = held.hold() => panic!("{lost:?}"),
        served = serve => served.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_without_rights_gives_up_after_a_minute() {
    let (client, mut scenario) = Scenario::new();
    tokio::spawn(async move {
        while let Some(call) = scenario.next().await {
            call.refuse(403, "Forbidden", "no");
        }
    });
    let begun = Instant::now();
    let error = Election::new(client, "ns", "stoker", "one")
        .acquire()
        .await
        .err()
        .unwrap();
    assert_eq!(error.category(), "Forbidden");
    assert!(begun.elapsed() > PATIENCE);
}
