//! Building programs of published Go modules through a small module of our own.
//!
//! `go install module@version` refuses modules with `replace` lines, which etcd and Kubernetes have; as a
//! dependency of another module the same source builds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::process::Command;

use super::Upstream;
use super::cache::key;
use crate::command::{program, run};
use crate::requirements::ensure_space;

/// Free space that building takes, most of it in Go's own caches.
const BUILD_GIB: u64 = 10;

/// A module at a version.
#[derive(Debug, Clone, Hash)]
pub(super) struct Require {
    pub(super) module: String,
    pub(super) version: String,
}

/// How one set of programs is built.
#[derive(Debug, Clone, Default)]
pub(super) struct GoBuild {
    pub(super) name: &'static str,
    pub(super) version: String,
    /// The first one's `go` and `godebug` lines become ours, as these decide run-time defaults.
    pub(super) requires: Vec<Require>,
    /// Staging modules, all at `.1`, that the first requirement replaces by directories of its own tree.
    pub(super) staging: Option<&'static str>,
    /// Source of our own `main` package, when programs are joined in one.
    pub(super) main: Option<&'static str>,
    /// Package to build and name of the program.
    pub(super) packages: Vec<(String, &'static str)>,
    pub(super) ldflags: Vec<String>,
    pub(super) tags: &'static str,
}

/// What `go mod download -json` says about a module.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    go_mod: PathBuf,
}

impl GoBuild {
    /// The entry of the cache with the programs.
    pub(super) async fn build(&self, upstream: &Upstream) -> Result<PathBuf> {
        self.build_then(upstream, async |_| Ok(())).await
    }

    /// Like `build`, with a last step on the directory of programs.
    pub(super) async fn build_then(
        &self,
        upstream: &Upstream,
        then: impl AsyncFnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let key = key(self.name, &self.version, &format!("3 {self:?}"));
        let title = format!("building {} {} from its Go module", self.name, self.version);
        let build = async |out: PathBuf| {
            ensure_space(
                &out,
                BUILD_GIB,
                "set STOKER_CACHE, GOCACHE and GOMODCACHE to directories on a larger disk",
            )?;
            let source = out.with_file_name("source");
            std::fs::create_dir_all(&source).context("making the source directory")?;
            self.write_module(&source).await?;
            for (package, name) in &self.packages {
                self.compile(&source, package, &out.join(name)).await?;
            }
            then(&out).await
        };
        upstream
            .cache
            .entry(&upstream.steps, &key, &title, build)
            .await
    }

    async fn write_module(&self, source: &Path) -> Result<()> {
        let first = self.requires.first().context("a build without a module")?;
        std::fs::write(source.join("go.mod"), "module stoker.dev/lab/download\n")
            .context("writing go.mod")?;
        let wanted = format!("{}@{}", first.module, first.version);
        let said = run(go(source).args(["mod", "download", "-json", &wanted])).await?;
        let downloaded: Downloaded = serde_json::from_str(&said).context("reading go's answer")?;
        let upstream = std::fs::read_to_string(&downloaded.go_mod).context("reading its go.mod")?;
        std::fs::write(source.join("go.mod"), self.go_mod(&upstream)).context("writing go.mod")?;
        if let Some(main) = self.main {
            std::fs::write(source.join("main.go"), main).context("writing main.go")?;
        }
        Ok(())
    }

    fn go_mod(&self, upstream: &str) -> String {
        let mut text = format!("module stoker.dev/lab/{}\n", self.name);
        for line in upstream.lines().filter(|line| {
            line.starts_with("go ") || line.starts_with("godebug ") && !line.ends_with('(')
        }) {
            let _ = writeln!(text, "{line}");
        }
        for Require { module, version } in &self.requires {
            let _ = writeln!(text, "require {module} {version}");
        }
        if let Some(version) = self.staging {
            for module in staging_modules(upstream) {
                let _ = writeln!(text, "replace {module} => {module} {version}");
            }
        }
        text
    }

    async fn compile(&self, source: &Path, package: &str, target: &Path) -> Result<()> {
        let ldflags = format!("-s -w {}", self.ldflags.join(" "));
        let mut command = go(source);
        command.args([
            "build",
            "-mod=mod",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &ldflags,
        ]);
        command
            .args(["-tags", self.tags, "-o"])
            .arg(target)
            .arg(package);
        run(&mut command).await.map(drop)
    }
}

/// The modules that Kubernetes replaces by its `staging` directories.
fn staging_modules(go_mod: &str) -> Vec<&str> {
    let staged = go_mod.lines().filter(|line| line.contains("=> ./staging/"));
    staged
        .filter_map(|line| line.trim_start_matches("replace").split_whitespace().next())
        .collect()
}

fn go(directory: &Path) -> Command {
    let mut command = program("go", [""; 0]);
    command
        .current_dir(directory)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env_remove("GOFLAGS");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_modules_are_the_replaced_directories() {
        let go_mod = "replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\ta.b/c => ../c\n)\n";
        assert_eq!(staging_modules(go_mod), ["k8s.io/api"]);
    }

    #[test]
    fn run_time_defaults_follow_the_upstream_module() {
        let build = GoBuild {
            name: "x",
            requires: vec![Require {
                module: "a.b/c".into(),
                version: "v1.0.0".into(),
            }],
            ..GoBuild::default()
        };
        let text = build.go_mod("module a.b/c\n\ngo 1.24.0\n\ngodebug default=go1.24\n");
        assert!(
            text.contains("go 1.24.0\n") && text.contains("godebug default=go1.24\n"),
            "{text}"
        );
    }
}
