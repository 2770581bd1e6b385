//! The JSON of the HTTP API, written straight into bytes.
//!
//! Step 9 of the way of a query. No tree of values, no serde: a result of millions of samples costs the bytes it makes. Everything
//! appends to a `Vec<u8>`; [`Answer`] cuts a whole response into pieces so that it can be streamed.
//!
//! ```text
//! {"status":"success","data":<data>,"warnings":[..],"infos":[..]}
//! {"status":"error","errorType":"bad_data","error":"..."}
//! data of a query: {"resultType":"vector","result":[..],"stats":{..}}
//! sample: [<seconds>,"<value>"]
//! ```
//!
//! Numbers are written as Prometheus writes them: values as `strconv.FormatFloat(v, 'f', -1, 64)` in quotes, times as
//! seconds with the milliseconds behind the point. Lists are never `null`. Warnings and infos are left out where there are none.
//! Source: Prometheus `web/api/v1/json_codec.go`, `util/jsonutil/marshal.go`.

mod answer;
mod histogram;
mod number;
mod text;
mod value;

pub use answer::{Answer, ListAnswer, Notes, put_error, put_success};
pub use number::{put_float, put_time, put_u64};
pub use text::put_string;
pub use value::{
    put_exemplars, put_label_sets, put_labels, put_metadata, put_metadata_map, put_query_value,
    put_strings,
};

#[cfg(test)]
mod tests;
