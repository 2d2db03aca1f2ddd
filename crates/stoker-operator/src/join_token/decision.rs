//! Whether a machine that asks with a token becomes a node. Pure.
//!
//! Who asks is what the API server has authenticated; which tokens there are, and what they let in, is what their
//! `JoinToken`s say. Nothing that a tenant's admin or the machine itself can write counts.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use stoker_api::is_node_name;
use stoker_api::labels::JOINERS;
use stoker_api::v1alpha1::{JoinToken, JoinTokenStatus, JoinedNode};
use stoker_kube::KubeletRequest;
use stoker_pki::SigningRequest;

const ASKER: &str = "system:bootstrap:";
const USER: &str = "system:node:";
const GROUP: &str = "system:nodes";
/// For so long the name of a node that was let in is kept for it while it has not come. Kubelets come within seconds.
pub const COMES_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may join; this is recorded first.
    Admit(JoinedNode),
    /// It was let in before, with this very key; so it is recorded.
    Again(JoinedNode),
    /// With a reason and what is wrong.
    Deny(&'static str, String),
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The token's public half.
    pub token_id: String,
    /// The node that it wants to be.
    pub name: String,
    key: String,
}

/// Whom and what for a request asks; `None` when it was not made with a token of ours.
///
/// # Errors
/// With a reason and what is wrong with its form.
#[must_use]
pub fn asked(request: &KubeletRequest) -> Option<Result<Asked, (&'static str, String)>> {
    if !request.groups.iter().any(|group| group == JOINERS) {
        return None;
    }
    Some(form(request).map_err(|why| ("NotANodesRequest", why)))
}

fn form(request: &KubeletRequest) -> Result<Asked, String> {
    let user = &request.username;
    let id = user.strip_prefix(ASKER);
    let id = id.ok_or_else(|| format!("{user:?} is no token"))?;
    let asked = SigningRequest::from_pem(&request.request).map_err(|error| error.to_string())?;
    let name = asked.common_name.strip_prefix(USER);
    let name = name.filter(|name| is_node_name(name)).ok_or_else(|| {
        let common_name = &asked.common_name;
        format!("its common name is {common_name:?}, and must be {USER} and a node's name")
    })?;
    if asked.organizations != [GROUP] {
        return Err(format!(
            "its organization must be {GROUP} alone, and is {:?}",
            asked.organizations
        ));
    }
    if !asked.dns_names.is_empty() || !asked.ip_addresses.is_empty() {
        return Err("it names addresses, which the certificate of a node's client has not".into());
    }
    let mut usages: Vec<&str> = request.usages.iter().map(String::as_str).collect();
    usages.sort_unstable();
    let with_rsa = ["client auth", "digital signature", "key encipherment"];
    if usages != with_rsa && usages != ["client auth", "digital signature"] {
        return Err(format!("its usages are not a kubelet's: {usages:?}"));
    }
    Ok(Asked {
        token_id: id.to_owned(),
        name: name.to_owned(),
        key: asked.key_hash,
    })
}

/// Decides about what was `asked`. `token` is the one whose id it gives, read after the request was; `all` are the tenant's;
/// `exists` says whether there is a Node of the name.
#[must_use]
pub fn decide(
    asked: &Asked,
    token: Option<&JoinToken>,
    all: &[&JoinToken],
    exists: bool,
    now: Timestamp,
) -> Decision {
    let Some(token) = token.filter(|token| token.metadata.deletion_timestamp.is_none()) else {
        let id = &asked.token_id;
        let why = format!(
            "the token {id:?} is of no JoinToken: it was revoked, has ended, or all its machines have come"
        );
        return Decision::Deny("TokenRevoked", why);
    };
    if token.expiration().is_none_or(|end| end <= now) {
        return Decision::Deny("TokenExpired", "the token has ended".to_owned());
    }
    let name = &asked.name;
    let spec = &token.spec;
    if !spec.node_names.is_empty() && !spec.node_names.contains(name) {
        let why = format!("the token is not for a node of the name {name:?}");
        return Decision::Deny("NodeNotOfToken", why);
    }
    let status = token.status.clone().unwrap_or_default();
    let is_same = |node: &JoinedNode| node.name == *name && node.key == asked.key;
    if status.nodes.iter().any(is_same)
        && let Some(last) = latest(all, name).filter(|last| is_same(last))
    {
        return Decision::Again(last.clone());
    }
    if exists {
        let why = format!(
            "there is a node {name:?} already, with another key: delete that Node if it is gone"
        );
        return Decision::Deny("NodeNameInUse", why);
    }
    if all.iter().any(|other| expects(other, name, now)) {
        let why = format!("another machine has just joined as {name:?}, and is about to register");
        return Decision::Deny("NodeNameInUse", why);
    }
    if status.used >= spec.uses {
        let why = format!(
            "the token was for {} machines, and they have joined",
            spec.uses
        );
        return Decision::Deny("TokenExhausted", why);
    }
    Decision::Admit(JoinedNode {
        name: name.clone(),
        key: asked.key.clone(),
        admission_time: Time(now),
        registration_time: None,
        devices: None,
    })
}

