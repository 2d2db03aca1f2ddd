use stoker_tunnel::identity::NodeName;

use super::*;

struct Fixture {
    id: u64,
    node: NodeName,
    attested: Option<i64>,
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
            tried: agent.tried,
            in_doubt: agent.in_doubt,
            round_trip: Duration::from_micros(agent.micros),
            streams: agent.streams,
            asked: agent.asked,
        })
        .collect();
    choose(&candidates)
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
