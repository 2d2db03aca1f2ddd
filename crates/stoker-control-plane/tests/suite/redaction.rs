//! Goldens show what a certificate says instead of its bytes, and no key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

/// An object with everything random replaced by a description.
pub(crate) fn redacted(mut object: Value) -> Value {
    if object["kind"] == "Secret" {
        for (_, entry) in object["data"].as_object_mut().unwrap() {
            let bytes = STANDARD.decode(entry.as_str().unwrap()).unwrap();
            *entry = Value::from(text(&String::from_utf8(bytes).unwrap()));
        }
    }
    let checksum = "/spec/template/metadata/annotations/stoker.dev~1restart-checksum";
    if let Some(checksum) = object.pointer_mut(checksum) {
        assert_eq!(checksum.as_str().unwrap().len(), 64);
        *checksum = Value::from("<sha256>");
    }
    object
}

fn text(text: &str) -> String {
    if text.starts_with("-----BEGIN ") {
        return pem(text);
    }
    let lines: Vec<_> = text.lines().map(line).collect();
    lines.join("\n")
}

/// A line of a kubeconfig or of an encryption configuration.
fn line(line: &str) -> String {
    let Some((key, value)) = line.split_once(": ") else {
        return line.to_owned();
    };
    let decoded = STANDARD.decode(value.trim_matches('"')).unwrap_or_default();
    match key.trim() {
        key_name if key_name.ends_with("-data") => {
            format!("{key}: {}", pem(&String::from_utf8(decoded).unwrap()))
        }
        "secret" => format!("{key}: <{} bytes>", decoded.len()),
        _ => line.to_owned(),
    }
}

fn pem(text: &str) -> String {
    let blocks = Pem::iter_from_buffer(text.as_bytes()).map(|block| {
        let block = block.unwrap();
        if block.label == "CERTIFICATE" {
            certificate(&block.parse_x509().unwrap())
        } else {
            format!("<{}>", block.label.to_lowercase())
        }
    });
    blocks.collect::<Vec<_>>().join("\n")
}

fn certificate(certificate: &X509Certificate<'_>) -> String {
    let names = certificate.subject_alternative_name().unwrap();
    let names = names.map_or(String::new(), |names| {
        let names: Vec<_> = names.value.general_names.iter().map(name).collect();
        format!(" for {}", names.join(" "))
    });
    let usage = certificate
        .extended_key_usage()
        .unwrap()
        .map_or("authority", |usage| {
            match (usage.value.server_auth, usage.value.client_auth) {
                (true, false) => "server",
                (false, true) => "client",
                _ => "server and client",
            }
        });
    let validity = certificate.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / (24 * 3600);
    format!(
        "<{usage} certificate of {} by {}, {days} days{names}>",
        certificate.subject(),
        certificate.issuer()
    )
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => std::net::Ipv4Addr::from(v4).to_string(),
            Err(_) => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).unwrap()).to_string(),
        },
        other => panic!("{other:?}"),
    }
}