/// The one of `all` whose public half is `id`.
#[must_use]
pub fn of_id<'a>(all: &[&'a JoinToken], id: &str) -> Option<&'a JoinToken> {
    let is_it = |token: &&&JoinToken| {
        let status = token.status.as_ref();
        status.and_then(|status| status.token_id.as_deref()) == Some(id)
    };
    all.iter().find(is_it).copied()
}

/// Whether `node`, of one of a tenant's tokens, is the last machine that was let in under its name by any of them.
#[must_use]
pub fn is_latest(all: &[&JoinToken], node: &JoinedNode) -> bool {
    latest(all, &node.name) == Some(node)
}

/// Those of `all` that have not let `node` in, but others under its name before, each with the status that forgets them.
#[must_use]
pub fn formers<'a>(
    all: &[&'a JoinToken],
    node: &JoinedNode,
) -> Vec<(&'a JoinToken, JoinTokenStatus)> {
    let is_former = |other: &JoinedNode| {
        other.name == node.name && other.admission_time.0 <= node.admission_time.0
    };
    let forgotten = |token: &&'a JoinToken| {
        let mut status = token.status.clone()?;
        let forgets = !status.nodes.contains(node) && status.nodes.iter().any(is_former);
        status.nodes.retain(|other| !is_former(other));
        forgets.then_some((*token, status))
    };
    all.iter().filter_map(forgotten).collect()
}

/// The networks that addresses of nodes must be in, by the nodes' names, where the token by which the last machine of the name was
/// let in, of `all` of a tenant, says so.
#[must_use]
pub fn networks(all: &[&JoinToken]) -> BTreeMap<String, Vec<IpNet>> {
    let mut last: BTreeMap<&String, (&JoinedNode, &Vec<String>)> = BTreeMap::new();
    for token in all {
        for node in token.status.iter().flat_map(|status| &status.nodes) {
            let newer = |(known, _): &(&JoinedNode, &Vec<String>)| {
                known.admission_time.0 <= node.admission_time.0
            };
            if last.get(&node.name).is_none_or(newer) {
                last.insert(&node.name, (node, &token.spec.node_networks));
            }
        }
    }
    let bound = last.into_iter().filter(|(_, (_, texts))| !texts.is_empty());
    let bound = bound.map(|(name, (_, texts))| {
        let networks = texts.iter().filter_map(|text| text.parse().ok());
        (name.clone(), networks.collect())
    });
    bound.collect()
}

/// When nobody is waited for any more, of a token that has no use left and would be exhausted but for those.
#[must_use]
pub fn gives_up_at(token: &JoinToken) -> Option<Timestamp> {
    let status = token.status.as_ref();
    let status = status.filter(|status| status.used >= token.spec.uses)?;
    let nodes = status.nodes.iter();
    let missing = nodes.filter(|node| node.registration_time.is_none());
    let last = missing.map(|node| node.admission_time.0).max()?;
    last.checked_add(COMES_WITHIN).ok()
}

/// Whether a machine that was let in has not all that its token gives.
#[must_use]
pub fn lacks(token: &JoinToken, joined: &JoinedNode) -> bool {
    joined.registration_time.is_none()
        || (!token.spec.devices.is_empty() && joined.devices.is_none())
}

/// When no machine is waited for any more that has not all that the token gives; `None` when none is now.
#[must_use]
pub fn awaited_until(token: &JoinToken, now: Timestamp) -> Option<Timestamp> {
    let nodes = token.status.iter().flat_map(|status| &status.nodes);
    let awaited = nodes.filter(|node| lacks(token, node) && is_new(node, now));
    let last = awaited.map(|node| node.admission_time.0).max()?;
    last.checked_add(COMES_WITHIN).ok()
}

/// The last machine that was let in as `name`.
fn latest<'a>(all: &[&'a JoinToken], name: &str) -> Option<&'a JoinedNode> {
    let nodes = all.iter().flat_map(|token| &token.status);
    let nodes = nodes.flat_map(|status| &status.nodes);
    let nodes = nodes.filter(|node| node.name == name);
    nodes.max_by_key(|node| node.admission_time.0)
}

/// Whether a machine that was let in as `name` may still come.
fn expects(token: &JoinToken, name: &str, now: Timestamp) -> bool {
    let nodes = token.status.iter().flat_map(|status| &status.nodes);
    let mut nodes = nodes.filter(|node| node.name == name);
    nodes.any(|node| is_awaited(node, now))
}

/// Whether a node that was let in has not come, and may still come.
#[must_use]
pub fn is_awaited(node: &JoinedNode, now: Timestamp) -> bool {
    node.registration_time.is_none() && is_new(node, now)
}

/// Whether a node was let in so lately that it is about to come, or its devices are.
#[must_use]
pub fn is_new(node: &JoinedNode, now: Timestamp) -> bool {
    now.duration_since(node.admission_time.0) < COMES_WITHIN
}

#[cfg(test)]
mod tests;
