//! What of the chart can be checked without Helm. With it: `e2e/tests/crd_support/chart.rs`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::r#gen::with_images;

fn values() -> Value {
    serde_saphyr::from_str(&default_values().unwrap()).unwrap()
}

/// The Deployment in a manifest.
fn deployment(text: &str) -> Value {
    let text = with_images(text);
    text.split("---\n")
        .map(|text| serde_saphyr::from_str::<Value>(text).unwrap())
        .find(|object| object["kind"] == "Deployment")
        .unwrap()
}

#[test]
fn the_default_values_are_what_install_yaml_has() {
    let (values, deployment) = (values(), deployment(OPERATOR));
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let image = &values["image"];
    let warden = &values["wardenImage"];
    let reference = |image: &Value| {
        let text = |key: &str| image[key].as_str().unwrap().to_owned();
        format!("{}:{}", text("repository"), text("tag"))
    };
    assert_eq!(values["replicas"], deployment["spec"]["replicas"]);
    assert_eq!(values["resources"], container["resources"]);
    assert_eq!(values["nodeSelector"], pod["nodeSelector"]);
    assert_eq!(image["pullPolicy"], container["imagePullPolicy"]);
    assert_eq!(reference(image), DEFAULT_IMAGE);
    assert_eq!(reference(warden), WARDEN_IMAGE);
    assert_eq!(reference(&values["nodeImage"]), NODE_IMAGE);
    let (gateway, deployment) = (&values["gateway"], self::deployment(GATEWAY));
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(gateway["replicas"], deployment["spec"]["replicas"]);
    assert_eq!(gateway["resources"], container["resources"]);
    assert_eq!(container["image"], reference(&gateway["image"]));
}

/// Paths of the values that the schema knows; `until` stops at what is one value for people.
fn known(schema: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match schema.get("properties") {
        Some(properties) => {
            for (key, schema) in properties.as_object().unwrap() {
                let below = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                known(schema, &below, paths);
            }
        }
        None => drop(paths.insert(path.to_owned())),
    }
}

#[test]
fn schema_values_and_readme_know_the_same_values() {
    let schema: Value = serde_json::from_str(include_str!("values.schema.json")).unwrap();
    let mut wanted = BTreeSet::new();
    known(&schema, "", &mut wanted);
    // Helm's own, for charts above this one.
    wanted.remove("global");
    let settings = values::settings(&default_values().unwrap()).unwrap();
    let settings: BTreeSet<String> = settings.into_iter().map(|found| found.path).collect();
    assert_eq!(settings, wanted);
    for path in settings {
        let used = files()
            .unwrap()
            .iter()
            .any(|file| file.path.contains("/templates/") && is_used(&path, &file.content));
        assert!(used, "no template uses {path}");
    }
}

fn is_used(path: &str, template: &str) -> bool {
    let field = path
        .strip_prefix("image.")
        .or_else(|| path.strip_prefix("wardenImage."))
        .or_else(|| path.strip_prefix("nodeImage."))
        .or_else(|| path.strip_prefix("gateway.image."));
    let within_image = field.is_some_and(|field| template.contains(&format!("{{{{ .{field} }}}}")));
    within_image || template.contains(&format!(".Values.{path} "))
}

#[test]
fn a_row_has_path_default_and_comment() {
    let yaml = "a:\n  # One\n  # thing.\n  b: {c: 1}\n# Another.\nd: []\n";
    let rows = values::table(yaml).unwrap();
    assert_eq!(
        rows,
        "| `a.b` | `{\"c\":1}` | One thing. |\n| `d` | `[]` | Another. |\n"
    );
}

#[test]
fn the_namespace_is_always_the_releases() {
    for file in files().unwrap() {
        if file.path.contains("/templates/") {
            assert!(!file.content.contains("stoker-system"), "{}", file.path);
        }
    }
}
