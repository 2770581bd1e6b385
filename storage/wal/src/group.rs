//! The group: one frame being filled in an aligned buffer.
//!
//! All that is appended while the disk is busy becomes one frame, hence one write. Records are written in place; a samples record stays
//! open and takes samples until another record or the end of the group closes it. The first group of a file leaves room for the header block in
//! front of its frame, so that both go out in one write.

use model::SeriesRef;
use reactor::Buffer;

use crate::frame::{FileHeader, FrameHeader, frame_bytes};
use crate::limits::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, SAMPLE_ROOM, SAMPLES_PREFIX_BYTES,
};
use crate::record::{Kind, put_header};
use crate::samples;

/// A frame being filled.
#[derive(Debug)]
pub(crate) struct Group {
    /// Segment it goes to.
    pub(crate) sequence: u32,
    /// Where in the file the write begins: 0 for the first group, whose write begins with the header block.
    pub(crate) offset: u64,
    /// Commit number; given when it is closed.
    pub(crate) number: u64,
    /// Log position of its first record byte.
    pub(crate) lsn: u64,
    buf: Buffer,
    /// Start of the frame in `buf`: one block in for the first group, else 0.
    start: usize,
    /// Record bytes so far.
    len: usize,
    /// Record bytes at most.
    capacity: usize,
    open: Option<OpenSamples>,
}

/// A samples record that can take more.
#[derive(Debug)]
struct OpenSamples {
    /// Its header's place among the record bytes.
    header: usize,
    encoder: samples::Encoder,
}

impl Group {
    /// An empty group at `offset` whose write takes at most `bytes_max`.
    pub(crate) fn new(
        buf: Buffer,
        sequence: u32,
        offset: u64,
        lsn: u64,
        bytes_max: usize,
    ) -> Group {
        let start = if offset == 0 { BLOCK_BYTES } else { 0 };
        let bytes_max = bytes_max.min(buf.len()) / BLOCK_BYTES * BLOCK_BYTES;
        assert!(
            bytes_max > start + FRAME_HEADER_BYTES,
            "a group of {bytes_max} bytes"
        );
        let capacity = bytes_max - start - FRAME_HEADER_BYTES;
        Group {
            sequence,
            offset,
            number: 0,
            lsn,
            buf,
            start,
            len: 0,
            capacity,
            open: None,
        }
    }

    /// Record bytes left.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.capacity - self.len
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Position after its last record.
    pub(crate) fn end_lsn(&self) -> u64 {
        self.lsn + self.len as u64
    }

    /// Appends a whole record, whose body comes in two parts. The caller has checked [`Group::room`].
    pub(crate) fn record(&mut self, kind: Kind, prefix: &[u8], body: &[u8]) {
        let len = prefix.len() + body.len();
        assert!(
            RECORD_HEADER_BYTES + len <= self.room(),
            "the caller reserves room"
        );
        self.close_samples();
        let (header, rest) = self.free().split_at_mut(RECORD_HEADER_BYTES);
        put_header(header, kind, len);
        rest[..prefix.len()].copy_from_slice(prefix);
        rest[prefix.len()..len].copy_from_slice(body);
        self.len += RECORD_HEADER_BYTES + len;
    }

    /// Appends a sample to the open samples record, beginning one if need be. The caller has checked that [`SAMPLE_ROOM`] is left.
    #[inline]
    pub(crate) fn sample(&mut self, series: SeriesRef, time: i64, value: f64, base: Option<f64>) {
        assert!(self.room() >= SAMPLE_ROOM, "the caller reserves room");
        if self.open.is_none() {
            self.begin_samples(series, time);
        }
        let at = self.start + FRAME_HEADER_BYTES + self.len;
        let open = self.open.as_mut().expect("begun above");
        self.len += open
            .encoder
            .put(&mut self.buf[at..], series.0, time, value, base);
    }

    #[cold]
    fn begin_samples(&mut self, series: SeriesRef, time: i64) {
        let header = self.len;
        let out = self.free();
        let encoder = samples::Encoder::begin(series.0, time, &mut out[RECORD_HEADER_BYTES..]);
        self.open = Some(OpenSamples { header, encoder });
        self.len += RECORD_HEADER_BYTES + SAMPLES_PREFIX_BYTES;
    }

    fn close_samples(&mut self) {
        if let Some(open) = self.open.take() {
            let body = self.len - open.header - RECORD_HEADER_BYTES;
            assert!(
                body > SAMPLES_PREFIX_BYTES,
                "a samples record is begun with a sample"
            );
            let at = self.start + FRAME_HEADER_BYTES + open.header;
            put_header(&mut self.buf[at..], Kind::Samples, body);
        }
    }

    fn free(&mut self) -> &mut [u8] {
        &mut self.buf[self.start + FRAME_HEADER_BYTES + self.len..]
    }

    /// Nothing more is appended: completes the last record. Needed before [`Group::seal`].
    pub(crate) fn close(&mut self) {
        self.close_samples();
    }

    /// Bytes of its write.
    pub(crate) fn bytes(&self) -> usize {
        self.start + frame_bytes(self.len)
    }

    /// Completes header, padding and checksum, and hands over the buffer with the number of bytes to write.
    ///
    /// `file` is needed for the first group of a file.
    pub(crate) fn seal(
        mut self,
        file: Option<&FileHeader>,
        frame: &FrameHeader,
    ) -> (Buffer, usize) {
        assert!(self.open.is_none(), "close comes before seal");
        assert_eq!(frame.len as usize, self.len);
        assert_eq!(
            file.is_some(),
            self.start > 0,
            "the header goes with the first frame"
        );
        let bytes = self.bytes();
        assert!(bytes.is_multiple_of(BLOCK_BYTES) && bytes <= self.buf.len());
        if let Some(file) = file {
            assert_eq!(file.sequence, self.sequence);
            file.encode(&mut self.buf[..BLOCK_BYTES]);
        }
        self.buf[self.start + FRAME_HEADER_BYTES + self.len..bytes].fill(0);
        frame.seal(&mut self.buf[self.start..]);
        (self.buf, bytes)
    }

    /// Gives back the buffer of a group that is not wanted.
    pub(crate) fn into_buffer(self) -> Buffer {
        self.buf
    }
}
