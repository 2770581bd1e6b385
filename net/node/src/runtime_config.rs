//! The file of limits of single tenants, read again while the node runs.
//!
//! A change is whatever makes another hash of the content; looking costs one read of the file. A file that cannot be read or is wrong keeps a
//! node from starting, and later changes nothing: what held goes on holding, and log and metrics tell. What a new file changes goes to the
//! gateway (`Overrides`), to the cores (how long samples are kept, how many exemplars), and to the page `/runtime_config`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use gateway::overrides::Overrides;
use gateway::{ConfigPages, Gateway};
use model::{CoreId, TenantId, TenantLimits};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use sha2::{Digest, Sha256};
use shard::{ExemplarsMax, Mailboxes, Message, Retentions};

use crate::config::{Config, Overridden, overrides_page, read_overrides};

/// See the module.
pub(crate) struct RuntimeConfig {
    /// `None`: no tenant has its own limits.
    path: Option<PathBuf>,
    process: Config,
    overridden: Overridden,
    hash: String,
    /// What was wrong with the file when it was last looked at; told once.
    wrong: Option<String>,
    successful: IntGauge,
    hashes: IntGaugeVec,
}

impl RuntimeConfig {
    /// Reads the file, if one is configured.
    ///
    /// Errors: it cannot be read, or is wrong.
    pub(crate) fn start(config: &Config, registry: &Registry) -> anyhow::Result<RuntimeConfig> {
        let file = &config.runtime_config.file;
        let mut runtime = RuntimeConfig {
            path: (!file.is_empty()).then(|| PathBuf::from(file)),
            process: config.clone(),
            overridden: Overridden::default(),
            hash: String::new(),
            wrong: None,
            successful: IntGauge::new(
                "cortex_runtime_config_last_reload_successful",
                "Whether the file of runtime configuration was right when it was last looked at.",
            )?,
            hashes: IntGaugeVec::new(
                Opts::new(
                    "cortex_runtime_config_hash",
                    "1 for the hash of the runtime configuration in force.",
                ),
                &["sha256"],
            )?,
        };
        if let Some(path) = &runtime.path {
            registry.register(Box::new(runtime.successful.clone()))?;
            registry.register(Box::new(runtime.hashes.clone()))?;
            let loaded = load(path, config, "").map_err(anyhow::Error::msg)?;
            let (overridden, hash) = loaded.expect("no hash is empty");
            runtime.take(overridden, hash);
            runtime.successful.set(1);
        }
        Ok(runtime)
    }

    /// How long the samples of tenants are kept that differ from the process.
    pub(crate) fn retentions(&self) -> Arc<Retentions> {
        let usual = self.process.limits.retention;
        let own = self.overridden.0.iter();
        let own = own.filter(|(_, limits)| limits.retention != usual);
        Arc::new(
            own.map(|(id, limits)| (id.clone(), limits.retention_ms()))
                .collect(),
        )
    }

    /// How many exemplars tenants may have.
    pub(crate) fn exemplars_max(&self) -> Arc<ExemplarsMax> {
        let usual = self.process.limits.max_exemplars;
        let own = self.overridden.0.iter();
        let own = own.filter(|(_, limits)| limits.max_exemplars != usual);
        let own = own.map(|(id, limits)| (id.clone(), limits.max_exemplars));
        Arc::new(ExemplarsMax {
            usual,
            own: own.collect(),
        })
    }

    /// Puts what holds now into force.
    pub(crate) fn apply(
        &self,
        gateway: &Gateway,
        overrides: &Overrides,
        mailboxes: Option<&Mailboxes>,
    ) {
        let own: HashMap<TenantId, TenantLimits> = self.overridden.0.clone().into_iter().collect();
        overrides.replace(self.process.limits.clone(), own);
        let (retentions, exemplars_max) = (self.retentions(), self.exemplars_max());
        if let Some(mailboxes) = mailboxes {
            for core in 0..mailboxes.count() {
                let message = Message::Retentions(retentions.clone());
                mailboxes.send(CoreId(core), message);
                let message = Message::ExemplarsMax(exemplars_max.clone());
                mailboxes.send(CoreId(core), message);
            }
        }
        if self.path.is_some() {
            gateway.show_runtime_config(ConfigPages {
                current: overrides_page(&self.overridden, &self.process, false),
                diff: overrides_page(&self.overridden, &self.process, true),
                defaults: "overrides: {}\n".to_owned(),
            });
        }
    }

