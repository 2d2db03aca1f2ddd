//! Ingress and egress of a policy.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};

use super::matches::End;

/// Peers and ports of one rule; empty peers mean everyone, empty ports everything.
type Rule<'a> = (&'a [NetworkPolicyPeer], &'a [NetworkPolicyPort]);

/// One of the two ways in which a policy restricts a pod's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// Both directions.
    pub(super) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Its name in chains, and in `policyTypes` but for the capital.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// Where a packet's subject stands: the isolated pod.
    pub(super) fn own_end(self) -> End {
        match self {
            Self::Ingress => End::Destination,
            Self::Egress => End::Source,
        }
    }

    /// Where a packet's other party stands.
    pub(super) fn peer_end(self) -> End {
        match self {
            Self::Ingress => End::Source,
            Self::Egress => End::Destination,
        }
    }

    /// What is done with a packet that a rule allows.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Ingress => "accept",
            Self::Egress => "goto ingress",
        }
    }

    /// networking.k8s.io/v1: without `policyTypes`, Ingress always and Egress if it has rules.
    pub(super) fn is_restricted_by(self, spec: &NetworkPolicySpec) -> bool {
        match (&spec.policy_types, self) {
            (Some(types), _) if !types.is_empty() => types
                .iter()
                .any(|kind| kind.eq_ignore_ascii_case(self.name())),
            (_, Self::Ingress) => true,
            (_, Self::Egress) => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        }
    }

    /// The peers and ports of each rule of this direction.
    pub(super) fn rules(self, spec: &NetworkPolicySpec) -> Vec<Rule<'_>> {
        match self {
            Self::Ingress => {
                let rules = spec.ingress.iter().flatten();
                rules
                    .map(|rule| (slice(rule.from.as_ref()), slice(rule.ports.as_ref())))
                    .collect()
            }
            Self::Egress => {
                let rules = spec.egress.iter().flatten();
                rules
                    .map(|rule| (slice(rule.to.as_ref()), slice(rule.ports.as_ref())))
                    .collect()
            }
        }
    }
}

fn slice<T>(items: Option<&Vec<T>>) -> &[T] {
    items.map(Vec::as_slice).unwrap_or_default()
}
