//! Packed ragged batches: no padding, and shared prefixes only once.

use crate::error::{Error, Result};

/// Consecutive rows of a batch. They attend to all rows of their ancestors and causally to themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row.
    pub row: usize,
    /// Number of rows.
    pub len: usize,
    /// Position of the first row in its sequence.
    pub position: usize,
    /// The segment that comes before it in its sequences.
    pub parent: Option<usize>,
}

/// Tokens of several sequences, as a forest of [`Segment`]s. Parents come before their children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Segments, in the order of their rows.
    pub segments: Vec<Segment>,
}

/// Where the tokens of one sequence are in a batch: ranges of rows, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceRows {
    ranges: Vec<std::ops::Range<usize>>,
    /// The segment of the last token.
    pub last_segment: Option<usize>,
}

impl SequenceRows {
    /// Row of the token at `position`.
    pub fn row(&self, position: usize) -> Option<usize> {
        let mut left = position;
        for range in &self.ranges {
            if left < range.len() {
                return Some(range.start + left);
            }
            left -= range.len();
        }
        None
    }

    /// Rows of all tokens, in order.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges.iter().cloned().flatten()
    }
}

/// Prefixes whose sharing saves fewer rows than this are not shared: a segment has a cost of its own.
const WORTH_SHARING: usize = 8;

impl Batch {
    /// Packs sequences so that a common prefix is there once. Returns where each sequence lies.
    pub fn share_prefixes<S: AsRef<[u32]>>(sequences: &[S]) -> (Self, Vec<SequenceRows>) {
        let mut batch = Self::default();
        let mut places = vec![SequenceRows::default(); sequences.len()];
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by(|&a, &b| sequences[a].as_ref().cmp(sequences[b].as_ref()).then(a.cmp(&b)));
        let tokens: Vec<&[u32]> = sequences.iter().map(AsRef::as_ref).collect();
        batch.grow(&tokens, &order, 0, None, &mut places);
        (batch, places)
    }

    /// As [`Batch::share_prefixes`]; returns the row of each sequence's last token. No sequence may be empty.
    pub fn with_ends<S: AsRef<[u32]>>(sequences: &[S]) -> (Self, Vec<usize>) {
        let (batch, places) = Self::share_prefixes(sequences);
        let last = places.iter().filter_map(|place| place.rows().last()).collect();
        (batch, last)
    }

