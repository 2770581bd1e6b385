//! Which queries an operator means: the attributes of `query_rejection` and `query_priority`, and whether a request has them.
//!
//! Every attribute that is set must hold; one that is not set is not looked at, so that a rule without any holds for all. Names and
//! meaning are those of Cortex. Source: Cortex `pkg/util/validation/limits.go`, `pkg/querier/tripperware/query_attribute_matcher.go`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use crate::re2;

/// A regular expression that may match anywhere in a text. Equal texts are equal.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: Arc<Regex>,
}

impl Pattern {
    /// Compiles it. Errors: why it is none, in the words of Go.
    pub fn new(text: &str) -> Result<Pattern, String> {
        Ok(Pattern {
            text: text.to_owned(),
            regex: Arc::new(re2::anywhere(text)?),
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn is_in(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Two durations of which zero is not looked at: from the first on, up to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Within {
    /// `min`, or `start` of a window.
    pub least: Duration,
    /// `max`, or `end` of a window.
    pub most: Duration,
}

impl Within {
    /// Whether nothing is set.
    pub fn is_unset(&self) -> bool {
        self.least.is_zero() && self.most.is_zero()
    }

    fn holds(&self, value_ms: i64) -> bool {
        let value = i128::from(value_ms);
        let ms = |duration: Duration| duration.as_millis() as i128;
        (self.least.is_zero() || value >= ms(self.least))
            && (self.most.is_zero() || value <= ms(self.most))
    }
}

/// What a query must be like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryAttribute {
    /// `query`, `query_range`, `series`, `labels` or `label_values`; empty: any.
    pub api_type: String,
    /// In the text of the query, or of one of the selectors.
    pub regex: Option<Pattern>,
    /// How long ago the data may begin that is read, and how long ago it must end, both rounded by a minute.
    pub time_window: Within,
    /// How long a time the data reaches over.
    pub time_range_limit: Within,
    /// The step; of range queries only.
    pub query_step_limit: Within,
    /// In the header `User-Agent`.
    pub user_agent_regex: Option<Pattern>,
    /// The header `X-Dashboard-Uid`, which Grafana sends; not looked at for requests of series and labels.
    pub dashboard_uid: String,
    /// The header `X-Panel-Id`; likewise.
    pub panel_id: String,
}

/// `query_rejection`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryRejection {
    /// Whether it is looked at.
    pub enabled: bool,
    /// What fits one of these is refused.
    pub query_attributes: Vec<QueryAttribute>,
}

/// `query_priority`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryPriority {
    /// Whether it is looked at.
    pub enabled: bool,
    /// Of queries that fit none of the priorities.
    pub default_priority: i64,
    /// The first that fits counts.
    pub priorities: Vec<Priority>,
}

/// One of its priorities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Priority {
    /// The higher ones go first.
    pub priority: i64,
    /// Queries that fit one of these.
    pub query_attributes: Vec<QueryAttribute>,
}

/// A request, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// See [`QueryAttribute::api_type`].
    pub api_type: &'a str,
    /// The query, or the selectors.
    pub texts: &'a [String],
    /// First and last time of the data that is read, milliseconds; where it is known to be bounded.
    pub data: Option<(i64, i64)>,
    /// Of a range query, milliseconds.
    pub step_ms: Option<i64>,
    /// `User-Agent`.
    pub user_agent: &'a str,
    /// `X-Dashboard-Uid`.
    pub dashboard_uid: &'a str,
    /// `X-Panel-Id`.
    pub panel_id: &'a str,
    /// The clock.
    pub now_ms: i64,
}

const MINUTE_MS: i64 = 60_000;

