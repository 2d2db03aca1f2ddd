use stoker_tunnel::identity::NodeName;

use super::*;

struct Fixture {
    id: u64,
    node: NodeName,
    attested: Option<i64>,
    leaving: bool,
    tried: bool,
    in_doubt: bool,
    micros: u64,
    streams: usize,
    asked: u64,
}

fn agent(id: u64, node: &str) -> Fixture {
    Fixture {
        id,
        node: NodeName::from(node),
        attested: None,
        leaving: false,
        tried: false,
        in_doubt: false,
        micros: 500,
        streams: 0,
        asked: 0,
    }
}

fn chosen(agents: &[Fixture]) -> Option<u64> {
    let candidates: Vec<_> = agents
        .iter()
        .map(|agent| Candidate {
            id: agent.id,
            node: &agent.node,
            attested: agent.attested,
            leaving: agent.leaving,
            tried: agent.tried,
            in_doubt: agent.in_doubt,
            round_trip: Duration::from_micros(agent.micros),
            streams: agent.streams,
            asked: agent.asked,
        })
        .collect();
    match choose(&candidates) {
        Choice::Agent(id) => Some(id),
        Choice::Nobody | Choice::NotYet(_) => None,
    }
}

#[test]
fn nobody_is_chosen_where_nobody_is() {
    assert_eq!(chosen(&[]), None);
}

#[test]
fn a_nodes_address_is_that_nodes_however_far_and_busy_it_is() {
    let owner = Fixture {
        attested: Some(1),
        micros: 90_000,
        streams: 500,
        in_doubt: true,
        ..agent(1, "a")
    };
    assert_eq!(chosen(&[agent(2, "b"), owner]), Some(1));
}

#[test]
fn nobody_else_gets_it_while_its_node_is_there() {
    let owner = Fixture {
        attested: Some(1),
        tried: true,
        ..agent(1, "a")
    };
    assert_eq!(chosen(&[owner, agent(2, "b")]), None);
}

#[test]
fn of_two_nodes_with_one_address_the_later_word_counts() {
    let with = |id, node, since| Fixture {
        attested: Some(since),
        ..agent(id, node)
    };
    assert_eq!(chosen(&[with(1, "old", 10), with(2, "new", 20)]), Some(2));
    assert_eq!(chosen(&[with(1, "new", 20), with(2, "old", 10)]), Some(1));
}

#[test]
fn other_destinations_go_to_one_of_the_nearest_that_has_least_to_do() {
    let far = Fixture {
        micros: 40_000,
        ..agent(1, "far")
    };
    let busy = Fixture {
        micros: 200,
        streams: 9,
        ..agent(2, "busy")
    };
    let idle = Fixture {
        micros: 900,
        ..agent(3, "idle")
    };
    assert_eq!(chosen(&[far, busy, idle]), Some(3));
}

#[test]
fn whoever_does_not_answer_pings_is_asked_last() {
    let doubtful = |id, node| Fixture {
        in_doubt: true,
        micros: 1,
        ..agent(id, node)
    };
    assert_eq!(chosen(&[doubtful(1, "a"), agent(2, "b")]), Some(2));
    assert_eq!(chosen(&[doubtful(1, "a")]), Some(1));
}

#[test]
fn agents_with_as_much_to_do_take_turns() {
    let asked = |id, node, asked| Fixture {
        asked,
        ..agent(id, node)
    };
    assert_eq!(
        chosen(&[asked(1, "a", 7), asked(2, "b", 6), asked(3, "c", 8)]),
        Some(2)
    );
}

#[test]
fn nobody_else_gets_it_while_its_node_drains() {
    let owner = Fixture {
        attested: Some(1),
        leaving: true,
        ..agent(1, "a")
    };
    assert_eq!(chosen(&[owner, agent(2, "b")]), None);
    let drains = Fixture {
        leaving: true,
        ..agent(1, "a")
    };
    assert_eq!(chosen(&[drains, agent(2, "b")]), Some(2), "it is nobody's");
}

