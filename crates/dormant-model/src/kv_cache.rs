//! Keys and values of tokens already read, shared between the sequences that have them in common.

use dormant_tensor::Buffer;
use dormant_tensor::attention::{Heads, KeySegment, QuerySegment, attention, store_keys};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::llama::Llama;

/// Index of a segment in a [`KvCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentId(usize);

/// Cached segments. A segment continues its parent; siblings share what came before them.
#[derive(Debug)]
pub struct KvCache {
    heads: Heads,
    segments: Vec<Option<CachedSegment>>,
}

#[derive(Debug)]
struct CachedSegment {
    parent: Option<usize>,
    /// Segments that continue this one, and holders that want it kept.
    users: usize,
    /// Position of the first token in its sequences.
    position: usize,
    len: usize,
    capacity: usize,
    /// Per layer: key panels, then values `[capacity, kv_heads * head_dim]`.
    layers: Vec<Buffer>,
}

impl KvCache {
    /// An empty cache for `model`.
    pub fn new(model: &Llama) -> Self {
        Self { heads: model.heads(), segments: Vec::new() }
    }

    /// Adds an empty segment with room for `capacity` tokens after `parent`. It lives until it is released and
    /// nobody continues it any more.
    pub fn add(&mut self, model: &Llama, parent: Option<SegmentId>, capacity: usize) -> SegmentId {
        let kv = self.heads.kv * self.heads.dim;
        let layer = |_| Buffer::any(self.heads.panel_floats(capacity) + capacity * kv);
        let segment = CachedSegment {
            parent: parent.map(|p| p.0),
            users: 1,
            position: 0,
            len: 0,
            capacity,
            layers: (0..model.config.num_hidden_layers).map(layer).collect(),
        };
        if let Some(parent) = parent {
            self.segments[parent.0].as_mut().expect("a live parent").users += 1;
        }
        let free = self.segments.iter().position(Option::is_none);
        let index = free.unwrap_or(self.segments.len());
        if free.is_some() {
            self.segments[index] = Some(segment);
        } else {
            self.segments.push(Some(segment));
        }
        SegmentId(index)
    }

    /// Gives up a segment. It is freed, and its ancestors with it, once nobody continues it.
    pub fn release(&mut self, segment: SegmentId) {
        let mut next = Some(segment.0);
        while let Some(index) = next {
            let segment = self.segments[index].as_mut().expect("a live segment");
            segment.users -= 1;
            if segment.users > 0 {
                return;
            }
            next = segment.parent;
            self.segments[index] = None;
        }
    }

    fn segment(&self, index: usize) -> &CachedSegment {
        self.segments[index].as_ref().expect("segments are freed only when nobody refers to them")
    }

    /// Position after the last token of `segment`.
    fn end(&self, segment: SegmentId) -> usize {
        let s = self.segment(segment.0);
        s.position + s.len
    }

    fn chain(&self, segment: usize) -> Vec<usize> {
        let mut chain: Vec<usize> =
            std::iter::successors(Some(segment), |&s| self.segment(s).parent).collect();
        chain.reverse();
        chain
    }
}