impl QueryAttribute {
    /// Whether the request has it.
    pub fn fits(&self, asked: &Asked<'_>) -> bool {
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let of_query = matches!(asked.api_type, "query" | "query_range");
        let in_one = |pattern: &Pattern| asked.texts.iter().any(|text| pattern.is_in(text));
        is(&self.api_type, asked.api_type)
            && self.regex.as_ref().is_none_or(in_one)
            && self.is_in_window(asked)
            && self.is_in_range(asked)
            && asked
                .step_ms
                .is_none_or(|step| self.query_step_limit.holds(step))
            && (self.user_agent_regex.as_ref()).is_none_or(|agent| agent.is_in(asked.user_agent))
            && (!of_query
                || is(&self.dashboard_uid, asked.dashboard_uid)
                    && is(&self.panel_id, asked.panel_id))
    }

    /// Whether the times of the data must be known to tell.
    pub fn looks_at_data(&self) -> bool {
        !self.time_window.is_unset() || !self.time_range_limit.is_unset()
    }

    fn is_in_window(&self, asked: &Asked<'_>) -> bool {
        let window = &self.time_window;
        if window.is_unset() {
            return true;
        }
        let Some((first, last)) = asked.data else {
            return false;
        };
        let ago = |duration: Duration, slack: i64| {
            let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            let time = asked.now_ms.saturating_sub(ms).saturating_add(slack);
            time.saturating_sub(time.rem_euclid(MINUTE_MS))
        };
        (window.least.is_zero() || first >= ago(window.least, -MINUTE_MS))
            && (window.most.is_zero() || last <= ago(window.most, MINUTE_MS))
    }

    fn is_in_range(&self, asked: &Asked<'_>) -> bool {
        self.time_range_limit.is_unset()
            || asked.data.is_some_and(|(first, last)| {
                self.time_range_limit.holds(last.saturating_sub(first))
            })
    }
}

impl QueryRejection {
    /// Whether the request is refused.
    pub fn refuses(&self, asked: &Asked<'_>) -> bool {
        self.enabled && fits_one(&self.query_attributes, asked)
    }

    /// See [`QueryAttribute::looks_at_data`].
    pub fn looks_at_data(&self) -> bool {
        self.enabled && (self.query_attributes.iter()).any(QueryAttribute::looks_at_data)
    }

    /// What either refuses.
    #[must_use]
    pub fn and(&self, other: &QueryRejection) -> QueryRejection {
        let both = [self, other].into_iter().filter(|rules| rules.enabled);
        QueryRejection {
            enabled: self.enabled || other.enabled,
            query_attributes: both.flat_map(|r| r.query_attributes.clone()).collect(),
        }
    }
}

impl QueryPriority {
    /// The priority of a request.
    pub fn of(&self, asked: &Asked<'_>) -> i64 {
        if !self.enabled {
            return 0;
        }
        let found = (self.priorities.iter()).find(|one| fits_one(&one.query_attributes, asked));
        found.map_or(self.default_priority, |one| one.priority)
    }

    /// See [`QueryAttribute::looks_at_data`].
    pub fn looks_at_data(&self) -> bool {
        let mut attributes = self.priorities.iter().flat_map(|one| &one.query_attributes);
        self.enabled && attributes.any(QueryAttribute::looks_at_data)
    }
}