/// A connection whose other end says nothing.
async fn requests() -> SendRequest<Bytes> {
    let (near, far) = tokio::io::duplex(4096);
    let (requests, wire) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(async move {
        let _far = far;
        let _ = wire.await;
    });
    requests
}

async fn joined<'a>(agents: &'a Agents, node: &str, address: Option<&str>) -> Registered<'a> {
    let served = address.map(|address| Served {
        node: NodeName::from(node),
        addresses: vec![address.parse().unwrap()],
        names: Vec::new(),
        since: 1,
    });
    let node = NodeName::from(node);
    agents.add(&node, served, Arc::default(), requests().await)
}

fn kubelet() -> Target {
    Target::parse("192.0.2.1:10250").unwrap()
}

async fn asked(agents: &Agents) -> Result<u64, Option<NodeName>> {
    agents.link(&kubelet(), &[]).await.map(|link| link.id)
}

#[tokio::test(start_paused = true)]
async fn a_newer_connection_that_drains_hides_no_older_one_of_its_node() {
    let agents = Agents::default();
    let older = joined(&agents, "a", None).await;
    let newer = joined(&agents, "a", None).await;
    assert_eq!(asked(&agents).await, Ok(newer.id));
    newer.leave();
    assert_eq!(asked(&agents).await, Ok(older.id));
    older.leave();
    let begun = Instant::now();
    assert_eq!(asked(&agents).await, Err(None));
    assert_eq!(begun.elapsed(), HOPE);
    let third = joined(&agents, "a", None).await;
    assert_eq!(asked(&agents).await, Ok(third.id));
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_of_each_change() {
    let agents = Agents::default();
    let older = joined(&agents, "a", None).await;
    older.leave();
    // Its certificate does not say the address; that of the next one does, and it is about to end.
    let newer = joined(&agents, "a", Some("192.0.2.1")).await;
    newer.leave();
    let other = joined(&agents, "b", None).await;
    let begun = Instant::now();
    let waiting = asked(&agents);
    let going = async {
        sleep(HOPE / 2).await;
        drop(newer);
    };
    let (found, ()) = tokio::join!(waiting, going);
    assert_eq!((found, begun.elapsed()), (Ok(other.id), HOPE / 2));
}

#[tokio::test(start_paused = true)]
async fn the_streams_of_a_node_wait_for_its_next_agent_and_for_no_other() {
    let agents = Agents::default();
    let owner = joined(&agents, "x", Some("192.0.2.1")).await;
    let _other = joined(&agents, "y", None).await;
    assert_eq!(asked(&agents).await, Ok(owner.id));
    owner.leave();
    let begun = Instant::now();
    let missed = Err(Some(NodeName::from("x")));
    assert_eq!(asked(&agents).await, missed);
    assert_eq!(begun.elapsed(), HOPE);
    let waiting = asked(&agents);
    let coming = async {
        sleep(HOPE / 2).await;
        joined(&agents, "x", Some("192.0.2.1")).await
    };
    let (found, next) = tokio::join!(waiting, coming);
    assert_eq!(found, Ok(next.id));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_ended_gets_no_second_stream() {
    let agents = Agents::default();
    let older = joined(&agents, "a", None).await;
    let (near, far) = tokio::io::duplex(4096);
    let (requests, wire) = h2::client::handshake(near).await.unwrap();
    drop((far, wire));
    let node = NodeName::from("a");
    let ended = agents.add(&node, None, Arc::default(), requests);
    assert_eq!(asked(&agents).await, Ok(ended.id));
    let kubelet = kubelet();
    let opening = agents.open(&kubelet);
    let seen = async {
        sleep(Duration::from_millis(1)).await;
        asked(&agents).await
    };
    let found = tokio::select! {
        _ = opening => None,
        found = seen => Some(found),
    };
    assert_eq!(found, Some(Ok(older.id)));
}
