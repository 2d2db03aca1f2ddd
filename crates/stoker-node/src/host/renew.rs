//! Certificates of the authority that signs now. While the tenant's authority rotates, what the kubelet has is of the other one.
//!
//! ```text
//!  the first authority of ca.crt signs now
//!  kubelet's client certificate of it? ──no──► asked for anew as this node, by a new key ──► kept ──┐
//!      └─yes─► its serving one of it? ──no──► the link removed: it asks for one when it starts ─────┴─► restart due
//!                  └─yes, or none is to be, and no restart due ──► told on the Node
//! ```
//! What is due is read from the files at each look: whoever is cut off between two steps goes on with the next one.

use std::fs;
use std::io::ErrorKind::NotFound;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use stoker_pki::{ca_hash, is_node_credential, is_signed_by};
use time::OffsetDateTime;

use super::access::{Who, client};
use super::certificate::{self, Denied};
use super::join::authorities;
use super::paths::{
    AUTHORITY, CERTIFICATE, KUBELET_CONFIG, Membership, RENEWAL_KEY, RESTART_DUE, SERVING, remove,
    write,
};

/// Where things are.
#[derive(Clone, Copy)]
struct Places<'a> {
    authorities: &'a str,
    client: &'a str,
    serving: &'a str,
    config: &'a str,
    key: &'a str,
    due: &'a str,
}

const PLACES: Places<'static> = Places {
    authorities: AUTHORITY,
    client: CERTIFICATE,
    serving: SERVING,
    config: KUBELET_CONFIG,
    key: RENEWAL_KEY,
    due: RESTART_DUE,
};

/// What the machine has.
#[derive(Clone, Default)]
struct Held {
    authorities: String,
    client: String,
    serving: Option<String>,
    /// Whether its kubelet is to serve by a certificate of the tenant.
    bootstraps: bool,
    /// Whether its kubelet may not have read all this yet.
    restart_due: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Another client certificate is to be asked for.
    Ask,
    /// The kubelet is to ask for another serving certificate.
    Drop,
    /// The kubelet's turn.
    Wait,
    /// All that it has is of the authority that signs now.
    Done,
}

impl Held {
    fn read(places: &Places<'_>) -> Result<Self> {
        let read = |path: &str| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {path}")),
        };
        let config = match read(places.config)? {
            Some(text) => serde_saphyr::from_str(&text)
                .with_context(|| format!("reading {}", places.config))?,
            None => Value::Null,
        };
        // A certificate of its own takes the place of the tenant's.
        let has_own = config["tlsCertFile"]
            .as_str()
            .is_some_and(|path| !path.is_empty());
        Ok(Self {
            authorities: read(places.authorities)?.unwrap_or_default(),
            client: read(places.client)?.unwrap_or_default(),
            serving: read(places.serving)?,
            bootstraps: config["serverTLSBootstrap"] == true && !has_own,
            restart_due: fs::exists(places.due)?,
        })
    }

    fn step(&self) -> Step {
        let is_new = |certificate: &str| is_signed_by(certificate, &self.authorities);
        if !is_new(&self.client) {
            return Step::Ask;
        }
        match &self.serving {
            Some(serving) if !is_new(serving) => Step::Drop,
            None if self.bootstraps => Step::Wait,
            _ if self.restart_due => Step::Wait,
            _ => Step::Done,
        }
    }
}

/// Looks to rest, after attempts that have led to nothing: none, one, three, seven, and then fifteen each time. As long as
/// kube-controller-manager signs by the other authority, each attempt leaves a request.
#[derive(Debug, Default)]
struct Rest {
    attempts: u32,
    left: u32,
}

impl Rest {
    fn is_over(&mut self) -> bool {
        let is_over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_over
    }

    fn attempted(&mut self) {
        self.left = (1 << self.attempts) - 1;
        self.attempts = (self.attempts + 1).min(4);
    }
}

/// From one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    rest: Rest,
    /// Looks at which it was the kubelet's turn, one after the other.
    waits: u32,
}

/// So many looks a kubelet may take to start and to get its certificate.
const PATIENCE: u32 = 3;

impl Renewal {
    /// Goes on where the last look ended.
    pub(crate) async fn look(&mut self, member: &Membership) -> Result<()> {
        let obtain = async || {
            let client = client(&member.server, Some(&authorities()?), &Who::this_node())?;
            certificate::obtain(&client, &member.node, RENEWAL_KEY, &certificate::RENEWING).await
        };
        self.look_at(&PLACES, &member.node, obtain).await
    }

    async fn look_at(
        &mut self,
        places: &Places<'_>,
        node: &str,
        obtain: impl AsyncFnOnce() -> Result<String>,
    ) -> Result<()> {
        let held = Held::read(places)?;
        let mut step = held.step();
        if step == Step::Ask {
            if !self.rest.is_over() {
                return Ok(());
            }
            self.renew(places, node, &held.authorities, obtain).await?;
            step = Held::read(places)?.step();
        }
        // Of one that was cut off after its certificate was kept.
        remove(places.key)?;
        match step {
            Step::Done => self.rest = Rest::default(),
            Step::Drop if self.rest.is_over() => {
                self.rest.attempted();
                // First, here and below: who is cut off after it only restarts once more.
                write(places.due, "", 0o600)?;
                // Without it the kubelet asks when it starts, whatever else lies there (`certificate_store.go`, `Current`).
                remove(places.serving)?;
                tracing::info!(
                    "the kubelet is to serve by a certificate of the authority that signs now"
                );
            }
            Step::Ask | Step::Drop | Step::Wait => {}
        }
        self.waits = if step == Step::Wait {
            self.waits + 1
        } else {
            0
        };
        if self.waits % (PATIENCE * 5) == PATIENCE {
            tracing::warn!(
                "the kubelet has not got a serving certificate, or has not been restarted: its own log and `kubectl get csr` say why"
            );
        }
        Ok(())
    }

    async fn renew(
        &mut self,
        places: &Places<'_>,
        node: &str,
        authorities: &str,
        obtain: impl AsyncFnOnce() -> Result<String>,
    ) -> Result<()> {
        let obtained = obtain().await;
        if obtained.as_ref().is_err_and(anyhow::Error::is::<Denied>) {
            self.rest.attempted();
        }
        let obtained = obtained.context(
            "asking for a certificate of the authority that signs now; if the one that signed this machine's has left, \
             run stoker-node leave, and join by a new token",
        )?;
        let now = OffsetDateTime::now_utc();
        let is_new = is_signed_by(&obtained, authorities);
        if !is_new || !is_node_credential(&obtained, node, authorities, now) {
            self.rest.attempted();
            // The answer is for this key.
            remove(places.key)?;
            bail!(
                "kube-controller-manager has given a certificate of another authority than the one that signs now, or not of this node; \
                 another one is asked for later"
            );
        }
        write(places.due, "", 0o600)?;
        certificate::keep(&obtained, places.client, places.key)?;
        self.rest = Rest::default();
        tracing::info!("the kubelet has a client certificate of the authority that signs now");
        Ok(())
    }
}

/// Pin of the authority that signs now, and whether all that the kubelet has is of it, and was read since. `None` while that
/// is on its way.
pub(crate) fn authority() -> Option<(String, bool)> {
    let held = Held::read(&PLACES).ok()?;
    claim(&held)
}

fn claim(held: &Held) -> Option<(String, bool)> {
    let has = match held.step() {
        Step::Done => true,
        Step::Ask | Step::Drop => false,
        Step::Wait => return None,
    };
    Some((ca_hash(&held.authorities).ok()?, has))
}

#[cfg(test)]
mod tests;
