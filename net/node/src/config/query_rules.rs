//! Rules about queries, as the file and the flags write them: `query_rejection.query_attributes` and `query_priority.priorities`.
//!
//! Lists in YAML, of which JSON is a part; shown as JSON that gives the same rules again. What is not known is an error that names it.

use std::time::Duration;

use model::{Pattern, Priority, QueryAttribute, Within};
use serde_json::{Map, Value};

use super::setting::Setting;

/// What rules can be about.
const API_TYPES: [&str; 5] = ["query", "query_range", "series", "labels", "label_values"];

impl Setting for Vec<QueryAttribute> {
    const KIND: &'static str = "attributes";
    fn parse(text: &str) -> Result<Vec<QueryAttribute>, String> {
        list(text)?.iter().map(attribute).collect()
    }
    fn show(&self) -> String {
        match self.is_empty() {
            true => String::new(),
            false => shown(self).to_string(),
        }
    }
}

impl Setting for Vec<Priority> {
    const KIND: &'static str = "priorities";
    fn parse(text: &str) -> Result<Vec<Priority>, String> {
        list(text)?.iter().map(priority).collect()
    }
    fn show(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let one = |one: &Priority| {
            serde_json::json!({
                "priority": one.priority,
                "query_attributes": shown(&one.query_attributes),
            })
        };
        Value::Array(self.iter().map(one).collect()).to_string()
    }
}

fn list(text: &str) -> Result<Vec<Value>, String> {
    match super::sources::tree(text).map_err(|e| e.to_string())? {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(format!("expected a list, found {other}")),
    }
}

fn fields<'a>(value: &'a Value, of: &str) -> Result<&'a Map<String, Value>, String> {
    let wrong = || format!("expected fields of {of}, found {value}");
    value.as_object().ok_or_else(wrong)
}

fn scalar(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => Err(format!("{name}: expected a text, found {value}")),
    }
}

fn priority(value: &Value) -> Result<Priority, String> {
    let mut one = Priority::default();
    for (name, value) in fields(value, "a priority")? {
        match name.as_str() {
            "priority" => {
                let wrong = || format!("priority: expected a whole number, found {value}");
                one.priority = value.as_i64().ok_or_else(wrong)?;
            }
            "query_attributes" => {
                let wrong = || format!("query_attributes: expected a list, found {value}");
                let items = value.as_array().ok_or_else(wrong)?;
                one.query_attributes = items.iter().map(attribute).collect::<Result<_, _>>()?;
            }
            "reserved_queriers" if value.as_f64() == Some(0.0) => {}
            "reserved_queriers" => {
                return Err("reserved_queriers: there are no queriers to be reserved".to_owned());
            }
            other => return Err(format!("unknown field {other:?} in a priority")),
        }
    }
    Ok(one)
}

fn attribute(value: &Value) -> Result<QueryAttribute, String> {
    let mut one = QueryAttribute::default();
    for (name, value) in fields(value, "a query attribute")? {
        let text = || scalar(name, value);
        let pattern = || -> Result<Option<Pattern>, String> {
            match text()?.as_str() {
                "" => Ok(None),
                text => Pattern::new(text)
                    .map(Some)
                    .map_err(|e| format!("{name}: {e}")),
            }
        };
        match name.as_str() {
            "api_type" => {
                one.api_type = text()?;
                if !one.api_type.is_empty() && !API_TYPES.contains(&one.api_type.as_str()) {
                    let known = API_TYPES.join(", ");
                    return Err(format!("api_type: {:?} is none of: {known}", one.api_type));
                }
            }
            "regex" => one.regex = pattern()?,
            "user_agent_regex" => one.user_agent_regex = pattern()?,
            "dashboard_uid" => one.dashboard_uid = text()?,
            "panel_id" => one.panel_id = text()?,
            "time_window" => one.time_window = within(name, value, ["start", "end"])?,
            "time_range_limit" => one.time_range_limit = within(name, value, ["min", "max"])?,
            "query_step_limit" => one.query_step_limit = within(name, value, ["min", "max"])?,
            other => return Err(format!("unknown field {other:?} in a query attribute")),
        }
    }
    Ok(one)
}