    /// Packs sequences one after the other, sharing nothing.
    pub fn concatenate<S: AsRef<[u32]>>(sequences: &[S]) -> (Self, Vec<SequenceRows>) {
        let mut batch = Self::default();
        let mut places = vec![SequenceRows::default(); sequences.len()];
        for (sequence, place) in sequences.iter().zip(&mut places) {
            batch.append(sequence.as_ref(), 0, None, &mut [place]);
        }
        (batch, places)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Position of each row in its sequence.
    pub fn positions(&self) -> Vec<usize> {
        self.segments.iter().flat_map(|s| s.position..s.position + s.len).collect()
    }

    /// Segments that `segment` attends to: its ancestors from the oldest, then itself.
    pub fn chain(&self, segment: usize) -> Vec<usize> {
        let mut chain: Vec<usize> =
            std::iter::successors(Some(segment), |&s| self.segments[s].parent).collect();
        chain.reverse();
        chain
    }

    /// Checks tokens against the vocabulary and positions against the longest context.
    ///
    /// # Errors
    /// [`Error::TokenOutOfVocabulary`], [`Error::SequenceTooLong`].
    pub fn check(&self, vocabulary: usize, positions: usize) -> Result<()> {
        if let Some(&token) = self.tokens.iter().find(|&&t| t as usize >= vocabulary) {
            return Err(Error::TokenOutOfVocabulary { token, vocabulary });
        }
        let longest = self.segments.iter().map(|s| s.position + s.len).max().unwrap_or(0);
        if longest > positions {
            return Err(Error::SequenceTooLong { length: longest, limit: positions });
        }
        Ok(())
    }

    /// Adds the sequences `order` (sorted, equal up to `depth`) below `parent`.
    fn grow(
        &mut self,
        sequences: &[&[u32]],
        order: &[usize],
        depth: usize,
        parent: Option<usize>,
        places: &mut [SequenceRows],
    ) {
        let (Some(&first), Some(&last)) = (order.first(), order.last()) else { return };
        let common = common_prefix(&sequences[first][depth..], &sequences[last][depth..]);
        if order.len() == 1 || common * (order.len() - 1) >= WORTH_SHARING {
            let segment = if common == 0 { parent } else { Some(self.segments.len()) };
            if common > 0 {
                let start = self.push(&sequences[first][depth..depth + common], depth, parent);
                for &s in order {
                    places[s].ranges.push(start..start + common);
                    places[s].last_segment = segment;
                }
            }
            if order.len() == 1 {
                return;
            }
            let rest: Vec<usize> =
                order.iter().copied().filter(|&s| sequences[s].len() > depth + common).collect();
            return self.branch(sequences, &rest, depth + common, segment, places);
        }
        self.branch(sequences, order, depth, parent, places);
    }

    /// Adds sequences that part at `depth`, one group per next token; short common starts are repeated.
    fn branch(
        &mut self,
        sequences: &[&[u32]],
        order: &[usize],
        depth: usize,
        parent: Option<usize>,
        places: &mut [SequenceRows],
    ) {
        for group in order.chunk_by(|&a, &b| sequences[a].get(depth) == sequences[b].get(depth)) {
            let (first, last) = (sequences[group[0]], sequences[group[group.len() - 1]]);
            let common = common_prefix(&first[depth..], &last[depth..]);
            if common * (group.len() - 1) >= WORTH_SHARING {
                self.grow(sequences, group, depth, parent, places);
            } else {
                for &s in group {
                    self.append(&sequences[s][depth..], depth, parent, &mut [&mut places[s]]);
                }
            }
        }
    }

    fn append(
        &mut self,
        tokens: &[u32],
        position: usize,
        parent: Option<usize>,
        places: &mut [&mut SequenceRows],
    ) {
        if tokens.is_empty() {
            return;
        }
        let segment = self.segments.len();
        let start = self.push(tokens, position, parent);
        for place in places {
            place.ranges.push(start..start + tokens.len());
            place.last_segment = Some(segment);
        }
    }

    fn push(&mut self, tokens: &[u32], position: usize, parent: Option<usize>) -> usize {
        let row = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.segments.push(Segment { row, len: tokens.len(), position, parent });
        row
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sequence_can_be_read_back(sequences in prop::collection::vec(prop::collection::vec(0u32..3, 0..40), 0..12)) {
            for (batch, places) in [Batch::share_prefixes(&sequences), Batch::concatenate(&sequences)] {
                for (sequence, place) in sequences.iter().zip(&places) {
                    let read: Vec<u32> = place.rows().map(|r| batch.tokens[r]).collect();
                    prop_assert_eq!(&read, sequence);
                    if let Some(last) = place.last_segment {
                        let chain: Vec<u32> = batch.chain(last).iter().flat_map(|&s| {
                            let s = &batch.segments[s];
                            batch.tokens[s.row..s.row + s.len].to_vec()
                        }).collect();
                        prop_assert_eq!(&chain, sequence, "the chain of segments is the sequence");
                    }
                    for (position, row) in place.rows().enumerate() {
                        prop_assert_eq!(batch.positions()[row], position);
                        prop_assert_eq!(place.row(position), Some(row));
                    }
                }
                for (i, s) in batch.segments.iter().enumerate() {
                    prop_assert!(s.parent.is_none_or(|p| p < i), "parents come first");
                }
            }
        }
    }

    #[test]
    fn a_long_common_prefix_is_stored_once() {
        let prefix: Vec<u32> = (0..20).collect();
        let sequences: Vec<Vec<u32>> =
            (0..4).map(|i| prefix.iter().copied().chain([100 + i, 7, 8]).collect()).collect();
        let (batch, _) = Batch::share_prefixes(&sequences);
        assert_eq!(batch.len(), 20 + 4 * 3);
    }
}
