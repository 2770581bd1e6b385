//! Every notation of times, durations and forms, good and bad, and the words that bad ones are told in.

use super::*;

fn form(query: &str) -> Form {
    Form::parse(query, b"").unwrap()
}

#[test]
fn times_are_seconds_or_rfc_3339() {
    for (text, want) in [
        ("0", 0),
        ("1435781451.781", 1_435_781_451_781),
        ("-1.5", -1_500),
        ("1e9", 1_000_000_000_000),
        ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
        ("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555),
        ("2015-06-03T13:21:58Z", 1_433_337_718_000),
        ("1969-12-31T23:59:59.5Z", -500),
        ("2000-02-29T00:00:00Z", 951_782_400_000),
        ("+Inf", i64::MAX),
        ("-1e300", i64::MIN),
        ("-292273086-05-16T16:47:06Z", i64::MIN),
        ("292277025-08-18T07:12:54.999999999Z", i64::MAX),
    ] {
        assert_eq!(parse_time(text), Ok(want), "{text}");
    }
    for text in [
        "",
        "x",
        "NaN",
        "2015-06-03",
        "2015-02-29T00:00:00Z",
        "2015-06-03T24:00:00Z",
        "2015-06-03T13:21:58",
        "2015-06-03T13:21:58.Z",
        "1_000",
        "12:00",
        "2015-06-03T1:2:3Z",
        "2015-06-03T13:21:58+1:00",
        "ä",
    ] {
        assert_eq!(
            parse_time(text),
            Err(format!("cannot parse {text:?} to a valid timestamp"))
        );
    }
}

#[test]
fn durations_are_seconds_or_units() {
    for (text, want) in [
        ("60", 60_000),
        ("0.5", 500),
        ("1m30s", 90_000),
        ("100ms", 100),
        ("1d", 86_400_000),
        ("1y", 31_536_000_000),
        ("-10", -10_000),
        ("0", 0),
    ] {
        assert_eq!(parse_duration(text), Ok(want), "{text}");
    }
    for text in [
        "",
        "often",
        "1s1m",
        "1m1m",
        "m",
        "5x",
        "NaN",
        "1.5m",
        "99999999999999y",
        "-5m",
        "5 m",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert!(
        parse_duration("1e300")
            .unwrap_err()
            .contains("overflows int64")
    );
}

#[test]
fn a_bad_parameter_is_told_in_the_words_of_prometheus() {
    let told = |query: &str| form(query).range().unwrap_err().to_string();
    assert_eq!(
        form("time=x").instant(0).unwrap_err().to_string(),
        "invalid parameter \"time\": Invalid time value for 'time': cannot parse \"x\" to a valid timestamp"
    );
    assert_eq!(
        told("end=1&step=1"),
        "invalid parameter \"start\": cannot parse \"\" to a valid timestamp"
    );
    assert_eq!(
        told("start=2&end=1&step=1"),
        "invalid parameter \"end\": end timestamp must not be before start time"
    );
    assert!(told("start=1&end=2&step=0").starts_with(
        "invalid parameter \"step\": zero or negative query resolution step widths are not accepted"
    ));
    assert!(told("start=1&end=2&step=").contains("cannot parse \"\" to a valid duration"));
    assert!(told("start=0&end=11001&step=1").contains("11,000 points"));
    assert!(form("limit=-1").limit("limit").is_err() && form("limit=many").limit("limit").is_err());
    assert!(form("lookback_delta=-1").lookback().is_err());
    // As Prometheus: none at all is the default.
    assert_eq!(form("lookback_delta=0").lookback(), Ok(None));
}

#[test]
fn eleven_thousand_steps_are_allowed_and_extreme_ranges_do_not_overflow() {
    let range = form("start=0&end=11000&step=1").range();
    assert_eq!(
        range,
        Ok(Times::Range {
            start: 0,
            end: 11_000_000,
            step: 1000
        })
    );
    assert_eq!(
        form("start=-1e300&end=1e300&step=1").range(),
        Err(ParamError::Resolution)
    );
    assert!(form("start=0&end=1&step=0.0001").range().is_err());
}

#[test]
fn the_body_comes_before_the_url_and_lists_keep_their_order() {
    let form = Form::parse(
        "query=url&match[]=c",
        b"query=body&match%5B%5D=a&match[]=b+%26+1",
    )
    .unwrap();
    assert_eq!(form.first("query"), Some("body"));
    assert_eq!(form.all("match[]"), ["a", "b & 1", "c"]);
    assert_eq!(form.first("absent"), None);
}

#[test]
fn malformed_encodings_are_refused() {
    for query in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
        assert_eq!(Form::parse(query, b""), Err(FormError), "{query}");
    }
    assert_eq!(Form::parse("", b"a=\xff"), Err(FormError));
    let many = "a=1&".repeat(10_001);
    assert_eq!(Form::parse(&many, b""), Err(FormError));
    assert_eq!(form("&&a&b=&").first("a"), Some(""));
}
