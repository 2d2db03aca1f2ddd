//! The Helm chart, from the same sources as `install.yaml`: what users may set is put in the place of the text that
//! stands there. Text that is not found is an error, so the chart cannot fall behind.

mod values;

use anyhow::{Context as _, Result, ensure};

use super::{
    Artifact, DEFAULT_IMAGE, GATEWAY, GATEWAY_IMAGE, HEADER, NODE_IMAGE, OPERATOR, WARDEN_IMAGE,
    WEBHOOK, crds, monitoring, rbac,
};

const NAMESPACE: &str = include_str!("namespace.yaml");
const VALUES: &str = include_str!("chart/values.yaml");

/// Text of `operator.yaml` that is there once, and what the chart has instead.
const SETTABLE: &[(&str, &str)] = &[
    ("  replicas: 2\n", "  replicas: {{ .Values.replicas }}\n"),
    (
        "  template:\n    metadata:\n",
        "  template:
    metadata:
      {{- with .Values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
",
    ),
    (
        "      nodeSelector:\n        kubernetes.io/os: linux\n",
        "      {{- with .Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      nodeSelector:
        {{- toYaml .Values.nodeSelector | nindent 8 }}
      {{- with .Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
",
    ),
    (
        "          image: ${IMAGE}\n          imagePullPolicy: IfNotPresent\n",
        "          image: {{ with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}{{ end }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
",
    ),
    (
        "            - --webhook-bind-address=0.0.0.0:9443\n",
        "            {{- if .Values.webhook.enabled }}
            - --webhook-bind-address=0.0.0.0:9443
            {{- end }}
",
    ),
    (
        "            - name: webhook\n              containerPort: 9443\n",
        "            {{- if .Values.webhook.enabled }}
            - name: webhook
              containerPort: 9443
            {{- end }}
",
    ),
    (
        "            - --warden-image=${WARDEN_IMAGE}\n            - --node-image=${NODE_IMAGE}\n",
        "            - --warden-image={{ with .Values.wardenImage }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}{{ end }}
            - --node-image={{ with .Values.nodeImage }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}{{ end }}
            {{- with .Values.datastore }}
            - {{ printf \"--datastore=%s\" . | quote }}
            {{- end }}
            {{- with .Values.baseDomain }}
            - {{ printf \"--base-domain=%s\" . | quote }}
            {{- end }}
            {{- with .Values.managementCidrs }}
            - --management-cidrs={{ join \",\" . }}
            {{- end }}
            {{- with .Values.maxConcurrentReconciles }}
            - --max-concurrent-reconciles={{ int . }}
            {{- end }}
            {{- if .Values.logJson }}
            - --log-json
            {{- end }}
",
    ),
    (
        "          resources:\n            requests:\n              cpu: 100m\n              memory: 128Mi\n",
        "          resources:\n            {{- toYaml .Values.resources | nindent 12 }}\n",
    ),
];

/// The same of `gateway.yaml`.
const SETTABLE_OF_GATEWAY: &[(&str, &str)] = &[
    ("  replicas: 2\n", "  replicas: {{ .Values.gateway.replicas }}\n"),
    (
        "  type: LoadBalancer\n",
        "  type: {{ .Values.gateway.service.type }}\n",
    ),
    (
        "kind: Service\nmetadata:\n",
        "kind: Service
metadata:
  {{- with .Values.gateway.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
",
    ),
    (
        "      nodeSelector:\n        kubernetes.io/os: linux\n",
        "      {{- with .Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      nodeSelector:
        {{- toYaml .Values.nodeSelector | nindent 8 }}
      {{- with .Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
",
    ),
    (
        "          image: ${GATEWAY_IMAGE}\n          imagePullPolicy: IfNotPresent\n",
        "          image: {{ with .Values.gateway.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}{{ end }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
",
    ),
    (
        "            - --base-domain=clusters.example.com\n",
        "            - {{ required \"the gateway needs baseDomain\" .Values.baseDomain | printf \"--base-domain=%s\" | quote }}
            {{- with .Values.gateway.proxyProtocolFrom }}
            - --proxy-protocol-from={{ join \",\" . }}
            {{- end }}
            {{- range .Values.gateway.arguments }}
            - {{ . | quote }}
            {{- end }}
",
    ),
    (
        "          resources:\n            requests:\n              cpu: 100m\n              memory: 64Mi\n",
        "          resources:\n            {{- toYaml .Values.gateway.resources | nindent 12 }}\n",
    ),
];

/// Every file of the chart.
pub(super) fn files() -> Result<Vec<Artifact>> {
    let file = |path, content: String| Artifact { path, content };
    let template = |path, content: String| file(path, format!("{HEADER}{content}"));
    Ok(vec![
        file(
            "manifests/chart/Chart.yaml",
            format!("{HEADER}{}", release(include_str!("chart/Chart.yaml"))),
        ),
        file(
            "manifests/chart/values.yaml",
            format!("{HEADER}{}", default_values()?),
        ),
        file(
            "manifests/chart/values.schema.json",
            include_str!("chart/values.schema.json").to_owned(),
        ),
        file("manifests/chart/README.md", readme()?),
        file(
            "manifests/chart/.helmignore",
            include_str!("chart/.helmignore").to_owned(),
        ),
        template("manifests/chart/templates/crds.yaml", crds_template()?),
        template("manifests/chart/templates/namespace.yaml", namespace()?),
        template(
            "manifests/chart/templates/rbac.yaml",
            in_release(&rbac::roles()),
        ),
        template("manifests/chart/templates/operator.yaml", operator()?),
        template("manifests/chart/templates/webhook.yaml", webhook()?),
        template("manifests/chart/templates/gateway.yaml", gateway()?),
        template(
            "manifests/chart/templates/metrics.yaml",
            include_str!("chart/templates/metrics.yaml").to_owned(),
        ),
        file(
            "manifests/chart/templates/NOTES.txt",
            include_str!("chart/templates/NOTES.txt").to_owned(),
        ),
        file("manifests/chart/files/alerts.yaml", monitoring::alerts()),
        file(
            "manifests/chart/files/dashboard.json",
            monitoring::dashboard()?,
        ),
    ])
}

/// Name and version of this release in `text`.
fn release(text: &str) -> String {
    text.replace("${VERSION}", env!("CARGO_PKG_VERSION"))
        .replace("${REPOSITORY}", env!("CARGO_PKG_REPOSITORY"))
}

fn default_values() -> Result<String> {
    let mut values = VALUES.to_owned();
    for (name, image) in [
        ("", DEFAULT_IMAGE),
        ("WARDEN_", WARDEN_IMAGE),
        ("NODE_", NODE_IMAGE),
        ("GATEWAY_", GATEWAY_IMAGE),
    ] {
        let (repository, tag) = image
            .rsplit_once(':')
            .context("the default image has no tag")?;
        values = values
            .replace(&format!("${{{name}REPOSITORY}}"), repository)
            .replace(&format!("${{{name}TAG}}"), tag);
    }
    Ok(values)
}

fn readme() -> Result<String> {
    let rows = values::table(&default_values()?)?;
    Ok(include_str!("chart/README.md").replace("${VALUES}\n", &rows))
}

fn operator() -> Result<String> {
    settable(OPERATOR, SETTABLE)
}

fn gateway() -> Result<String> {
    let objects = settable(GATEWAY, SETTABLE_OF_GATEWAY)?;
    Ok(format!(
        "{{{{- if .Values.gateway.enabled }}}}\n{objects}{{{{- end }}}}\n"
    ))
}

/// `text` with what users may set.
fn settable(text: &str, places: &[(&str, &str)]) -> Result<String> {
    let mut text = verbatim(text)?.to_owned();
    for (from, to) in places {
        ensure!(
            text.matches(from).count() == 1,
            "the manifest must have this once, as the chart puts values there: {from}"
        );
        text = text.replace(from, to);
    }
    Ok(in_release(&text))
}

fn webhook() -> Result<String> {
    let objects = in_release(verbatim(WEBHOOK)?);
    Ok(format!(
        "{{{{- if .Values.webhook.enabled }}}}\n{objects}{{{{- end }}}}\n"
    ))
}

fn crds_template() -> Result<String> {
    let mut text = String::new();
    for (path, crd) in crds::all()? {
        let kept = "metadata:\n  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n";
        let (head, body) = verbatim(&crd)?
            .split_once("metadata:\n")
            .with_context(|| format!("{path} has no metadata"))?;
        text = format!("{text}---\n{head}{kept}{body}");
    }
    Ok(format!(
        "{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"
    ))
}

fn namespace() -> Result<String> {
    let name = "  name: stoker-system\n";
    let at = NAMESPACE
        .find("apiVersion:")
        .context("namespace.yaml has no object")?;
    let object = NAMESPACE.get(at..).unwrap_or_default();
    ensure!(
        object.matches(name).count() == 1,
        "namespace.yaml must have the name once"
    );
    let object = object.replace(name, "  name: {{ .Release.Namespace }}\n");
    Ok(format!(
        "{{{{- if .Values.namespace.create }}}}\n{object}{{{{- end }}}}\n"
    ))
}

/// `text` with the release's namespace.
fn in_release(text: &str) -> String {
    text.replace(
        "namespace: stoker-system\n",
        "namespace: {{ .Release.Namespace }}\n",
    )
}

/// `text`, which Helm must not take for a template.
fn verbatim(text: &str) -> Result<&str> {
    ensure!(
        !text.contains("{{"),
        "text with {{{{ would be expanded by Helm"
    );
    Ok(text)
}

#[cfg(test)]
mod tests;
