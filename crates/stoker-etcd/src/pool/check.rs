//! Whether a pool can be shared by tenants.

use futures::future::join_all;
use semver::Version;

use super::Pool;
use crate::error::Error;
use crate::member::Member;
use crate::version::accept;

/// What one member says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFacts {
    /// The endpoint as configured.
    pub endpoint: String,
    /// The version it runs, at least the floor of its line.
    pub version: Version,
    /// Size of its database file, bytes.
    pub database_size: u64,
    /// Bytes of it in use; the rest comes back by defragmenting.
    pub database_in_use: u64,
    /// Its space quota, bytes; `None` before etcd 3.6, which does not tell.
    pub database_quota: Option<u64>,
    /// Whether it leads the cluster.
    pub is_leader: bool,
    /// Alarms and other trouble it reports, such as a space quota used up.
    pub alarms: Vec<String>,
}

/// What is known of a pool that can be used.
#[derive(Debug)]
pub struct PoolFacts {
    /// The members that answered, in the order of the configuration.
    pub members: Vec<MemberFacts>,
    /// Why the others did not. Their version is unknown until they do.
    pub unreachable: Vec<Error>,
    /// The oldest version among the members that answered: what the whole cluster can do.
    pub cluster_version: Version,
}

impl PoolFacts {
    /// Why no new data should go into a pool that answers: a member has raised an alarm.
    #[must_use]
    pub fn alarm(&self) -> Option<Error> {
        let mut alarms = self.members.iter().flat_map(|member| &member.alarms);
        // As etcd prints an `AlarmMember`: `memberID:8925027824743593106 alarm:NOSPACE`.
        alarms.find_map(|alarm| match alarm.split_once("alarm:")?.1.trim() {
            "NOSPACE" => Some(Error::OutOfSpace),
            "CORRUPT" => Some(Error::Corrupt),
            _ => None,
        })
    }
}

struct Answered {
    facts: MemberFacts,
    cluster: u64,
}

impl Pool {
    /// Asks every endpoint, and finds out whether the pool keeps tenants apart and obeys us.
    ///
    /// Members that are merely down are reported in [`PoolFacts::unreachable`] as long as one
    /// answers.
    ///
    /// # Errors
    /// The first of: a certificate that is not trusted on either side, a version below the floor,
    /// endpoints of different clusters, no endpoint that answers, authentication off, no root
    /// rights.
    pub async fn check(&self) -> Result<PoolFacts, Error> {
        let answers = join_all(self.members().iter().map(ask)).await;
        let (mut answered, mut unreachable) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Ok(one) => answered.push(one),
                Err(error) if error.is_transient() => unreachable.push(error),
                Err(error) => return Err(error),
            }
        }
        let facts = summarise(answered, unreachable)?;
        self.require_auth().await?;
        Ok(facts)
    }
}

async fn ask(member: &Member) -> Result<Answered, Error> {
    let status = match member.client().status().await {
        Ok(status) => status,
        Err(error) => return Err(member.diagnose("report a member's status", error).await),
    };
    let version = accept(status.version()).map_err(|refusal| Error::BelowFloor {
        endpoint: member.endpoint.clone(),
        version: status.version().to_owned(),
        refusal,
    })?;
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let header = status.header();
    let facts = MemberFacts {
        endpoint: member.endpoint.clone(),
        version,
        database_size: size(status.db_size()),
        database_in_use: size(status.raft_used_db_size()),
        database_quota: Some(size(status.db_size_quota())).filter(|quota| *quota > 0),
        is_leader: header.is_some_and(|header| header.member_id() == status.leader()),
        alarms: status.errors().to_vec(),
    };
    Ok(Answered {
        facts,
        cluster: header.map_or(0, etcd_client::ResponseHeader::cluster_id),
    })
}

fn summarise(answered: Vec<Answered>, mut unreachable: Vec<Error>) -> Result<PoolFacts, Error> {
    let Some(first) = answered.first() else {
        return Err(if unreachable.is_empty() {
            Error::NoEndpoints
        } else {
            unreachable.swap_remove(0)
        });
    };
    if let Some(other) = answered.iter().find(|other| other.cluster != first.cluster) {
        return Err(Error::DifferentClusters {
            endpoint: first.facts.endpoint.clone(),
            other: other.facts.endpoint.clone(),
        });
    }
    let oldest = answered.iter().map(|one| &one.facts.version).min();
    let cluster_version = oldest.unwrap_or(&first.facts.version).clone();
    let members = answered.into_iter().map(|one| one.facts).collect();
    Ok(PoolFacts {
        members,
        unreachable,
        cluster_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_from_other_trouble() {
        let alarm = |text: &str| {
            let member = MemberFacts {
                endpoint: "192.0.2.1:2379".to_owned(),
                version: Version::new(3, 6, 16),
                database_size: 1,
                database_in_use: 1,
                database_quota: None,
                is_leader: false,
                alarms: vec![text.to_owned()],
            };
            let facts = PoolFacts {
                cluster_version: member.version.clone(),
                members: vec![member],
                unreachable: Vec::new(),
            };
            facts.alarm().map(|alarm| alarm.category())
        };
        assert_eq!(alarm("memberID:7 alarm:NOSPACE "), Some("OutOfSpace"));
        assert_eq!(alarm("memberID:7 alarm:CORRUPT "), Some("Corrupt"));
        assert_eq!(alarm("etcdserver: no leader"), None);
    }
}