    /// Looks at the file; true when there is something new to [apply](RuntimeConfig::apply).
    pub(crate) fn look(&mut self) -> bool {
        let Some(path) = &self.path else {
            return false;
        };
        let loaded = load(path, &self.process, &self.hash);
        self.successful.set(i64::from(loaded.is_ok()));
        match loaded {
            Ok(None) => {
                if self.wrong.take().is_some() {
                    tracing::info!("the runtime configuration is as it was before");
                }
                false
            }
            Ok(Some((overridden, hash))) => {
                self.wrong = None;
                let tenants = overridden.0.len();
                tracing::info!(tenants, sha256 = hash, "new runtime configuration");
                self.take(overridden, hash);
                true
            }
            Err(error) => {
                if self.wrong.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the runtime configuration cannot be used; what held before goes on holding"
                    );
                }
                self.wrong = Some(error);
                false
            }
        }
    }

    fn take(&mut self, overridden: Overridden, hash: String) {
        self.hashes.reset();
        self.hashes.with_label_values(&[&hash]).set(1);
        self.overridden = overridden;
        self.hash = hash;
    }
}

/// `None` where the hash is the one that is known.
fn load(
    path: &Path,
    process: &Config,
    known: &str,
) -> Result<Option<(Overridden, String)>, String> {
    let told = |error: anyhow::Error| format!("{error:#}");
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {} (-runtime-config.file)", path.display()))
        .map_err(told)?;
    let hash = Sha256::digest(text.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    if hash == known {
        return Ok(None);
    }
    let overridden = read_overrides(&text, process)
        .with_context(|| path.display().to_string())
        .map_err(told)?;
    Ok(Some((overridden, hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_changes_nothing_and_is_told_and_a_good_one_comes_into_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runtime.yaml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let mut config = Config::defaults(true);
        config.runtime_config.file = path.display().to_string();
        config.limits.retention = std::time::Duration::from_secs(86_400);
        let start = || RuntimeConfig::start(&config, &Registry::new());
        assert!(start().is_err(), "a file that is not there");
        write("overrides: {a: {nonsense: 1}}");
        assert!(start().is_err());
        write("overrides: {a: {compactor_blocks_retention_period: 1h, max_exemplars: 5}}");
        let mut runtime = start().unwrap();
        let exemplars = runtime.exemplars_max();
        assert_eq!(exemplars.usual, config.limits.max_exemplars);
        assert_eq!(
            exemplars.own,
            [(TenantId::new("a").unwrap(), 5)].into_iter().collect()
        );
        let id = TenantId::new("a").unwrap();
        let kept = |runtime: &RuntimeConfig| runtime.retentions().get(&id).copied();
        assert_eq!(kept(&runtime), Some(3_600_000));
        assert!(!runtime.look(), "nothing new");
        let hash = runtime.hash.clone();
        for bad in ["overrides: {a: {nonsense: 1}}", "overrides: {"] {
            write(bad);
            assert!(!runtime.look());
            assert_eq!(runtime.successful.get(), 0);
            assert_eq!((kept(&runtime), &runtime.hash), (Some(3_600_000), &hash));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!runtime.look());
        write("overrides: {a: {compactor_blocks_retention_period: 0}}");
        assert!(runtime.look());
        assert_eq!(runtime.successful.get(), 1);
        assert_eq!(kept(&runtime), Some(i64::MAX), "for ever");
        assert_ne!(runtime.hash, hash);
        write("");
        assert!(runtime.look());
        assert_eq!(kept(&runtime), None);
    }
}
