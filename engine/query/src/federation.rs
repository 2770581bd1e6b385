//! Queries over several tenants: `a|b`.
//!
//! A read of a joined name is one read for each of its tenants, and what comes back gets the label `__tenant_id__`; matchers on that label choose
//! tenants and are not passed on. A label of that name that was there already is `original___tenant_id__` from then on. Cores and blocks are only
//! ever asked for one tenant: a joined name that got through would find nothing. Source: Cortex `pkg/querier/tenantfederation`.

use std::sync::Arc;

use model::{Labels, Matcher, Projection, TenantId};
use shard::SelectedSeries;

use crate::engine::{Caller, Turn};
use crate::error::Error;
use crate::fanout::Reach;

/// Names the tenant of a series.
pub(crate) const TENANT_LABEL: &str = "__tenant_id__";

/// What such a label of the series itself is called.
pub(crate) const ORIGINAL_LABEL: &str = "original___tenant_id__";

/// What one tenant is asked.
pub(crate) struct Part {
    pub(crate) caller: Caller,
    pub(crate) reach: Reach,
    /// The projection of the whole, where the answer has to be marked.
    marked: Option<Projection>,
}

impl Caller {
    /// What to ask each tenant.
    pub(crate) fn parts(&self, reach: &Reach) -> Vec<Part> {
        if !self.tenant.is_joined() {
            return vec![Part {
                caller: self.clone(),
                reach: reach.clone(),
                marked: None,
            }];
        }
        let inner = Reach {
            matchers: inner_matchers(&reach.matchers),
            projection: inner_projection(&reach.projection),
            ..reach.clone()
        };
        let chosen = self.chosen(&reach.matchers);
        let part = |tenant| Part {
            caller: Caller {
                tenant,
                ..self.clone()
            },
            reach: inner.clone(),
            marked: Some(reach.projection.clone()),
        };
        chosen.map(part).collect()
    }

    /// The tenants that matchers leave.
    pub(crate) fn chosen<'a>(
        &'a self,
        matchers: &'a [Matcher],
    ) -> impl Iterator<Item = TenantId> + 'a {
        let of_tenant = matchers.iter().filter(|m| m.name() == TENANT_LABEL);
        let of_tenant: Vec<&Matcher> = of_tenant.collect();
        self.tenant
            .members()
            .filter(move |tenant| of_tenant.iter().all(|m| m.matches(tenant.as_str())))
    }
}

impl Part {
    /// Marks what the tenant answered.
    ///
    /// Errors: no memory for the labels.
    pub(crate) fn mark(&self, lists: &mut [Vec<SelectedSeries>], turn: &Turn) -> Result<(), Error> {
        let Some(projection) = &self.marked else {
            return Ok(());
        };
        for series in lists.iter_mut().flatten() {
            let marked = marked(&series.labels, &self.caller.tenant);
            series.labels = projection.apply(&marked);
            let more = TENANT_LABEL.len() + self.caller.tenant.as_str().len();
            if !turn.account.take(more as u64) {
                return Err(turn.account.refusal());
            }
        }
        Ok(())
    }

    /// The name under which the tenant knows a label; `None` for that of the tenant itself.
    pub(crate) fn inner_name<'n>(&self, name: &'n str) -> Option<&'n str> {
        match name {
            TENANT_LABEL if self.marked.is_some() => None,
            ORIGINAL_LABEL if self.marked.is_some() => Some(TENANT_LABEL),
            name => Some(name),
        }
    }

    /// Names of labels as the whole has them: that of the tenant is one of them, also where it has no series.
    pub(crate) fn outer_names(&self, names: &mut Vec<String>) {
        if self.marked.is_none() {
            return;
        }
        for name in names.iter_mut().filter(|name| *name == TENANT_LABEL) {
            *name = ORIGINAL_LABEL.to_owned();
        }
        names.push(TENANT_LABEL.to_owned());
    }
}