fn fits_one(attributes: &[QueryAttribute], asked: &Asked<'_>) -> bool {
    attributes.iter().any(|one| one.fits(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn asked<'a>(texts: &'a [String], data: Option<(i64, i64)>) -> Asked<'a> {
        Asked {
            api_type: "query_range",
            texts,
            data,
            step_ms: Some(60_000),
            user_agent: "Grafana/11",
            dashboard_uid: "d1",
            panel_id: "7",
            now_ms: 100 * HOUR,
        }
    }

    fn hours(least: u64, most: u64) -> Within {
        Within {
            least: Duration::from_secs(least * 3600),
            most: Duration::from_secs(most * 3600),
        }
    }

    #[test]
    fn every_attribute_that_is_set_must_hold() {
        let texts = ["sum(rate(node_cpu[5m]))".to_owned()];
        let asked = asked(&texts, Some((90 * HOUR, 99 * HOUR)));
        let one = QueryAttribute::default;
        let pattern = |text| Some(Pattern::new(text).unwrap());
        let step = |least, most| Within {
            least: Duration::from_secs(least),
            most: Duration::from_secs(most),
        };
        for (fits, attribute) in [
            (true, one()),
            (
                true,
                QueryAttribute {
                    api_type: "query_range".into(),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    api_type: "query".into(),
                    ..one()
                },
            ),
            (
                true,
                QueryAttribute {
                    regex: pattern("node_.*\\["),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    regex: pattern("^node"),
                    ..one()
                },
            ),
            (
                true,
                QueryAttribute {
                    time_window: hours(10, 1),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    time_window: hours(9, 0),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    time_window: hours(0, 2),
                    ..one()
                },
            ),
            (
                true,
                QueryAttribute {
                    time_range_limit: hours(9, 9),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    time_range_limit: hours(10, 0),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    time_range_limit: hours(0, 8),
                    ..one()
                },
            ),
            (
                true,
                QueryAttribute {
                    query_step_limit: step(60, 60),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    query_step_limit: step(61, 0),
                    ..one()
                },
            ),
            (
                true,
                QueryAttribute {
                    user_agent_regex: pattern("^Grafana"),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    user_agent_regex: pattern("curl"),
                    ..one()
                },
            ),
            (
                true,
                QueryAttribute {
                    dashboard_uid: "d1".into(),
                    panel_id: "7".into(),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    panel_id: "8".into(),
                    ..one()
                },
            ),
            (
                false,
                QueryAttribute {
                    dashboard_uid: "d1".into(),
                    api_type: "series".into(),
                    ..one()
                },
            ),
        ] {
            assert_eq!(attribute.fits(&asked), fits, "{attribute:?}");
        }
    }

    #[test]
    fn what_is_not_known_to_be_bounded_fits_no_window() {
        let texts = [String::new()];
        let unbounded = asked(&texts, None);
        let window = QueryAttribute {
            time_window: hours(1, 0),
            ..Default::default()
        };
        let range = QueryAttribute {
            time_range_limit: hours(0, 1),
            ..Default::default()
        };
        assert!(!window.fits(&unbounded) && !range.fits(&unbounded));
        // Headers of panels and steps are of no matter to requests of series.
        let series = Asked {
            api_type: "series",
            step_ms: None,
            ..unbounded
        };
        let panel = QueryAttribute {
            panel_id: "8".into(),
            ..Default::default()
        };
        let step = QueryAttribute {
            query_step_limit: hours(5, 0),
            ..Default::default()
        };
        assert!(panel.fits(&series) && step.fits(&series));
    }

    #[test]
    fn the_first_priority_that_fits_counts_and_nothing_does_when_it_is_off() {
        let texts = ["up".to_owned()];
        let asked = asked(&texts, None);
        let of = |priority, api_type: &str| Priority {
            priority,
            query_attributes: vec![QueryAttribute {
                api_type: api_type.into(),
                ..Default::default()
            }],
        };
        let mut rules = QueryPriority {
            enabled: true,
            default_priority: -1,
            priorities: vec![of(3, "query"), of(5, "query_range"), of(9, "query_range")],
        };
        assert_eq!(rules.of(&asked), 5);
        assert_eq!(
            rules.of(&Asked {
                api_type: "series",
                ..asked
            }),
            -1
        );
        rules.enabled = false;
        assert_eq!(rules.of(&asked), 0);
        let all = vec![QueryAttribute::default()];
        let off = QueryRejection {
            enabled: false,
            query_attributes: all.clone(),
        };
        let on = QueryRejection {
            enabled: true,
            query_attributes: all,
        };
        assert!(!off.refuses(&asked) && on.refuses(&asked));
        assert!(off.and(&on).refuses(&asked));
        let none = QueryRejection {
            enabled: true,
            query_attributes: Vec::new(),
        };
        assert!(
            !off.and(&none).refuses(&asked),
            "rules that are off stay off"
        );
    }
}
