//! Label sets of one tenant, in their order, as columns: page by page, label by label.
//!
//! A series is its place in the order of all label sets of its tenant; nothing else names it. Series with the same label names share a
//! *shape*; the values of one label of a shape are a column of symbol numbers, which sorted neighbours keep small. The stable identity of
//! a series is a function of tenant and labels (`docs/formats/identity.md`) and is not kept.

use model::varint;

use crate::error::Malformed;
use crate::ints::{self, Effort, take_byte, take_count};
use crate::limits::{LABELS_MAX, SERIES_PER_PAGE};
use crate::values::take_u32;

/// Label sets as pairs of symbol numbers (name, value), back to back.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rows {
    pairs: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

impl Rows {
    pub(crate) fn push(&mut self, pairs: impl Iterator<Item = (u32, u32)>) {
        self.pairs.extend(pairs);
        let end = u32::try_from(self.pairs.len()).expect("series and labels are bounded");
        self.ends.push(end);
    }

    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, row: usize) -> &[(u32, u32)] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.pairs[start as usize..self.ends[row] as usize]
    }

    pub(crate) fn pair_count(&self) -> usize {
        self.pairs.len()
    }

    /// Replaces every number by its rank.
    pub(crate) fn renumber(&mut self, ranks: &[u32]) {
        for (name, value) in &mut self.pairs {
            *name = ranks[*name as usize];
            *value = ranks[*value as usize];
        }
    }
}

/// Appends numbers with a byte for their order: themselves (0) or their differences (1), the cheaper.
pub(crate) fn put_column(column: &[i64], out: &mut Vec<u8>) {
    let mut differences = column.to_vec();
    for i in (1..column.len()).rev() {
        differences[i] = column[i].wrapping_sub(column[i - 1]);
    }
    let differ = ints::estimate(&differences) < ints::estimate(column);
    out.push(u8::from(differ));
    let chosen = if differ { &differences } else { column };
    ints::encode(chosen, Effort::Fast, out);
}

/// Reads what [`put_column`] wrote.
pub(crate) fn take_column(bytes: &mut &[u8], count: usize) -> Result<Vec<i64>, Malformed> {
    let order = take_byte(bytes, "order of a column")?;
    let mut column = vec![0; count];
    ints::decode(bytes, &mut column)?;
    match order {
        0 => {}
        1 => {
            let mut sum = 0i64;
            for slot in &mut column {
                sum = sum.wrapping_add(*slot);
                *slot = sum;
            }
        }
        other => return Err(Malformed::new("order of a column", "0 or 1", other)),
    }
    Ok(column)
}

/// As [`take_column`], every number at most `max`.
pub(crate) fn take_numbers(
    bytes: &mut &[u8],
    count: usize,
    max: u32,
    what: &'static str,
) -> Result<Vec<u32>, Malformed> {
    let column = take_column(bytes, count)?;
    column
        .into_iter()
        .map(|number| {
            u32::try_from(number)
                .ok()
                .filter(|&n| n <= max)
                .ok_or_else(|| Malformed::new(what, format!("at most {max}"), number))
        })
        .collect()
}

/// Appends a payload with the rows of `range`.
pub(crate) fn encode_page(rows: &Rows, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
    assert!(!range.is_empty() && range.len() <= SERIES_PER_PAGE);
    let mut shapes: Vec<Vec<u32>> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut shape_of = Vec::with_capacity(range.len());
    for row in range.clone() {
        let names = || rows.get(row).iter().map(|(name, _)| *name);
        let known = shapes
            .iter()
            .position(|shape| shape.iter().copied().eq(names()));
        let shape = known.unwrap_or_else(|| {
            shapes.push(names().collect());
            members.push(Vec::new());
            shapes.len() - 1
        });
        members[shape].push(row);
        shape_of.push(shape as i64);
    }
    varint::put_u64(out, range.len() as u64);
    varint::put_u64(out, shapes.len() as u64);
    for shape in &shapes {
        varint::put_u64(out, shape.len() as u64);
        shape
            .iter()
            .for_each(|&name| varint::put_u64(out, u64::from(name)));
    }
    put_column(&shape_of, out);
    for (shape, members) in shapes.iter().zip(&members) {
        for label in 0..shape.len() {
            let column: Vec<i64> = members
                .iter()
                .map(|&row| i64::from(rows.get(row)[label].1))
                .collect();
            put_column(&column, out);
        }
    }
}

/// Reads a payload of `count` rows; symbols are below `symbols`. Names ascend within a row; values are not empty only if the symbol is not.
pub(crate) fn decode_page(payload: &[u8], count: usize, symbols: u32) -> Result<Rows, Malformed> {
    let mut rest = payload;
    let rest = &mut rest;
    let told = take_count(rest, SERIES_PER_PAGE, "series of a page")?;
    if told != count || count == 0 {
        return Err(Malformed::new("series of a page", count, told));
    }
    let last_symbol = symbols.saturating_sub(1);
    let shape_count = take_count(rest, count, "shapes of a page")?;
    let mut shapes = Vec::with_capacity(shape_count);
    for _ in 0..shape_count {
        let labels = take_count(rest, LABELS_MAX, "labels of a shape")?;
        let mut names = Vec::with_capacity(labels.min(rest.len()));
        for _ in 0..labels {
            let name = take_u32(rest, "name of a label")?;
            if name > last_symbol || names.last().is_some_and(|&last| last >= name) {
                return Err(Malformed::new(
                    "name of a label",
                    format!("ascending, at most {last_symbol}"),
                    name,
                ));
            }
            names.push(name);
        }
        shapes.push(names);
    }
    let top = (shape_count as u32).saturating_sub(1);
    let shape_of = take_numbers(rest, count, top, "number of a shape")?;
    let mut members = vec![0usize; shape_count];
    for &shape in &shape_of {
        let slot = members.get_mut(shape as usize);
        *slot.ok_or_else(|| Malformed::new("number of a shape", "a shape", shape))? += 1;
    }
    let mut columns: Vec<Vec<Vec<u32>>> = Vec::with_capacity(shape_count);
    for (shape, &members) in shapes.iter().zip(&members) {
        let mut of_shape = Vec::with_capacity(shape.len());
        for _ in shape {
            of_shape.push(take_numbers(
                rest,
                members,
                last_symbol,
                "value of a label",
            )?);
        }
        columns.push(of_shape);
    }
    if !rest.is_empty() {
        return Err(Malformed::new("bytes behind series", 0, rest.len()));
    }
    let mut rows = Rows::default();
    let mut next = vec![0usize; shape_count];
    for &shape in &shape_of {
        let shape = shape as usize;
        let at = next[shape];
        next[shape] += 1;
        let values = columns[shape].iter().map(|column| column[at]);
        rows.push(shapes[shape].iter().copied().zip(values));
    }
    Ok(rows)
}