fn within(of: &str, value: &Value, [least, most]: [&str; 2]) -> Result<Within, String> {
    let mut within = Within::default();
    for (name, value) in fields(value, of)? {
        let text = scalar(name, value)?;
        let duration = Duration::parse(&text).map_err(|e| format!("{of}.{name}: {e}"))?;
        match name.as_str() {
            name if name == least => within.least = duration,
            name if name == most => within.most = duration,
            other => return Err(format!("unknown field {other:?} in {of}")),
        }
    }
    Ok(within)
}

fn shown(attributes: &[QueryAttribute]) -> Value {
    let one = |one: &QueryAttribute| {
        let mut fields = Map::new();
        for (name, text) in [
            ("api_type", one.api_type.as_str()),
            ("regex", one.regex.as_ref().map_or("", Pattern::as_str)),
            (
                "user_agent_regex",
                one.user_agent_regex.as_ref().map_or("", Pattern::as_str),
            ),
            ("dashboard_uid", &one.dashboard_uid),
            ("panel_id", &one.panel_id),
        ] {
            if !text.is_empty() {
                fields.insert(name.to_owned(), text.into());
            }
        }
        for (name, within, [least, most]) in [
            ("time_window", one.time_window, ["start", "end"]),
            ("time_range_limit", one.time_range_limit, ["min", "max"]),
            ("query_step_limit", one.query_step_limit, ["min", "max"]),
        ] {
            if !within.is_unset() {
                let value =
                    serde_json::json!({least: within.least.show(), most: within.most.show()});
                fields.insert(name.to_owned(), value);
            }
        }
        Value::Object(fields)
    };
    Value::Array(attributes.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_cortex_has_them_and_shown_to_be_read_again() {
        let text = "- priority: 5\n  query_attributes:\n  - regex: \"^up\"\n    api_type: query\n    time_window: {start: 1d, end: 5m}\n  \
                    - {user_agent_regex: Grafana, dashboard_uid: x, panel_id: 7, query_step_limit: {max: 1m}}\n- {priority: -2}\n";
        let rules: Vec<Priority> = Setting::parse(text).unwrap();
        assert_eq!((rules[0].priority, rules[1].priority), (5, -2));
        let [first, second] = &rules[0].query_attributes[..] else {
            panic!("{rules:?}")
        };
        assert_eq!(first.time_window.least, Duration::from_secs(86_400));
        assert_eq!(first.time_window.most, Duration::from_secs(300));
        assert_eq!((&*second.panel_id, &*second.dashboard_uid), ("7", "x"));
        assert_eq!(<Vec<Priority> as Setting>::parse(&rules.show()), Ok(rules));
    }

    #[test]
    fn what_is_wrong_in_a_rule_is_named() {
        for (text, wanted) in [
            ("[{regx: x}]", "unknown field \"regx\""),
            ("[{regex: (}]", "regex: error parsing regexp"),
            ("[{api_type: instant}]", "api_type: \"instant\" is none of"),
            (
                "[{time_window: {min: 1h}}]",
                "unknown field \"min\" in time_window",
            ),
            (
                "[{time_range_limit: {min: x}}]",
                "time_range_limit.min: \"x\"",
            ),
            ("{regex: x}", "expected a list"),
            ("[7]", "expected fields of a query attribute"),
        ] {
            let told = <Vec<QueryAttribute> as Setting>::parse(text).unwrap_err();
            assert!(told.contains(wanted), "{text}: {told}");
        }
        let told = <Vec<Priority> as Setting>::parse("[{reserved_queriers: 1}]").unwrap_err();
        assert!(told.contains("reserved_queriers"), "{told}");
    }
}