fn marked(labels: &Labels, tenant: &TenantId) -> Labels {
    let renamed = labels.iter().map(|(name, value)| match name {
        TENANT_LABEL => (ORIGINAL_LABEL, value),
        name => (name, value),
    });
    let mut pairs: Vec<(&str, &str)> = renamed.collect();
    // A series may have been stored under that name, by whomever: the label of the tenant is the one that counts.
    pairs.sort_by_key(|(name, _)| *name);
    pairs.dedup_by_key(|(name, _)| *name);
    pairs.push((TENANT_LABEL, tenant.as_str()));
    Labels::from_pairs(pairs).expect("labels with one more, none twice")
}

fn inner_matchers(matchers: &[Matcher]) -> Arc<[Matcher]> {
    let inner = matchers.iter().filter(|m| m.name() != TENANT_LABEL);
    let rename = |m: &Matcher| match m.name() {
        ORIGINAL_LABEL => Matcher::new(m.op(), TENANT_LABEL, m.value())
            .expect("it was a matcher under another name"),
        _ => m.clone(),
    };
    inner.map(rename).collect()
}

fn inner_projection(projection: &Projection) -> Projection {
    match projection {
        Projection::All => Projection::All,
        Projection::Only(names) => {
            let wanted = names.iter().map(|name| match &**name {
                ORIGINAL_LABEL => TENANT_LABEL,
                name => name,
            });
            Projection::only(wanted)
        }
    }
}

#[cfg(test)]
mod tests {
    use model::MatchOp;

    use super::*;

    fn caller(tenant: TenantId) -> Caller {
        Caller {
            tenant,
            limits: Arc::new(model::TenantLimits::unlimited()),
            now_ms: 0,
            client: Arc::default(),
        }
    }

    fn reach(matchers: Vec<Matcher>, projection: Projection) -> Reach {
        Reach {
            matchers: matchers.into(),
            min_time: 0,
            max_time: 1,
            projection,
            newest: false,
            windows: None,
        }
    }

    fn joined(names: &[&str]) -> TenantId {
        let ids: Vec<_> = names.iter().map(|n| TenantId::new(n).unwrap()).collect();
        TenantId::joined(&ids)
    }

    #[test]
    fn matchers_on_the_tenant_choose_tenants_and_are_not_passed_on() {
        let of = |op, value: &str| Matcher::new(op, TENANT_LABEL, value).unwrap();
        let up = Matcher::equal("__name__", "up");
        let original = Matcher::equal(ORIGINAL_LABEL, "x");
        let matchers = vec![
            up.clone(),
            of(MatchOp::Regex, "a|b|x"),
            of(MatchOp::NotEqual, "b"),
            original,
        ];
        let whole = reach(matchers, Projection::only(["job", ORIGINAL_LABEL]));
        let parts = caller(joined(&["c", "b", "a"])).parts(&whole);
        let tenants: Vec<_> = parts.iter().map(|p| p.caller.tenant.as_str()).collect();
        assert_eq!(tenants, ["a"]);
        let inner = [up, Matcher::equal(TENANT_LABEL, "x")];
        assert_eq!(*parts[0].reach.matchers, inner);
        let projection = Projection::only([TENANT_LABEL, "job"]);
        assert_eq!(parts[0].reach.projection, projection);
    }

    #[test]
    fn a_tenant_by_itself_is_asked_as_it_was_before() {
        let whole = reach(
            vec![Matcher::equal(TENANT_LABEL, "z")],
            Projection::only([TENANT_LABEL]),
        );
        let parts = caller(joined(&["a"])).parts(&whole);
        assert_eq!((parts.len(), &parts[0].reach), (1, &whole));
        assert_eq!(parts[0].inner_name(TENANT_LABEL), Some(TENANT_LABEL));
    }

    #[test]
    fn a_label_of_that_name_is_kept_under_another() {
        let labels = Labels::from_pairs([("__name__", "up"), (TENANT_LABEL, "fooled")]).unwrap();
        let tenant = TenantId::new("a").unwrap();
        let wanted = Labels::from_pairs([
            ("__name__", "up"),
            (TENANT_LABEL, "a"),
            (ORIGINAL_LABEL, "fooled"),
        ]);
        assert_eq!(marked(&labels, &tenant), wanted.unwrap());
    }
}
