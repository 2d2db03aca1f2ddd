//! Names of Nodes.

/// Whether a Node can have the name: a DNS-1123 subdomain.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|byte| edge(byte) || *byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::is_node_name;

    #[test]
    fn names_are_dns_subdomains_in_lower_case() {
        for name in ["w1", "1", "a-b.example.com", &"a".repeat(253)] {
            assert!(is_node_name(name), "{name:?}");
        }
        let refused = [
            "",
            "W1",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a.",
            "a/b",
            &"a".repeat(254),
        ];
        for name in refused {
            assert!(!is_node_name(name), "{name:?}");
        }
    }
}
