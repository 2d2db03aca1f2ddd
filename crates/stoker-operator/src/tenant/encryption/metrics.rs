//! What an API server says of the encryption configuration that it serves.

/// The hash of its file: `k8s.io/apiserver` 0.34 and later.
const HASH: &str = "apiserver_encryption_config_controller_last_config_info";
/// How often it took a changed file: before.
const RELOADS: &str = "apiserver_encryption_config_controller_automatic_reloads_total";
const STARTED: &str = "process_start_time_seconds";

/// What one said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The hash of what it serves.
    Hash(String),
    /// When it started, as it writes it, and how often it has taken a changed file since.
    Reloads(String, u64),
}

/// Reads the answer to `/metrics`.
pub(super) fn said(text: &str) -> Option<Said> {
    let of = |name: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let name = name.to_owned();
        lines.filter_map(move |line| {
            let rest = line.strip_prefix(name.as_str())?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value))
        })
    };
    let hash = of(HASH).find_map(|(labels, _)| label(labels, "hash"));
    if let Some(hash) = hash {
        return Some(Said::Hash(hash.to_owned()));
    }
    let (_, started) = of(STARTED).next()?;
    let taken = of(RELOADS).filter(|(labels, _)| label(labels, "status") == Some("success"));
    let reloads = taken.filter_map(|(_, value)| value.parse::<u64>().ok());
    Some(Said::Reloads(started.to_owned(), reloads.sum()))
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let inner = labels.strip_prefix('{')?.strip_suffix('}')?;
    let mut pairs = inner.split(',').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(known, _)| *known == name)?;
    value.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_believed_before_a_count() {
        let new = "# HELP x\n\
            apiserver_encryption_config_controller_automatic_reloads_total{apiserver_id_hash=\"sha256:1\",status=\"success\"} 2\n\
            apiserver_encryption_config_controller_last_config_info{apiserver_id_hash=\"sha256:1\",hash=\"sha256:ab\"} 1\n\
            process_start_time_seconds 1.79e+09\n";
        assert_eq!(said(new), Some(Said::Hash("sha256:ab".to_owned())));
        let old = "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds{status=\"success\"} 7\n\
            apiserver_encryption_config_controller_automatic_reloads_total{apiserver_id_hash=\"sha256:1\",status=\"failure\"} 3\n\
            apiserver_encryption_config_controller_automatic_reloads_total{apiserver_id_hash=\"sha256:1\",status=\"success\"} 2\n\
            process_start_time_seconds 1.79e+09\n";
        let counted = |reloads| Some(Said::Reloads("1.79e+09".to_owned(), reloads));
        assert_eq!(said(old), counted(2));
        assert_eq!(said("process_start_time_seconds 1.79e+09\n"), counted(0));
        assert_eq!(said(""), None);
    }
}