impl Llama {
    /// Appends tokens to segments of the cache, parents before children, and returns the residual stream after
    /// the last block for all of them, `[T, d_model]`.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a sequence that is too long.
    pub fn extend(&self, cache: &mut KvCache, additions: &[(SegmentId, &[u32])]) -> Result<Buffer> {
        let tokens: Vec<u32> = additions.iter().flat_map(|(_, t)| t.iter().copied()).collect();
        let vocabulary = self.config.vocab_size;
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= vocabulary) {
            return Err(Error::TokenOutOfVocabulary { token, vocabulary });
        }
        let mut positions = Vec::with_capacity(tokens.len());
        for (id, tokens) in additions {
            // A child's position is known only once its parent has been filled, hence not at `add`.
            let position = cache.segment(id.0).parent.map_or(0, |p| cache.end(SegmentId(p)));
            let segment = cache.segments[id.0].as_mut().expect("a live segment");
            segment.position = position;
            assert!(
                segment.len + tokens.len() <= segment.capacity,
                "more tokens than the segment has room for"
            );
            let first = position + segment.len;
            positions.extend(first..first + tokens.len());
            segment.len += tokens.len();
        }
        if let Some(&last) = positions.iter().max()
            && last >= self.max_positions()
        {
            return Err(Error::SequenceTooLong { length: last + 1, limit: self.max_positions() });
        }
        let mut row = 0;
        let mut queries = Vec::with_capacity(additions.len());
        for (id, tokens) in additions {
            queries.push(QuerySegment { row, len: tokens.len(), chain: cache.chain(id.0) });
            row += tokens.len();
        }
        let mut x = self.embed(&tokens);
        for layer in 0..self.layers.len() {
            x = self.block_output(layer, x, &positions, |qkv, out| {
                cache.store(layer, qkv, &queries);
                cache.attend(layer, qkv, &queries, out);
            });
        }
        Ok(x)
    }

    /// Puts all segments of `batch` into the cache below `root`. Returns their ids and the residual stream after
    /// the last block, `[T, d_model]`.
    ///
    /// # Errors
    /// As [`Llama::extend`].
    pub fn prefill(
        &self,
        cache: &mut KvCache,
        batch: &Batch,
        root: Option<SegmentId>,
    ) -> Result<(Vec<SegmentId>, Buffer)> {
        let mut ids: Vec<SegmentId> = Vec::with_capacity(batch.segments.len());
        for segment in &batch.segments {
            let parent = segment.parent.map(|p| ids[p]).or(root);
            ids.push(cache.add(self, parent, segment.len));
        }
        let additions: Vec<(SegmentId, &[u32])> = ids
            .iter()
            .zip(&batch.segments)
            .map(|(&id, s)| (id, &batch.tokens[s.row..s.row + s.len]))
            .collect();
        let hidden = self.extend(cache, &additions)?;
        Ok((ids, hidden))
    }
}

impl CachedSegment {
    fn keys(&self, layer: usize, heads: Heads) -> KeySegment<'_> {
        let (panels, values) = self.layers[layer].split_at(heads.panel_floats(self.capacity));
        KeySegment {
            panels,
            capacity: self.capacity,
            values,
            value_stride: heads.kv * heads.dim,
            len: self.len,
        }
    }
}

impl KvCache {
    /// Puts keys and values of the rows of each query segment at the end of its own segment.
    fn store(&mut self, layer: usize, qkv: &[f32], queries: &[QuerySegment]) {
        let heads = self.heads;
        let (stride, kv) = ((heads.query + 2 * heads.kv) * heads.dim, heads.kv * heads.dim);
        let mut rows_of: Vec<&[f32]> = vec![&[]; self.segments.len()];
        for query in queries {
            let own = *query.chain.last().expect("a chain ends with the segment itself");
            rows_of[own] = &qkv[query.row * stride..(query.row + query.len) * stride];
        }
        self.segments.par_iter_mut().zip(rows_of).filter(|(_, rows)| !rows.is_empty()).for_each(
            |(s, rows)| {
                let segment = s.as_mut().expect("a live segment");
                let start = segment.len - rows.len() / stride;
                let panel_floats = heads.panel_floats(segment.capacity);
                let (panels, values) = segment.layers[layer].split_at_mut(panel_floats);
                store_keys(heads, &rows[heads.query * heads.dim..], stride, panels, segment.capacity, start);
                for (row, value) in rows.chunks_exact(stride).zip(values[start * kv..].chunks_exact_mut(kv)) {
                    value.copy_from_slice(&row[stride - kv..]);
                }
            },
        );
    }

    fn attend(&self, layer: usize, qkv: &[f32], queries: &[QuerySegment], out: &mut [f32]) {
        let heads = self.heads;
        let nothing = KeySegment { panels: &[], capacity: 0, values: &[], value_stride: 0, len: 0 };
        let keys: Vec<KeySegment<'_>> =
            self.segments.iter().map(|s| s.as_ref().map_or(nothing, |s| s.keys(layer, heads))).collect();
        attention(heads, qkv, (heads.query + 2 * heads.kv) * heads.dim, &keys, queries, out);
    }
}
