//! What a tenant's `metric_relabel_configs` say, as values: Prometheus' relabelling. Compiled and applied in `gateway`.

/// One rule, with Prometheus' defaults for what it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelabelConfig {
    /// Labels whose values, joined, are what the rule looks at.
    pub source_labels: Vec<String>,
    /// Joins them.
    pub separator: String,
    /// Go's syntax; must match the whole.
    pub regex: String,
    /// Of `hashmod`.
    pub modulus: u64,
    /// The label that is set or compared.
    pub target_label: String,
    /// What it is set to, with `$1` for what the expression has captured.
    pub replacement: String,
    /// What is done.
    pub action: RelabelAction,
}

/// See Prometheus' documentation of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RelabelAction {
    /// Sets a label where the expression matches.
    #[default]
    Replace,
    /// Drops series that do not match.
    Keep,
    /// Drops series that match.
    Drop,
    /// Drops series of which target and source differ.
    KeepEqual,
    /// Drops series of which they are equal.
    DropEqual,
    /// Sets a label to the hash of the source, modulo.
    HashMod,
    /// Copies labels whose names match under other names.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Sets a label to the source in small letters.
    Lowercase,
    /// Sets a label to the source in capitals.
    Uppercase,
}

impl RelabelAction {
    /// All, in the order of Prometheus' documentation.
    pub const ALL: [RelabelAction; 11] = [
        RelabelAction::Replace,
        RelabelAction::Lowercase,
        RelabelAction::Uppercase,
        RelabelAction::Keep,
        RelabelAction::Drop,
        RelabelAction::KeepEqual,
        RelabelAction::DropEqual,
        RelabelAction::HashMod,
        RelabelAction::LabelMap,
        RelabelAction::LabelDrop,
        RelabelAction::LabelKeep,
    ];

    /// As it stands in a file.
    pub fn name(self) -> &'static str {
        match self {
            RelabelAction::Replace => "replace",
            RelabelAction::Keep => "keep",
            RelabelAction::Drop => "drop",
            RelabelAction::KeepEqual => "keepequal",
            RelabelAction::DropEqual => "dropequal",
            RelabelAction::HashMod => "hashmod",
            RelabelAction::LabelMap => "labelmap",
            RelabelAction::LabelDrop => "labeldrop",
            RelabelAction::LabelKeep => "labelkeep",
            RelabelAction::Lowercase => "lowercase",
            RelabelAction::Uppercase => "uppercase",
        }
    }
}

impl Default for RelabelConfig {
    fn default() -> RelabelConfig {
        RelabelConfig {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            regex: "(.*)".to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".to_owned(),
            action: RelabelAction::Replace,
        }
    }
}
